"""Symmetric formats in exact rationals, from the definitions alone: slow, and without torch."""

from __future__ import annotations

import math
from fractions import Fraction

from tests.reference.fixed_point import rounded, steps_of, value_of


def unlimited(steps: Fraction, word_length: int, rounding: str) -> int:
    """The code that a deterministic rounding makes of an exact number of steps, of all codes."""
    if word_length > 1:
        return rounded(steps, rounding)
    below = math.floor(steps)
    below -= below % 2 == 0
    around = [below, below + 2]  # the odd numbers on both sides, or steps itself and the next
    if rounding == "truncate":
        return below
    if rounding == "toward_zero":
        inside = [one for one in around if 0 < one <= steps or steps <= one < 0]
        if inside:
            return max(inside, key=abs)
    return min(around, key=lambda one: (abs(one - steps), -one))


def quantized(x: float, word_length: int, fraction_bits: int, rounding: str) -> float:
    """The number of the format: as many codes above 0 as below, and of signs only these two."""
    if math.isnan(x):
        return x
    largest = max(1, 2 ** (word_length - 1) - 1)
    if math.isinf(x):
        return value_of(largest if x > 0 else -largest, fraction_bits)
    code = unlimited(steps_of(x, fraction_bits), word_length, rounding)
    return value_of(min(max(code, -largest), largest), fraction_bits)


def passes_gradient(x: float, word_length: int, fraction_bits: int, rounding: str) -> bool:
    if math.isnan(x) or math.isinf(x):
        return False
    largest = max(1, 2 ** (word_length - 1) - 1)
    return abs(unlimited(steps_of(x, fraction_bits), word_length, rounding)) <= largest
