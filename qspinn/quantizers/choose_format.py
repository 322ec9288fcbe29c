"""Splits a word length into integer and fraction bits, from the values it must hold."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qspinn.fixed_point import (
    FixedPointFormat,
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


def choose_format(
    values: Tensor,
    word_length: int,
    method: str = "mse",
    rounding: str = "nearest",
    *,
    signed: bool = True,
    at_least: float = 0.0,
    step_at_most: float = math.inf,
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
        at_least: A positive number that the format must be able to hold.
        step_at_most: A positive number; the format's step is no longer, unless
            ``at_least`` leaves no choice.

    Returns:
        The format.
    """
    magnitudes = values.detach().abs().reshape(-1)
    floor = max(
        _smallest_holding(at_least, word_length, signed), word_length - int(signed) - MAX_BITS
    )
    ceiling = max(floor, _largest_resolving(step_at_most, word_length, signed))
    if method in LEAST_ERROR:
        top = min(max(covering_integer_bits(float(magnitudes.max())) + 1, floor), ceiling)
        lowest = max(floor, top - 1 - RANGES_TRIED)
        candidates = range(top, lowest - 1, -1)
        return min(
            (_format(bits, word_length, signed) for bits in candidates),
            key=lambda fmt: _squared_error(values, fmt, rounding),
        )
    largest = float(magnitudes.max()) if method == "max" else _percentile(magnitudes)
    return _format(min(max(covering_integer_bits(largest), floor), ceiling), word_length, signed)


def choose_channel_format(
    values: Tensor,
    axis: int,
    word_length: int,
    method: str,
    rounding: str,
    *,
    signed: bool = True,
) -> PerChannelFormat:
    """One format per slice of ``values`` along ``axis``, all of ``word_length`` bits.

    No range is smaller than 2^-16 of the largest: what is so much weaker adds
    nothing, and a finer grid would only make every sum longer.
    """
    chosen = [
        choose_format(channel, word_length, method, rounding, signed=signed).fraction_bits
        for channel in values.detach().unbind(axis)
    ]
    finest = min(chosen) + WIDEST_SPREAD
    return PerChannelFormat(
        word_length, tuple(min(bits, finest) for bits in chosen), signed=signed, axis=axis
    )


def constant_format(
    value: float, word_length: int, rounding: str, finest: int | None = None
) -> FixedPointFormat:
    """The format in which one number loses least.

    Args:
        value: The number.
        word_length: Bits, 1 to 24.
        rounding: Its rounding.
        finest: The most fraction bits allowed, where the number is compared
            with values on a grid.
    """
    signed = value < 0
    single = torch.tensor([value], dtype=torch.float64)
    fmt = choose_format(single, word_length, "mse", rounding, signed=signed)
    if finest is None or fmt.fraction_bits <= finest:
        return fmt
    return _format(word_length - int(signed) - finest, word_length, signed)


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


def _format(integer_bits: int, word_length: int, signed: bool) -> FixedPointFormat:
    return FixedPointFormat(integer_bits, word_length - int(signed) - integer_bits, signed)


def _squared_error(values: Tensor, fmt: FixedPointFormat, rounding: str) -> float:
    measured = "nearest" if rounding == "stochastic" else rounding
    exact = values.detach().double()
    return float((quantize(exact, fmt, measured) - exact).square().sum())


def _percentile(magnitudes: Tensor) -> float:
    rank = max(1, math.ceil(magnitudes.numel() * PERCENTILE / 100.0))
    return float(magnitudes.kthvalue(rank).values)
