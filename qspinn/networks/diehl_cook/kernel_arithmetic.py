"""The arithmetic of the event-driven kernel, in float32 and in integers.

Each operation is a stub that numba replaces, by the type of the numbers it is given, with its
float or its integer form: the kernel itself is written once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numba.extending import overload

from qspinn.networks.diehl_cook.number_types import (
    NEAREST,
    NEAREST_EVEN,
    STOCHASTIC,
    THETA_BITS,
    TOWARD_ZERO,
    FixedNumbers,
)
from qspinn.networks.diehl_cook.random_bits import GOLDEN, MIX_1, MIX_2

U64 = np.uint64
_GOLDEN, _MIX_1, _MIX_2 = U64(GOLDEN), U64(MIX_1), U64(MIX_2)


@njit(inline="always")
def mix(z):  # type: ignore[no-untyped-def]
    """`random_bits.mix`, of uint64."""
    z = (z ^ (z >> U64(30))) * _MIX_1
    z = (z ^ (z >> U64(27))) * _MIX_2
    return z ^ (z >> U64(31))


@njit(inline="always")
def draw(key, counter):  # type: ignore[no-untyped-def]
    """`random_bits.draw`, of uint64."""
    return mix(key + (U64(counter) + U64(1)) * _GOLDEN)


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
    stub: Callable[..., Any], floating: Callable[..., Any], fixed: Callable[..., Any]
) -> None:
    """Lets the kernel call ``stub``; the type of its first argument decides which form is meant."""

    def choose(numbers: Any, *others: Any) -> Callable[..., Any]:
        return fixed if numbers.instance_class is FixedNumbers else floating

    choose.__signature__ = inspect.signature(stub)  # type: ignore[attr-defined]  # numba compares
    overload(stub, jit_options={"error_model": "numpy"})(choose)


def charge(numbers, v, current, lowered, total, refractory, key, t):  # type: ignore[no-untyped-def]
    """Leak and input of all neurons in step t; the number that reached their threshold."""


def _charge_float(numbers, v, current, lowered, total, refractory, key, t):  # type: ignore[no-untyped-def]
    crossed = np.int32(0)
    for j in range(v.shape[0]):
        drive = current[j] - lowered[j]
        u = v[j] * numbers.keep + (drive if refractory[j] == 0 else np.float32(0))
        v[j] = u
        refractory[j] = refractory[j] - 1 if refractory[j] > 0 else 0
        crossed += np.int32(u >= total[j])
    return crossed


def _charge_fixed(numbers, v, current, lowered, total, refractory, key, t):  # type: ignore[no-untyped-def]
    crossed, neurons = np.int32(0), v.shape[0]
    random = np.uint64(0)
    for j in range(neurons):
        drive = (np.int64(current[j]) << numbers.current_shift[j]) - lowered[j]
        exact = (np.int64(v[j]) * numbers.keep) << numbers.potential_shift
        exact += drive if refractory[j] == 0 else np.int64(0)
        if numbers.v.mode == STOCHASTIC:
            random = draw(key, t * neurons + j)
        u = fitted(shifted(exact, numbers.charge_shift, numbers.v.mode, random), numbers.v)
        v[j] = u
        refractory[j] = refractory[j] - 1 if refractory[j] > 0 else 0
        crossed += np.int32((u << numbers.fire_shift) >= total[j])
    return crossed


def threshold(numbers, theta):  # type: ignore[no-untyped-def]
    """What a potential must reach, on the grid of the comparison."""


def _threshold_float(numbers, theta):  # type: ignore[no-untyped-def]
    return numbers.threshold + theta


def _threshold_fixed(numbers, theta):  # type: ignore[no-untyped-def]
    return numbers.threshold + (np.int64(theta) << numbers.theta_shift)


def reaches(numbers, v, total):  # type: ignore[no-untyped-def]
    """Whether a neuron fires."""


def _reaches_float(numbers, v, total):  # type: ignore[no-untyped-def]
    return v >= total


def _reaches_fixed(numbers, v, total):  # type: ignore[no-untyped-def]
    return (np.int64(v) << numbers.fire_shift) >= total


def inhibited(numbers, spikes):  # type: ignore[no-untyped-def]
    """By how much spikes of other neurons lower a potential, on the grid of the charge."""


def _inhibited_float(numbers, spikes):  # type: ignore[no-untyped-def]
    return numbers.inhibition * np.float32(spikes)


def _inhibited_fixed(numbers, spikes):  # type: ignore[no-untyped-def]
    return numbers.inhibition * np.int64(spikes)


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


def pre_trace(numbers, table, values, times, i, t, key):  # type: ignore[no-untyped-def]
    """The trace of input i in step t. ``times`` holds its last spike, -1 for none."""


def post_trace(numbers, table, values, times, i, t, key):  # type: ignore[no-untyped-def]
    """The trace of neuron i in step t."""


def _trace_float(numbers, table, values, times, i, t, key):  # type: ignore[no-untyped-def]
    return table[t - times[i]] if times[i] >= 0 else np.float32(0)


def _pre_trace_fixed(numbers, table, values, times, i, t, key):  # type: ignore[no-untyped-def]
    if times[i] < 0:
        return np.int64(0)
    if numbers.pre.mode != STOCHASTIC:
        return table[t - times[i]]
    return _advanced(numbers.keep_pre, numbers.leak_bits_pre, numbers.pre, values, times, i, t, key)


def _post_trace_fixed(numbers, table, values, times, i, t, key):  # type: ignore[no-untyped-def]
    if times[i] < 0:
        return np.int64(0)
    if numbers.post.mode != STOCHASTIC:
        return table[t - times[i]]
    return _advanced(
        numbers.keep_post, numbers.leak_bits_post, numbers.post, values, times, i, t, key
    )


@njit
def _advanced(keep, bits, to, values, times, i, t, key):  # type: ignore[no-untyped-def]
    """Catches up on the steps since the trace was last looked at, each with a draw of its own."""
    x = values[i]
    for step in range(times[i] + 1, t + 1):
        x = fitted(shifted(x * keep, bits, to.mode, draw(key, step * values.shape[0] + i)), to)
    values[i] = x
    times[i] = t
    return x


def one_pre(numbers):  # type: ignore[no-untyped-def]
    """The trace of an input at its spike."""


def one_post(numbers):  # type: ignore[no-untyped-def]
    """The trace of a neuron at its spike."""


def _one_float(numbers):  # type: ignore[no-untyped-def]
    return np.float32(1)


def _one_pre_fixed(numbers):  # type: ignore[no-untyped-def]
    return numbers.one_pre


def _one_post_fixed(numbers):  # type: ignore[no-untyped-def]
    return numbers.one_post


def reset(numbers):  # type: ignore[no-untyped-def]
    """The potential after a spike."""


def _reset_either(numbers):  # type: ignore[no-untyped-def]
    return numbers.reset


by_type(charge, _charge_float, _charge_fixed)
by_type(threshold, _threshold_float, _threshold_fixed)
by_type(reaches, _reaches_float, _reaches_fixed)
by_type(inhibited, _inhibited_float, _inhibited_fixed)
by_type(raised, _raised_float, _raised_fixed)
by_type(decayed, _decayed_float, _decayed_fixed)
by_type(pre_trace, _trace_float, _pre_trace_fixed)
by_type(post_trace, _trace_float, _post_trace_fixed)
by_type(one_pre, _one_float, _one_pre_fixed)
by_type(one_post, _one_float, _one_post_fixed)
by_type(reset, _reset_either, _reset_either)
