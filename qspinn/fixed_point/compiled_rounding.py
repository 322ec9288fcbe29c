"""The roundings of :mod:`qspinn.fixed_point.rounding`, compiled by numba: real numbers, in place.

The same operations in the same order, and so the same numbers to the last bit. `wrap` is for finite
numbers only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

from qspinn.fixed_point.compiled_bits import U64, random_bits
from qspinn.fixed_point.rounding import ROUNDINGS

__all__ = ["reduce_", "round_", "wrap_"]

PART: Any = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
TRUNCATE, NEAREST, STOCHASTIC, TOWARD_ZERO, NEAREST_EVEN, NEAREST_AWAY = (
    ROUNDINGS.index(name)
    for name in (
        *("truncate", "nearest", "stochastic", "toward_zero", "nearest_even", "nearest_away"),
    )
)
SAFE_SPAN = np.float32(2.0**64)
ONE, HALF = np.float32(1.0), np.float32(0.5)

_draw = random_bits.draw


def _uniform(word, like):  # type: ignore[no-untyped-def]
    """A number in [0, 1) of the highest bits of 64, of the type of `like`."""


@overload(_uniform, jit_options=PART, inline="always")
def _choose_uniform(word, like):  # type: ignore[no-untyped-def]
    if like is types.float32:
        return lambda word, like: np.float32(np.int32(word >> U64(40))) * np.float32(2.0**-24)
    return lambda word, like: np.float64(np.int64(word >> U64(11))) * 2.0**-53


@njit(**PART)
def round_(x, scale, mode, key, first):  # type: ignore[no-untyped-def]
    """Rounds ``x / step`` to whole numbers, which may lie outside of the format's range.

    Args:
        x: ``[n]``, changed in place.
        scale: 1 / step, a power of two, of the type of `x`.
        mode: Index in `ROUNDINGS`.
        key: uint64; of the draws of `stochastic`.
        first: The number of the first draw.
    """
    twice = scale + scale
    if mode == NEAREST:
        for i in range(x.shape[0]):
            x[i] = np.ceil(np.floor(x[i] * twice) * HALF)
    elif mode == TRUNCATE:
        if scale < ONE:
            for i in range(x.shape[0]):
                x[i] = np.floor(x[i])
        for i in range(x.shape[0]):
            x[i] = np.floor(x[i] * scale)
    elif mode == STOCHASTIC:
        for i in range(x.shape[0]):
            whole = np.floor(x[i] * scale)
            fraction = x[i] * scale - whole
            needed = ONE - _uniform(_draw(key, first + i), fraction)
            x[i] = whole + ONE if fraction >= needed else whole
    elif mode == TOWARD_ZERO:
        for i in range(x.shape[0]):
            x[i] = np.trunc(x[i] * scale)
    elif mode == NEAREST_EVEN:
        for i in range(x.shape[0]):
            x[i] = np.rint(x[i] * scale)
    elif mode == NEAREST_AWAY:
        for i in range(x.shape[0]):
            away = np.ceil(np.floor(abs(x[i]) * twice) * HALF)
            x[i] = np.copysign(away, x[i])


@njit(**PART)
def reduce_(x, span):  # type: ignore[no-untyped-def]
    """The exact remainder of `x` by the width of the range, with its sign, in place."""
    if span < ONE:
        inverse = ONE / SAFE_SPAN
        for i in range(x.shape[0]):
            x[i] = x[i] - np.trunc(x[i] * inverse) * SAFE_SPAN
    inverse = ONE / span
    for i in range(x.shape[0]):
        x[i] = x[i] - np.trunc(x[i] * inverse) * span


@njit(**PART)
def wrap_(codes, low, high):  # type: ignore[no-untyped-def]
    """Codes of reduced numbers, brought into the range in place."""
    modulus = high - low + ONE
    for i in range(codes.shape[0]):
        code = codes[i]
        code = code - modulus if code > high else code
        codes[i] = code + modulus if code < low else code
