"""The arithmetic of the event-driven kernel, in float32 and in integers.

Each operation is a stub that numba replaces, by the type of the numbers it is given, with its
float or its integer form: the kernel itself is written once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numba import njit
from numba.extending import overload

from qspinn.networks.diehl_cook.number_types import (
    NEAREST,
    NEAREST_EVEN,
    STOCHASTIC,
    THETA_BITS,
    TOWARD_ZERO,
    FloatNumbers,
    NarrowChargeCodes,
)
from qspinn.networks.diehl_cook.random_bits import GOLDEN, MIX_1, MIX_2

U64 = np.uint64
GOLDEN_64, _MIX_1, _MIX_2 = U64(GOLDEN), U64(MIX_1), U64(MIX_2)


@njit(inline="always")
def mix(z):  # type: ignore[no-untyped-def]
    """`random_bits.mix`, of uint64."""
    z = (z ^ (z >> U64(30))) * _MIX_1
    z = (z ^ (z >> U64(27))) * _MIX_2
    return z ^ (z >> U64(31))


@njit(inline="always")
def draw(key, counter):  # type: ignore[no-untyped-def]
    """`random_bits.draw`, of uint64."""
    return mix(key + (U64(counter) + U64(1)) * GOLDEN_64)


@njit(inline="always")
def spread(key, counter, turn):  # type: ignore[no-untyped-def]
    """`random_bits.spread`, of uint64."""
    return draw(key, counter) + U64(turn) * GOLDEN_64


@njit(inline="always")
def stream(key, purpose):  # type: ignore[no-untyped-def]
    """`random_bits.stream`, of uint64."""
    return mix(key ^ mix(U64(purpose) + U64(1)))


@njit(inline="always")
def chosen(key, t, count):  # type: ignore[no-untyped-def]
    """Which of ``count`` neurons spikes in step t."""
    if count == 1:
        return np.int64(0)
    return np.int64(((draw(key, t) >> U64(32)) * U64(count)) >> U64(32))


@njit(inline="always")
def shifted(x, bits, mode, random):  # type: ignore[no-untyped-def]
    """``x / 2^bits`` rounded to a whole number; random: 64 bits for the stochastic rounding."""
    if bits == 0:
        return x
    rest = (np.int64(1) << bits) - 1
    if mode == STOCHASTIC:
        add = np.int64(random >> U64(64 - bits))
    elif mode == NEAREST:
        add = (rest >> 1) + 1
    elif mode == TOWARD_ZERO:
        add = rest if x < 0 else np.int64(0)
    elif mode == NEAREST_EVEN:
        add = (rest >> 1) + ((x >> bits) & 1)
    else:
        add = np.int64(0)
    return (x + add) >> bits


@njit(inline="always")
def fitted(x, to):  # type: ignore[no-untyped-def]
    """A code brought into the range of a `Rounding`."""
    if to.wrap:
        return ((x - to.low) & (to.high - to.low)) + to.low
    return min(max(x, to.low), to.high)


def by_type(
    stub: Callable[..., Any],
    floating: Callable[..., Any],
    fixed: Callable[..., Any],
    narrow: Callable[..., Any] | None = None,
    inline: Literal["never", "always"] = "never",
) -> None:
    """Lets the kernel call ``stub``; the type of its first argument decides which form is meant.

    A call hands the numbers on one by one: what runs once per step or per neuron is better inlined.
    """

    def choose(numbers: Any, *others: Any) -> Callable[..., Any]:
        if numbers.instance_class is FloatNumbers:
            return floating
        return narrow if narrow and numbers.instance_class is NarrowChargeCodes else fixed

    choose.__signature__ = inspect.signature(stub)  # type: ignore[attr-defined]  # numba compares
    overload(stub, jit_options={"error_model": "numpy"}, inline=inline)(choose)


def threshold(numbers, theta):  # type: ignore[no-untyped-def]
    """What a potential must reach."""


def _threshold_float(numbers, theta):  # type: ignore[no-untyped-def]
    return numbers.threshold + theta


def _threshold_fixed(numbers, theta):  # type: ignore[no-untyped-def]
    exact = numbers.threshold + (np.int64(theta) << numbers.theta_shift)
    lowest = -((-exact) >> numbers.fire_shift)  # the lowest code of a potential that is not below
    return min(lowest, numbers.v.high + 1)  # which no potential reaches, and its type can hold


def raised(numbers, theta, key, counter):  # type: ignore[no-untyped-def]
    """Theta of a neuron that reached its threshold."""


def _raised_float(numbers, theta, key, counter):  # type: ignore[no-untyped-def]
    return theta + numbers.theta_plus


def _raised_fixed(numbers, theta, key, counter):  # type: ignore[no-untyped-def]
    exact = (np.int64(theta) << THETA_BITS) + numbers.theta_plus
    return fitted(shifted(exact, THETA_BITS, numbers.theta.mode, draw(key, counter)), numbers.theta)


def decayed(numbers, theta, key, counter):  # type: ignore[no-untyped-def]
    """Theta after a presentation."""


def _decayed_float(numbers, theta, key, counter):  # type: ignore[no-untyped-def]
    return theta * numbers.theta_keep


def _decayed_fixed(numbers, theta, key, counter):  # type: ignore[no-untyped-def]
    exact = np.int64(theta) * numbers.theta_keep
    return fitted(shifted(exact, THETA_BITS, numbers.theta.mode, draw(key, counter)), numbers.theta)


def reset(numbers):  # type: ignore[no-untyped-def]
    """The potential after a spike."""


def _reset_either(numbers):  # type: ignore[no-untyped-def]
    return numbers.reset


by_type(threshold, _threshold_float, _threshold_fixed, inline="always")
by_type(raised, _raised_float, _raised_fixed)
by_type(decayed, _decayed_float, _decayed_fixed, inline="always")
by_type(reset, _reset_either, _reset_either)
