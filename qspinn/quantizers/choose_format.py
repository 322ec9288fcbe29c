"""Splits a word length into integer and fraction bits, from the values it must hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from qspinn.fixed_point import (
    FixedPointFormat,
    Format,
    PerChannelFormat,
    covering_integer_bits,
    quantize,
)
from qspinn.fixed_point.format import MAX_BITS

PERCENTILE = 99.9
# "spikes" is decided by whoever can see spikes; where there are none, by the squared error.
LEAST_ERROR = ("mse", "spikes")
# How many ranges below the largest value the squared error is tried for: at
# 2^-6 of the range nearly everything would saturate.
RANGES_TRIED = 6
# How many binary orders of magnitude lie between the formats of two channels at most.
WIDEST_SPREAD = 16
# A format in use stays while its squared error is at most this much above the least one, or
# while the largest value is above this part of the next smaller range: formats that follow a
# network in training should not change to and fro.
NEARLY = 1.1
CLEARLY = 0.8


def choose_format(
    values: Tensor,
    word_length: int,
    method: str = "mse",
    rounding: str = "nearest",
    *,
    signed: bool = True,
    symmetric: bool = False,
    at_least: float = 0.0,
    step_at_most: float = math.inf,
    current: FixedPointFormat | None = None,
) -> FixedPointFormat:
    """The format of ``word_length`` bits that suits ``values`` best.

    Args:
        values: A sample, any shape, finite, not empty.
        word_length: Bits, 1 to 24.
        method: ``"max"``: the smallest range ``[-2^i, 2^i]`` that covers every value
            (the largest may lose up to a step); ``"percentile"``: the same for
            99.9% of the values; ``"mse"``: the range with the smallest squared
            error of quantisation, the wider one where two are equal.
        rounding: The rounding that the error is measured with (``stochastic`` is
            measured as ``nearest``, its mean).
        signed: Whether the format has a sign bit.
        symmetric: Whether it has the negative of each of its numbers.
        at_least: A positive number that the format must be able to hold.
        step_at_most: A positive number; the format's step is no longer, unless
            ``at_least`` leaves no choice.
        current: The format in use, which stays where it is nearly as good.

    Returns:
        The format.
    """
    limits = range_limits(word_length, signed, at_least, step_at_most)
    held = None if current is None else integer_bits_of(current, word_length, signed)
    rows = values.detach().reshape(1, -1)
    word = PerChannelFormat(word_length, (0,), signed, symmetric=symmetric)
    (bits,) = _chosen_bits(rows, word, method, rounding, [held], limits)
    return _format(bits, word_length, signed, symmetric)


@dataclass(frozen=True)
class RangeLimits:
    """The integer bits that a format may have."""

    floor: int
    ceiling: int

    def clamped(self, integer_bits: int) -> int:
        """The nearest number of integer bits that is allowed."""
        return min(max(integer_bits, self.floor), self.ceiling)


def range_limits(
    word_length: int, signed: bool, at_least: float = 0.0, step_at_most: float = math.inf
) -> RangeLimits:
    """The ranges that hold ``at_least`` and resolve ``step_at_most``, in this order."""
    finest = word_length - int(signed) - MAX_BITS
    floor = max(_smallest_holding(at_least, word_length, signed), finest)
    return RangeLimits(floor, max(floor, _largest_resolving(step_at_most, word_length, signed)))


def least_error(errors: Mapping[int, float], current: int | None = None) -> int:
    """The integer bits with the least error: the first of equals, or nearly equal ``current``."""
    best = min(errors, key=lambda bits: errors[bits])
    if current in errors and errors[current] <= NEARLY * errors[best]:  # type: ignore[index]
        return current  # type: ignore[return-value]
    return best


def covering_bits(largest: float, current: int | None = None) -> int:
    """The smallest range that covers ``largest``; ``current`` until that is clearly too wide."""
    bits = covering_integer_bits(largest)
    too_wide = largest <= CLEARLY * math.ldexp(1.0, bits)
    return bits + 1 if current == bits + 1 and not too_wide else bits


def integer_bits_of(fmt: FixedPointFormat, word_length: int, signed: bool) -> int | None:
    """The integer bits of ``fmt``, where it is of this word length and sign."""
    same = (fmt.word_length, fmt.signed) == (word_length, signed)
    return fmt.integer_bits if same else None


def choose_channel_format(
    values: Tensor,
    axis: int,
    word_length: int,
    method: str,
    rounding: str,
    *,
    signed: bool = True,
    symmetric: bool = False,
    current: PerChannelFormat | None = None,
) -> PerChannelFormat:
    """One format per slice of ``values`` along ``axis``, all of ``word_length`` bits.

    No range is smaller than 2^-16 of the largest: what is so much weaker adds
    nothing, and a finer grid would only make every sum longer.
    """
    rows = values.detach().movedim(axis, 0).reshape(values.shape[axis], -1)
    held = [None] * len(rows) if current is None else [one.integer_bits for one in current.formats]
    limits = range_limits(word_length, signed)
    word = PerChannelFormat(word_length, (0,), signed, axis, symmetric)
    bits = _chosen_bits(rows, word, method, rounding, held, limits)
    return replace(word, fraction_bits=within_spread([word_length - int(signed) - b for b in bits]))


def within_spread(fractions: Sequence[int]) -> tuple[int, ...]:
    """Fraction bits of channels, none of them finer than sums can bear beside the others."""
    finest = min(fractions) + WIDEST_SPREAD
    return tuple(min(one, finest) for one in fractions)


def _chosen_bits(
    rows: Tensor,
    word: PerChannelFormat,
    method: str,
    rounding: str,
    held: Sequence[int | None],
    limits: RangeLimits,
) -> list[int]:
    """The integer bits that suit each row of ``[R, n]`` best, as :func:`choose_format` says.

    Of ``word``, the length counts, and which codes it has.
    """
    if method not in LEAST_ERROR:
        largest = rows.abs().amax(1).tolist() if method == "max" else map(percentile, rows.abs())
        return [limits.clamped(covering_bits(*one)) for one in zip(largest, held, strict=True)]
    tops = [limits.clamped(covering_integer_bits(one) + 1) for one in rows.abs().amax(1).tolist()]
    errors: list[dict[int, float]] = [{} for _ in tops]
    for below in range(RANGES_TRIED + 2):
        tried = [max(top - below, limits.floor) for top in tops]
        fractions = tuple(word.word_length - int(word.signed) - bits for bits in tried)
        fmt = replace(word, fraction_bits=fractions, axis=0)
        for found, bits, error in zip(
            errors, tried, squared_errors(rows, fmt, rounding).tolist(), strict=True
        ):
            found.setdefault(bits, error)
    return [least_error(*one) for one in zip(errors, held, strict=True)]


def constant_format(
    values: Tensor, word_length: int, rounding: str, finest: int | None = None
) -> FixedPointFormat:
    """The format in which constants lose least, of at most ``finest`` fraction bits."""
    signed = bool((values < 0).any())
    return no_finer(choose_format(values, word_length, "mse", rounding, signed=signed), finest)


def no_finer(fmt: FixedPointFormat, finest: int | None) -> FixedPointFormat:
    """The format of this word length with at most so many fraction bits."""
    if finest is None or fmt.fraction_bits <= finest:
        return fmt
    return _format(fmt.word_length - int(fmt.signed) - finest, fmt.word_length, fmt.signed)


def covering_format(largest: float, word_length: int, *, signed: bool = False) -> FixedPointFormat:
    """The smallest range ``[0, 2^i)`` or ``[-2^i, 2^i)`` that covers ``largest``, up to a step."""
    integer_bits = max(covering_integer_bits(largest), word_length - int(signed) - MAX_BITS)
    return _format(integer_bits, word_length, signed)


def _smallest_holding(value: float, word_length: int, signed: bool) -> int:
    """The smallest ``i`` whose largest number is at least ``value``."""
    if value <= 0.0:
        return -MAX_BITS
    bits = covering_integer_bits(value)
    return bits if _format(bits, word_length, signed).max >= value else bits + 1


def _largest_resolving(step: float, word_length: int, signed: bool) -> int:
    """The largest ``i`` whose step is at most ``step``."""
    if math.isinf(step):
        return MAX_BITS
    fraction_bits = 1 - math.frexp(step)[1]  # step >= 2^(e-1)
    return word_length - int(signed) - fraction_bits


def _format(
    integer_bits: int, word_length: int, signed: bool, symmetric: bool = False
) -> FixedPointFormat:
    fraction_bits = word_length - int(signed) - integer_bits
    return FixedPointFormat(integer_bits, fraction_bits, signed, symmetric)


def squared_errors(rows: Tensor, fmt: Format, rounding: str) -> Tensor:
    """The squared error of quantising each row of ``rows`` ``[R, n]``; ``[R]``, float64."""
    measured = "nearest" if rounding == "stochastic" else rounding
    exact = rows.detach().double()
    return (quantize(exact, fmt, measured) - exact).square().sum(1)


def percentile(magnitudes: Tensor) -> float:
    """The value that 99.9% of ``magnitudes`` ``[n]`` do not exceed."""
    rank = max(1, math.ceil(magnitudes.numel() * PERCENTILE / 100.0))
    return float(magnitudes.kthvalue(rank).values)
