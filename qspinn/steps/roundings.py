"""From exact sums to codes: the six roundings of whole numbers, and both overflows.

The same numbers as :mod:`qspinn.fixed_point.quantize` gives for real ones.
"""

from __future__ import annotations

from typing import Any

from qspinn.steps.words import (
    NEAREST,
    NEAREST_AWAY,
    NEAREST_EVEN,
    STOCHASTIC,
    TOWARD_ZERO,
    chosen,
    clamped,
    is_whole,
    top_bits,
)


def shifted(x: Any, bits: Any, mode: Any, random: Any) -> Any:
    """``x / 2^bits``, rounded to whole numbers.

    Args:
        x: Whole numbers.
        bits: 0 to 62.
        mode: Of the rounding.
        random: 64 bits for each, which stochastic rounding takes.
    """
    rest = (1 << bits) - 1
    if mode == NEAREST:
        x = x + ((rest + 1) >> 1)
    elif mode == STOCHASTIC:
        x = x + top_bits(random, bits)
    elif mode == TOWARD_ZERO:
        x = chosen(x < 0, x + rest, x)
    elif mode == NEAREST_EVEN:
        x = x + (rest >> 1) + ((x >> bits) & rest & 1)
    elif mode == NEAREST_AWAY:
        x = x + ((rest + 1) >> 1) - chosen(x < 0, rest & 1, 0)
    return x >> bits


def limited(x: Any, low: Any, high: Any, wrap: Any) -> Any:
    """Codes brought into a range, whose width is a power of two where they wrap around."""
    if wrap:
        return ((x - low) & (high - low)) + low
    return clamped(x, low, high)


def rounded(exact: Any, bits: Any, to: Any, random: Any) -> Any:
    """An exact value with so many more fraction bits, rounded; not yet brought into range.

    Args:
        exact: Codes, or real numbers, which stay what they are.
        bits: Fraction bits that codes have more than the result.
        to: A `Rounding`.
        random: See `shifted`.
    """
    return shifted(exact, bits, to.mode, random) if is_whole(exact) else exact


def fitted(x: Any, to: Any) -> Any:
    """Rounded codes brought into the range of `to`; real numbers stay what they are."""
    return limited(x, to.low, to.high, to.wrap) if is_whole(x) else x


def kept(exact: Any, bits: Any, to: Any, random: Any) -> Any:
    """What a tensor keeps of an exact value: rounded once, and brought into range.

    Args:
        exact: Codes with so many more fraction bits, or real numbers.
        bits: See `rounded`.
        to: A `Rounding`. Of real numbers, also a function that puts them on a grid.
        random: See `shifted`.
    """
    if is_whole(exact):
        return limited(shifted(exact, bits, to.mode, random), to.low, to.high, to.wrap)
    return to(exact) if callable(to) else exact
