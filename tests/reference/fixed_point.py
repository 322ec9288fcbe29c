"""Fixed-point quantisation in exact rationals: slow, obvious, and without torch.

Written from the definitions alone: a number `x`, `i` integer bits, `f`
fraction bits, and whether there is a sign bit besides them.
"""

from __future__ import annotations

import math
from fractions import Fraction

HALF = Fraction(1, 2)


def power_of_two(exponent: int) -> Fraction:
    return Fraction(2) ** exponent


def code_range(integer_bits: int, fraction_bits: int, signed: bool) -> tuple[int, int]:
    largest = power_of_two(integer_bits) / power_of_two(-fraction_bits) - 1
    smallest = -(largest + 1) if signed else Fraction(0)
    assert largest.denominator == 1
    return int(smallest), int(largest)


def rounded(steps: Fraction, rounding: str) -> int:
    """The whole number that a deterministic rounding makes of an exact number of steps."""
    below = steps.numerator // steps.denominator
    rest = steps - below
    if rounding == "truncate":
        return below
    if rounding == "toward_zero":
        return below + 1 if steps < 0 and rest > 0 else below
    if rounding == "nearest":
        return below + 1 if rest >= HALF else below
    if rounding == "nearest_away":
        return below + 1 if rest > HALF or (rest == HALF and steps > 0) else below
    if rounding == "nearest_even":
        if rest == HALF:
            return below if below % 2 == 0 else below + 1
        return below + 1 if rest > HALF else below
    raise AssertionError(rounding)


def limited(code: int, low: int, high: int, overflow: str) -> int:
    if overflow == "saturate":
        return low if code < low else high if code > high else code
    if overflow == "wrap":
        count = high - low + 1
        while not low <= code <= high:
            code -= count * ((code - low) // count)
        return code
    raise AssertionError(overflow)


def steps_of(x: float, fraction_bits: int) -> Fraction:
    return Fraction(x) / power_of_two(-fraction_bits)


def code_of(
    x: float,
    integer_bits: int,
    fraction_bits: int,
    signed: bool,
    rounding: str,
    overflow: str,
) -> int:
    """The code of a number; infinities saturate under both overflows."""
    low, high = code_range(integer_bits, fraction_bits, signed)
    if math.isinf(x):
        return high if x > 0 else low
    return limited(rounded(steps_of(x, fraction_bits), rounding), low, high, overflow)


def value_of(code: int, fraction_bits: int) -> float:
    """The number of a code; the conversion to float must be exact."""
    exact = code * power_of_two(-fraction_bits)
    result = float(exact)
    assert Fraction(result) == exact
    return result


def quantized(
    x: float,
    integer_bits: int,
    fraction_bits: int,
    signed: bool,
    rounding: str,
    overflow: str,
) -> float:
    if math.isnan(x):
        return x
    code = code_of(x, integer_bits, fraction_bits, signed, rounding, overflow)
    return value_of(code, fraction_bits)


def neighbours(
    x: float, integer_bits: int, fraction_bits: int, signed: bool, overflow: str
) -> tuple[float, float, Fraction]:
    """What stochastic rounding may give: (lower, upper, probability of the upper)."""
    low, high = code_range(integer_bits, fraction_bits, signed)
    if math.isinf(x):
        end = value_of(high if x > 0 else low, fraction_bits)
        return end, end, Fraction(0)
    steps = steps_of(x, fraction_bits)
    below = math.floor(steps)
    chance = steps - below
    above = below + 1 if chance else below
    lower = value_of(limited(below, low, high, overflow), fraction_bits)
    upper = value_of(limited(above, low, high, overflow), fraction_bits)
    return lower, upper, chance


def passes_gradient(
    x: float,
    integer_bits: int,
    fraction_bits: int,
    signed: bool,
    rounding: str,
    overflow: str,
) -> bool:
    """Whether the straight-through gradient passes at `x`."""
    if math.isnan(x) or math.isinf(x):
        return False
    low, high = code_range(integer_bits, fraction_bits, signed)
    return overflow == "wrap" or low <= rounded(steps_of(x, fraction_bits), rounding) <= high
