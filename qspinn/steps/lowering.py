"""From formats to the integer constants of a step, and what a step takes in real numbers.

Codes of an exact sum lie on the finest grid of its terms; the shifts say how each term gets there,
and `down` how far it is from there to the grid of the result.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

from torch import Tensor

from qspinn.fixed_point import FixedPointFormat, Format
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


class Coded(NamedTuple):
    """A constant as codes, of which there may be several in an array."""

    code: Any
    fraction_bits: int


def coded(value: float | Coded) -> Coded:
    """A constant on the coarsest grid of at most 1 that holds it; one that is coded stays so."""
    if isinstance(value, Coded):
        return value
    bits = max(fraction_bits_of(value), 0)
    return Coded(code_of(value, bits), bits)


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
    leak: float | Coded | None = None,
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
    k = Coded(0, 0) if leak is None else coded(leak)
    inner = max(v_bits, current_bits)  # the grid of x - (v - rest)
    decays = leak is not None and decay_input
    total = inner + k.fraction_bits if decays else max(inner, v_bits + k.fraction_bits)
    return LeakyNumbers(
        v=to,
        leak=k.code,
        rest=code_of(rest, v_bits),
        v_up=total - v_bits,
        x_up=(inner if decays else total) - current_bits,
        rest_up=inner - v_bits if decays else total - v_bits - k.fraction_bits,
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
    leak: float | Coded,
    gain: float | Coded,
) -> FollowingNumbers:
    """The constants of a trace as whole numbers.

    Args:
        trace: Its format.
        to: Its rounding.
        target_bits: Fraction bits of what it follows; 0 for spikes.
        leak: On its grid.
        gain: On its grid.
    """
    k, plus = coded(leak), coded(gain)
    held = trace.fraction_bits + k.fraction_bits
    total = max(held, target_bits + plus.fraction_bits)
    return FollowingNumbers(
        to=to,
        keep=(1 << k.fraction_bits) - k.code,
        gain=plus.code,
        x_up=total - held,
        gain_up=total - target_bits - plus.fraction_bits,
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
    trace: FixedPointFormat, to: Rounding, input_bits: int, leak: float | Coded
) -> FilterNumbers:
    """The constants of a synapse filter as whole numbers.

    Args:
        trace: Its format.
        to: Its rounding.
        input_bits: Fraction bits of the input, at least 0; 0 for spikes.
        leak: 1 / tau, on its grid.
    """
    k = coded(leak)
    product = input_bits + trace.fraction_bits + k.fraction_bits
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
