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

from qspinn.fixed_point import FixedPointFormat, Format, stored_constant
from qspinn.steps.exactness import fraction_bits_of
from qspinn.steps.words import MODES, Rounding

Keeps = Callable[[Tensor], Tensor]
"""Puts real numbers on the grid of a state."""


def rounding_of(fmt: Format, rounding: str, overflow: str = "saturate") -> Rounding:
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
    """A stored number: a code, or an array of them, and the fraction bits of its grid."""

    code: Any
    bits: int

    @property
    def fine(self) -> Constant:
        """The same number, on a grid of steps of at most 1."""
        return Constant(self.code << max(-self.bits, 0), max(self.bits, 0))


def fine(value: float | Constant) -> Constant:
    """A constant on a grid of steps of at most 1; of a number, the coarsest that holds it."""
    if isinstance(value, Constant):
        return value.fine
    bits = max(fraction_bits_of(value), 0)
    return Constant(code_of(value, bits), bits)


class LeakyNumbers(NamedTuple):
    """Of `neurons.integrate`, `.leak` and `.leak_only`; in real numbers, shifts are 0."""

    # `Rounding` of the membrane, or what puts real numbers on its grid; None: as they are.
    v: Rounding | Keeps | None = None
    leak: Any = 0  # 1 / tau
    rest: Any = 0  # potential that the leak pulls towards
    v_up: int = 0  # from the membrane to the grid of the exact sum
    x_up: int = 0  # from the current to it, or to that of `x - (v - rest)`
    rest_up: int = 0  # from `v - rest` to it, or from `k (v - rest)`
    down: int = 0  # from the exact sum to the membrane


def leaky_numbers(
    membrane: FixedPointFormat,
    to: Rounding,
    current_bits: int,
    leak: float | Constant | None = None,
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
    k = Constant(0, 0) if leak is None else fine(leak)
    inner = max(v_bits, current_bits)  # the grid of x - (v - rest)
    decays = leak is not None and decay_input
    total = inner + k.bits if decays else max(inner, v_bits + k.bits)
    return LeakyNumbers(
        v=to,
        leak=k.code,
        rest=code_of(rest, v_bits),
        v_up=total - v_bits,
        x_up=(inner if decays else total) - current_bits,
        rest_up=inner - v_bits if decays else total - v_bits - k.bits,
        down=total - v_bits,
    )


class FollowingNumbers(NamedTuple):
    """Of `traces.following` and `traces.refractory`."""

    to: Rounding | Keeps | None = None  # as `LeakyNumbers.v`
    keep: Any = 1  # 1 - leak
    gain: Any = 0  # the leak of a trace that follows; what a spike adds to a refractory one
    x_up: int = 0  # from `x keep` to the grid of the exact sum
    gain_up: int = 0  # from `target gain` to it
    down: int = 0  # from the exact sum to the trace


def following_numbers(
    trace: FixedPointFormat,
    to: Rounding,
    target_bits: int,
    leak: float | Constant,
    gain: float | Constant,
) -> FollowingNumbers:
    """The constants of a trace as whole numbers.

    Args:
        trace: Its format.
        to: Its rounding.
        target_bits: Fraction bits of what it follows; 0 for spikes.
        leak: On its grid.
        gain: On its grid.
    """
    k, plus = fine(leak), fine(gain)
    held = trace.fraction_bits + k.bits
    total = max(held, target_bits + plus.bits)
    return FollowingNumbers(
        to=to,
        keep=(1 << k.bits) - k.code,
        gain=plus.code,
        x_up=total - held,
        gain_up=total - target_bits - plus.bits,
        down=total - trace.fraction_bits,
    )


class PotentialNumbers(NamedTuple):
    """Of `traces.potential`."""

    to: Rounding | Keeps | None = None  # as `LeakyNumbers.v`
    current_up: int = 0  # from the current to the grid of the exact sum
    r_up: int = 0  # from the refractory trace to it
    down: int = 0  # from the exact sum to the potential


class FilterNumbers(NamedTuple):
    """Of `traces.filtered`."""

    to: Rounding | Keeps | None = None  # as `LeakyNumbers.v`
    leak: Any = 0  # 1 / tau
    one: Any = 1  # 1 on the grid of the input
    trace_up: int = 0  # from the trace to the grid of the exact sum
    leak_up: int = 0  # from `(1 - x) trace leak` to it
    x_up: int = 0  # from the input to it
    down: int = 0  # from the exact sum to the trace


def filter_numbers(
    trace: FixedPointFormat, to: Rounding, input_bits: int, leak: float | Constant
) -> FilterNumbers:
    """The constants of a synapse filter as whole numbers.

    Args:
        trace: Its format.
        to: Its rounding.
        input_bits: Fraction bits of the input, at least 0; 0 for spikes.
        leak: 1 / tau, on its grid.
    """
    k = fine(leak)
    product = input_bits + trace.fraction_bits + k.bits
    total = max(product, input_bits)
    return FilterNumbers(
        to=to,
        leak=k.code,
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
