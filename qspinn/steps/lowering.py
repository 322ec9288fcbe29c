"""From formats to the integer constants of a step, and what a step takes in real numbers.

Codes of an exact sum lie on the finest grid of its terms; the shifts say how each term gets there,
and `down` how far it is from there to the grid of the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from qspinn.fixed_point import FixedPointFormat, stored_constant
from qspinn.steps.exactness import fraction_bits_of
from qspinn.steps.words import MODES, Rounding

Keeps = Callable[[Tensor], Tensor]
"""Puts real numbers on the grid of a state."""


def rounding_of(fmt: FixedPointFormat, rounding: str, overflow: str = "saturate") -> Rounding:
    """How the results of a tensor are rounded and brought into range, as whole numbers."""
    return Rounding(MODES[rounding], fmt.code_min, fmt.code_max, overflow == "wrap")


def code_of(value: float, fraction_bits: int) -> int:
    """The code of a number of a grid.

    Raises:
        ValueError: It does not lie there.
    """
    code = Fraction(value) * Fraction(2) ** fraction_bits
    if code.denominator != 1:
        raise ValueError(f"{value} is no number with {fraction_bits} fraction bits")
    return int(code)


class Constant(NamedTuple):
    """A single stored number: a code, and the fraction bits of its grid."""

    code: int
    bits: int

    @property
    def fine(self) -> Constant:
        """The same number, on a grid of steps of at most 1."""
        return Constant(self.code << max(-self.bits, 0), max(self.bits, 0))


class LeakyNumbers(NamedTuple):
    """Of `neurons.integrate`, `neurons.leak` and `neurons.leak_only`; shifts are 0 in real numbers.

    Attributes:
        v: `Rounding` of the membrane, or what puts real numbers on its grid; None: as they are.
        leak: 1 / tau.
        rest: Potential that the leak pulls towards.
        v_up: From the membrane to the grid of the exact sum.
        x_up: From the current to it, or to that of ``x - (v - rest)``.
        rest_up: From ``v - rest`` to it, or from ``k (v - rest)``.
        down: From the exact sum to the membrane.
    """

    v: Rounding | Keeps | None = None
    leak: Any = 0
    rest: Any = 0
    v_up: int = 0
    x_up: int = 0
    rest_up: int = 0
    down: int = 0


def leaky_numbers(
    membrane: FixedPointFormat,
    to: Rounding,
    current_bits: int,
    leak: float | None = None,
    rest: float = 0.0,
    decay_input: bool = True,
) -> LeakyNumbers:
    """The constants of a neuron as whole numbers.

    Args:
        membrane: Its format.
        to: Its rounding.
        current_bits: Fraction bits of the input current.
        leak: 1 / tau, on its grid; None for a neuron without a leak.
        rest: On the membrane's grid.
        decay_input: Whether the current decays too.

    Raises:
        ValueError: Where the membrane's steps are above 1 and the rest lies between them.
    """
    v_bits = membrane.fraction_bits
    leak_bits = 0 if leak is None else max(fraction_bits_of(leak), 0)
    inner = max(v_bits, current_bits)  # the grid of x - (v - rest)
    total = inner + leak_bits if leak is None or decay_input else max(inner, v_bits + leak_bits)
    decays = leak is not None and decay_input
    return LeakyNumbers(
        v=to,
        leak=0 if leak is None else code_of(leak, leak_bits),
        rest=code_of(rest, v_bits),
        v_up=total - v_bits,
        x_up=(inner if decays else total) - current_bits,
        rest_up=inner - v_bits if decays else total - v_bits - leak_bits,
        down=total - v_bits,
    )


class FollowingNumbers(NamedTuple):
    """Of `traces.following` and `traces.refractory`.

    Attributes:
        to: As `LeakyNumbers.v`.
        keep: 1 - leak.
        gain: The leak of a trace that follows; what a spike adds to a refractory one.
        x_up: From ``x keep`` to the grid of the exact sum.
        gain_up: From ``target gain`` to it.
        down: From the exact sum to the trace.
    """

    to: Rounding | Keeps | None = None
    keep: Any = 1
    gain: Any = 0
    x_up: int = 0
    gain_up: int = 0
    down: int = 0


def following_numbers(
    trace: FixedPointFormat, to: Rounding, target_bits: int, leak: float, gain: float
) -> FollowingNumbers:
    """The constants of a trace as whole numbers.

    Args:
        trace: Its format.
        to: Its rounding.
        target_bits: Fraction bits of what it follows; 0 for spikes.
        leak: On its grid.
        gain: On its grid.
    """
    leak_bits, gain_bits = (max(fraction_bits_of(one), 0) for one in (leak, gain))
    kept, added = Constant(code_of(leak, leak_bits), leak_bits), code_of(gain, gain_bits)
    return following_of(trace, to, target_bits, kept, Constant(added, gain_bits))


def following_of(
    trace: FixedPointFormat, to: Rounding, target_bits: int, leak: Constant, gain: Constant
) -> FollowingNumbers:
    """As `following_numbers`, from codes on any grids."""
    leak, gain = leak.fine, gain.fine
    held = trace.fraction_bits + leak.bits
    total = max(held, target_bits + gain.bits)
    return FollowingNumbers(
        to=to,
        keep=(1 << leak.bits) - leak.code,
        gain=gain.code,
        x_up=total - held,
        gain_up=total - target_bits - gain.bits,
        down=total - trace.fraction_bits,
    )


class PotentialNumbers(NamedTuple):
    """Of `traces.potential`.

    Attributes:
        to: As `LeakyNumbers.v`.
        current_up: From the current to the grid of the exact sum.
        r_up: From the refractory trace to it.
        down: From the exact sum to the potential.
    """

    to: Rounding | Keeps | None = None
    current_up: int = 0
    r_up: int = 0
    down: int = 0


class FilterNumbers(NamedTuple):
    """Of `traces.filtered`.

    Attributes:
        to: As `LeakyNumbers.v`.
        leak: 1 / tau.
        one: 1 on the grid of the input.
        trace_up: From the trace to the grid of the exact sum.
        leak_up: From ``(1 - x) trace leak`` to it.
        x_up: From the input to it.
        down: From the exact sum to the trace.
    """

    to: Rounding | Keeps | None = None
    leak: Any = 0
    one: Any = 1
    trace_up: int = 0
    leak_up: int = 0
    x_up: int = 0
    down: int = 0


def filter_numbers(
    trace: FixedPointFormat, to: Rounding, input_bits: int, leak: float
) -> FilterNumbers:
    """The constants of a synapse filter as whole numbers.

    Args:
        trace: Its format.
        to: Its rounding.
        input_bits: Fraction bits of the input, at least 0; 0 for spikes.
        leak: 1 / tau, on its grid.
    """
    leak_bits = max(fraction_bits_of(leak), 0)
    product = input_bits + trace.fraction_bits + leak_bits
    total = max(product, input_bits)
    return FilterNumbers(
        to=to,
        leak=code_of(leak, leak_bits),
        one=1 << input_bits,
        trace_up=total - trace.fraction_bits,
        leak_up=total - product,
        x_up=total - input_bits,
        down=total - trace.fraction_bits,
    )


class AdaptiveNumbers(NamedTuple):
    """Of `neurons.adaptive_charge`, `neurons.adaptive_threshold` and `neurons.reaches`.

    Attributes:
        keep: 1 - leak; on the grid of the leak.
        v_up: From ``v * keep`` to the grid of the exact sum.
        down: From there to the membrane.
        inhibition: On the grid of the exact sum.
        reset: On the membrane's grid.
        threshold: On the grid of the comparison with theta.
        fire_up: From the membrane to it.
        theta_up: From theta to it.
        v: Rounding of the membrane.
        current_up: From the current to the grid of the exact sum, for all or ``[neurons]``.
    """

    keep: Any
    v_up: int
    down: int
    inhibition: Any
    reset: Any
    threshold: Any
    fire_up: int
    theta_up: int
    v: Rounding
    current_up: Any


def adaptive_numbers(
    membrane: FixedPointFormat,
    to: Rounding,
    current_bits: Any,
    theta_bits: int,
    constants: Mapping[str, Constant],
) -> AdaptiveNumbers:
    """The constants of a neuron with an adaptive threshold as whole numbers.

    Args:
        membrane: Its format.
        to: Its rounding.
        current_bits: Fraction bits of the current, for all or an array ``[neurons]``.
        theta_bits: Fraction bits of theta.
        constants: ``leak``, ``inhibition``, ``threshold`` and ``reset``; the last is brought to the
            nearest potential.
    """
    bits = membrane.fraction_bits
    leak, inhibition, threshold, reset = (
        constants[name] for name in ("leak", "inhibition", "threshold", "reset")
    )
    total = max(bits + leak.bits, int(np.max(current_bits)), inhibition.bits)
    compared = max(bits, threshold.bits, theta_bits)
    value = stored_constant(math.ldexp(reset.code, -reset.bits), membrane, "nearest")
    return AdaptiveNumbers(
        keep=(1 << leak.bits) - leak.code,
        v_up=total - bits - leak.bits,
        down=total - bits,
        inhibition=inhibition.code << (total - inhibition.bits),
        reset=code_of(value, bits),
        threshold=threshold.code << (compared - threshold.bits),
        fire_up=compared - bits,
        theta_up=compared - theta_bits,
        v=to,
        current_up=total - current_bits,
    )
