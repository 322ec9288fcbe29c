"""Traces in the kernel: looked up where they follow from the last spike, else stepped.

A trace that does not draw is known by the steps since its last spike: a table has it. One that is
rounded stochastically has to take each step. Those of inputs take them side by side, at the next
spike of a neuron, so that one instruction serves several.
"""

from __future__ import annotations

import numpy as np
from numba import njit, types
from numba.extending import overload

from qspinn.networks.diehl_cook.kernel_arithmetic import GOLDEN_64, U64, by_type, draw, shifted
from qspinn.networks.diehl_cook.kernel_int32 import I32, add, product, right, sub
from qspinn.networks.diehl_cook.number_types import STOCHASTIC


def start_traces(numbers, traced, places, values, draws, key, post_draws, post_key):  # type: ignore[no-untyped-def]
    """Before a presentation: traces of the inputs listed in ``traced``, and where all traces draw.

    Args:
        numbers: What is computed with.
        traced: int32 ``[A]``.
        places: int32 ``[I]``, filled: the place of an input in that list.
        values: ``[A]``, filled: the traces.
        draws: uint64 ``[A]``, filled: the draws of step 0.
        key: Of the draws.
        post_draws: uint64 ``[N]``, filled: the same of neurons.
        post_key: Of their draws.
    """


def _start_traces_float(numbers, traced, places, values, draws, key, post_draws, post_key):  # type: ignore[no-untyped-def]
    pass


def _start_traces_fixed(numbers, traced, places, values, draws, key, post_draws, post_key):  # type: ignore[no-untyped-def]
    if numbers.pre.mode == STOCHASTIC:
        for a in range(traced.shape[0]):
            places[traced[a]] = a
            values[a] = 0
            draws[a] = draw(key, traced[a])
    if numbers.post.mode == STOCHASTIC:
        for j in range(post_draws.shape[0]):
            post_draws[j] = draw(post_key, j)


def follow_traces(numbers, table, traced, times, places, values, draws, events, starts, since, t):  # type: ignore[no-untyped-def]
    """Brings ``values``, the traces in step ``since``, to step t.

    Args:
        numbers: What is computed with.
        table: Traces 0 to T steps after a spike, where they do not draw.
        traced: int32 ``[A]``: inputs.
        times: int32 ``[I]``: their last spikes; -1: none.
        places: See `start_traces`.
        values: ``[A]``.
        draws: See `start_traces`.
        events: int32: inputs that spike, step by step.
        starts: int32 ``[T + 1]``: where a step begins in ``events``.
        since: -1 before the first step.
        t: A later step.
    """


def _followed_float(numbers, table, traced, times, places, values, draws, events, starts, since, t):  # type: ignore[no-untyped-def]
    _look_up(table, traced, times, values, t)


def _followed_fixed(numbers, table, traced, times, places, values, draws, events, starts, since, t):  # type: ignore[no-untyped-def]
    if numbers.pre.mode != STOCHASTIC:
        _look_up(table, traced, times, values, t)
        return
    for step in range(since + 1, t + 1):
        _step_all(numbers.keep_pre, numbers.leak_bits_pre, values, draws, step)
        for e in range(starts[step], starts[step + 1]):
            values[places[events[e]]] = numbers.one_pre


@njit(error_model="numpy")
def _look_up(table, traced, times, values, t):  # type: ignore[no-untyped-def]
    for a in range(traced.shape[0]):
        last = times[traced[a]]
        values[a] = table[t - last] if last >= 0 else 0


def _step_all(keep, bits, values, draws, t):  # type: ignore[no-untyped-def]
    """One step of stochastically rounded traces.

    They never grow, so what fitted its format at the spike does so ever after.
    """


def _step_all_wide(keep, bits, values, draws, t):  # type: ignore[no-untyped-def]
    turn = U64(t) * GOLDEN_64
    for a in range(values.shape[0]):
        random = draws[a] + turn  # spread(key, i, t)
        values[a] = shifted(values[a] * keep, bits, STOCHASTIC, random)


def _step_all_narrow(keep, bits, values, draws, t):  # type: ignore[no-untyped-def]
    turn, unused, leak = U64(t) * GOLDEN_64, U64(64 - bits), I32((1 << bits) - keep)
    for a in range(values.shape[0]):
        rounding = I32((draws[a] + turn) >> unused)
        lost = right(sub(rounding, product(values[a], leak)), I32(bits))
        values[a] = add(values[a], lost)


@overload(_step_all, jit_options={"error_model": "numpy"})
def _choose_step(keep, bits, values, draws, t):  # type: ignore[no-untyped-def]
    return _step_all_narrow if values.dtype is types.int32 else _step_all_wide


def depressions(numbers, table, spiked, times, values, draws, t, changes):  # type: ignore[no-untyped-def]
    """Changes that a spike of an input makes in step t to its weights to the neurons listed.

    Args:
        numbers: What is computed with.
        table: Traces of neurons 0 to T steps after a spike, where they do not draw.
        spiked: int32 ``[K]``: neurons that have spiked.
        times: int32 ``[N]``: the step that ``values`` are of; that of the last spike where they
            are looked up.
        values: ``[N]``.
        draws: See `start_traces`.
        t: The step.
        changes: ``[K]``, filled.
    """


def _depressions_float(numbers, table, spiked, times, values, draws, t, changes):  # type: ignore[no-untyped-def]
    for q in range(spiked.shape[0]):
        changes[q] = -(numbers.rate_pre * table[t - times[spiked[q]]])


def _depressions_fixed(numbers, table, spiked, times, values, draws, t, changes):  # type: ignore[no-untyped-def]
    rates, is_drawn = numbers.rate_pre, numbers.post.mode == STOCHASTIC
    for q in range(spiked.shape[0]):
        j = spiked[q]
        if is_drawn:
            y = values[j]
            random = draws[j] + U64(times[j]) * GOLDEN_64
            for _ in range(times[j], t):
                random += GOLDEN_64  # spread(key, j, step)
                y = shifted(y * numbers.keep_post, numbers.leak_bits_post, STOCHASTIC, random)
            values[j] = y
            times[j] = t
        else:
            y = table[t - times[j]]
        changes[q] = -(rates[j] * y)


def one_post(numbers):  # type: ignore[no-untyped-def]
    """The trace of a neuron at its spike."""


def _one_float(numbers):  # type: ignore[no-untyped-def]
    return np.float32(1)


def _one_post_fixed(numbers):  # type: ignore[no-untyped-def]
    return numbers.one_post


by_type(start_traces, _start_traces_float, _start_traces_fixed)
by_type(follow_traces, _followed_float, _followed_fixed, inline="always")
by_type(depressions, _depressions_float, _depressions_fixed, inline="always")
by_type(one_post, _one_float, _one_post_fixed)
