"""The arithmetic of plasticity in the kernel, in float32 and in integers."""

from __future__ import annotations

import numpy as np
from numba import njit

from qspinn.networks.diehl_cook.kernel_arithmetic import (
    GOLDEN_64,
    U64,
    by_type,
    draw,
    fitted,
    shifted,
    spread,
)
from qspinn.networks.diehl_cook.number_types import (
    GAIN_BITS,
    NEAREST,
    STOCHASTIC,
    TRUNCATE,
)


def change_post(numbers, x, j):  # type: ignore[no-untyped-def]
    """Change of a weight to neuron j at its spike; x is the trace of the weight's input."""


def _change_post_float(numbers, x, j):  # type: ignore[no-untyped-def]
    return numbers.rate_post * (x - numbers.trace_target)


def _change_post_fixed(numbers, x, j):  # type: ignore[no-untyped-def]
    return numbers.rate_post[j] * (x - numbers.trace_target)


def changed(numbers, w, change, key, counter, turn):  # type: ignore[no-untyped-def]
    """A weight after a change, rounded, not yet bounded."""


def _changed_float(numbers, w, change, key, counter, turn):  # type: ignore[no-untyped-def]
    return w + change


def _changed_fixed(numbers, w, change, key, counter, turn):  # type: ignore[no-untyped-def]
    exact = (np.int64(w) << numbers.spare) + change
    return _rounded(exact, numbers.spare, numbers.weight.mode, key, counter, turn)


def lower(numbers, weight, events, spiked, changes, turns, key, t):  # type: ignore[no-untyped-def]
    """Changes weights at the spikes of inputs in step t; how many, and how many stayed the same.

    Args:
        numbers: What is computed with.
        weight: ``[I, N]``, changed in place.
        events: int32: inputs that spike.
        spiked: int32 ``[K]``: the neurons whose weights change.
        changes: ``[K]``.
        turns: uint64 ``[I]``, scratch memory.
        key: Of the draws.
        t: The step.
    """


def _lower_float(numbers, weight, events, spiked, changes, turns, key, t):  # type: ignore[no-untyped-def]
    updates = unchanged = 0
    for q in range(spiked.shape[0]):
        j, change = spiked[q], changes[q]
        if change == 0:
            continue
        updates += events.shape[0]
        for e in range(events.shape[0]):
            w = weight[events[e], j]
            unchanged += w + change == w
            weight[events[e], j] = bounded(numbers, w + change, j)
    return updates, unchanged


def _lower_fixed(numbers, weight, events, spiked, changes, turns, key, t):  # type: ignore[no-untyped-def]
    to, spare = numbers.weight, numbers.spare
    updates = moved = 0
    smallest = np.int64(0)
    for q in range(spiked.shape[0]):
        updates += changes[q] != 0
        smallest = min(smallest, changes[q])
    updates *= events.shape[0]
    # By how much these round does not depend on what is changed: most stay, and are not looked at.
    if to.mode in (TRUNCATE, NEAREST) and shifted(smallest, spare, to.mode, U64(0)) == 0:
        return updates, updates
    if to.mode == STOCHASTIC:
        for e in range(events.shape[0]):
            turns[e] = U64(events[e]) * GOLDEN_64
    below_a_step = spare > 0 and -smallest < np.int64(1) << spare
    for q in range(spiked.shape[0]):
        j, change = spiked[q], changes[q]
        if change == 0:
            continue
        random = U64(0)
        if to.mode == STOCHASTIC:
            random = draw(key, t * weight.shape[1] + j)
            if below_a_step:
                limit = U64(-change) << U64(64 - spare)
                highest = numbers.weight_max[j]
                moved += _step_down(to, highest, weight, events, turns, j, random, limit)
                continue
        for e in range(events.shape[0]):
            w = np.int64(weight[events[e], j])
            u = random + turns[e]  # spread(key, t * neurons + j, i)
            after = shifted((w << spare) + change, spare, to.mode, u)
            moved += after != w
            weight[events[e], j] = bounded(numbers, after, j)
    return updates, updates - moved


@njit(error_model="numpy", inline="always")
def _step_down(to, highest, weight, events, turns, j, random, limit):  # type: ignore[no-untyped-def]
    """Lowers weights to neuron j by a step where their draw is below a limit; how many.

    That is what stochastic rounding does with a change of less than a step. Mostly all stay, and
    are not looked at.
    """
    moved = 0
    for e in range(events.shape[0]):
        moved += random + turns[e] < limit  # spread(key, t * neurons + j, i)
    if moved > 0:
        for e in range(events.shape[0]):
            if random + turns[e] < limit:
                after = np.int64(weight[events[e], j]) - 1
                weight[events[e], j] = fitted(min(max(after, np.int64(0)), highest), to)
    return moved


def change_column(numbers, j, key, turn, neurons, traced, values, column):  # type: ignore[no-untyped-def]
    """Changes weights to neuron j at its spike; how many, and how many stayed the same.

    Args:
        numbers: What is computed with.
        j: The neuron.
        key: Of the draws.
        turn: How often its weights were updated.
        neurons: How many there are.
        traced: int32 ``[A]``: inputs.
        values: ``[A]``: their traces.
        column: ``[A]``: their weights, changed in place.
    """


def _change_column_float(numbers, j, key, turn, neurons, traced, values, column):  # type: ignore[no-untyped-def]
    updates = unchanged = 0
    for a in range(traced.shape[0]):
        w = column[a]
        change = numbers.rate_post * (values[a] - numbers.trace_target)
        updates += change != 0
        unchanged += (change != 0) & (w + change == w)
        column[a] = bounded(numbers, w + change, j)
    return updates, unchanged


def _change_column_fixed(numbers, j, key, turn, neurons, traced, values, column):  # type: ignore[no-untyped-def]
    to, spare, target = numbers.weight, numbers.spare, numbers.trace_target
    rate, highest = numbers.rate_post[j], numbers.weight_max[j]
    updates = unchanged = 0
    for a in range(traced.shape[0]):
        w, change = column[a], rate * (values[a] - target)
        place = traced[a] * neurons + j
        after = _rounded((w << spare) + change, spare, to.mode, key, place, turn)
        updates += change != 0
        unchanged += (change != 0) & (after == w)
        column[a] = fitted(min(max(after, np.int64(0)), highest), to)
    return updates, unchanged


def scale_column(numbers, j, key, turn, neurons, column, changes):  # type: ignore[no-untyped-def]
    """Scales weights to their sum, with their changes, and bounds them.

    Args:
        numbers: What is computed with.
        j: The neuron.
        key: Of the draws.
        turn: How often these weights were updated.
        neurons: How many there are.
        column: ``[I]``: the weights, changed in place.
        changes: ``[I]``.
    """


def _scale_column_float(numbers, j, key, turn, neurons, column, changes):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for i in range(column.shape[0]):
        column[i] = max(column[i] + changes[i], np.float32(0))
        total += column[i]
    gain = numbers.weight_sum / total if total > 0 else np.float32(0)
    for i in range(column.shape[0]):
        column[i] = bounded(numbers, column[i] * gain, j)


def _scale_column_fixed(numbers, j, key, turn, neurons, column, changes):  # type: ignore[no-untyped-def]
    coarse = numbers.spare - numbers.fine
    total = np.int64(0)
    for i in range(column.shape[0]):
        column[i] = max((column[i] << numbers.fine) + (changes[i] >> coarse), np.int64(0))
        total += column[i]
    gain = numbers.weight_sum[j] // total if total > 0 else np.int64(0)
    bits, to, highest = GAIN_BITS + numbers.fine, numbers.weight, numbers.weight_max[j]
    for i in range(column.shape[0]):
        after = _rounded(column[i] * gain, bits, to.mode, key, i * neurons + j, turn)
        column[i] = fitted(min(max(after, np.int64(0)), highest), to)


@njit(inline="always")
def _rounded(exact, bits, mode, key, counter, turn):  # type: ignore[no-untyped-def]
    random = U64(0)
    if mode == STOCHASTIC:
        random = spread(key, counter, turn)
    return shifted(exact, bits, mode, random)


def bounded(numbers, w, j):  # type: ignore[no-untyped-def]
    """A weight to neuron j within its bounds."""


def _bounded_float(numbers, w, j):  # type: ignore[no-untyped-def]
    return min(max(w, np.float32(0)), numbers.weight_max)


def _bounded_fixed(numbers, w, j):  # type: ignore[no-untyped-def]
    return fitted(min(max(w, np.int64(0)), numbers.weight_max[j]), numbers.weight)


by_type(change_post, _change_post_float, _change_post_fixed)
by_type(changed, _changed_float, _changed_fixed)
by_type(lower, _lower_float, _lower_fixed, inline="always")
by_type(change_column, _change_column_float, _change_column_fixed, inline="always")
by_type(scale_column, _scale_column_float, _scale_column_fixed)
by_type(bounded, _bounded_float, _bounded_fixed)
