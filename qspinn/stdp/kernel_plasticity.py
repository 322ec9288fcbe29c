"""How weights change in the kernel."""

from __future__ import annotations

import numpy as np
from numba import njit

from qspinn.fixed_point.compiled_bits import GOLDEN, U64
from qspinn.stdp.kernel_words import by_type, draw, spread
from qspinn.steps.plasticity import bounded, changed, fine, potentiation, scaled
from qspinn.steps.roundings import shifted
from qspinn.steps.targets.numba import PART
from qspinn.steps.words import NEAREST, STOCHASTIC, TRUNCATE, quotient


def drawn(n, key, counter, turn):  # type: ignore[no-untyped-def]
    """The draw of a weight, where its rounding takes one; n: of weights."""


def _drawn_fixed(n, key, counter, turn):  # type: ignore[no-untyped-def]
    random = U64(0)
    if n.to.mode == STOCHASTIC:
        random = spread(key, counter, turn)
    return random


by_type(drawn, lambda n, key, counter, turn: U64(0), _drawn_fixed, inline="always")


def lower(n, weight, events, spiked, changes, turns, key, t):  # type: ignore[no-untyped-def]
    """Changes weights at the spikes of inputs in step t; how many, and how many stayed the same.

    Args:
        n: Numbers of weights.
        weight: ``[I, N]``, changed in place.
        events: int32: inputs that spike.
        spiked: int32 ``[K]``: the neurons whose weights change.
        changes: ``[K]``.
        turns: uint64 ``[I]``, scratch memory.
        key: Of the draws.
        t: The step.
    """


def _lower_float(n, weight, events, spiked, changes, turns, key, t):  # type: ignore[no-untyped-def]
    updates = unchanged = 0
    for q in range(spiked.shape[0]):
        j, change = spiked[q], changes[q]
        if change == 0:
            continue
        updates += events.shape[0]
        highest = n.maximum[j]
        for e in range(events.shape[0]):
            w = weight[events[e], j]
            after = changed(w, change, U64(0), n)
            unchanged += after == w
            weight[events[e], j] = bounded(after, highest, n)
    return updates, unchanged


def _lower_fixed(n, weight, events, spiked, changes, turns, key, t):  # type: ignore[no-untyped-def]
    to, spare = n.to, n.spare
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
            turns[e] = U64(events[e]) * GOLDEN
    below_a_step = spare > 0 and -smallest < np.int64(1) << spare
    for q in range(spiked.shape[0]):
        j, change = spiked[q], changes[q]
        if change == 0:
            continue
        random, highest = U64(0), n.maximum[j]
        if to.mode == STOCHASTIC:
            random = draw(key, t * weight.shape[1] + j)
            if below_a_step:
                limit = U64(-change) << U64(64 - spare)
                moved += _step_down(n, weight, events, turns, j, random, limit)
                continue
        for e in range(events.shape[0]):
            w = np.int64(weight[events[e], j])
            after = changed(w, change, random + turns[e], n)  # spread(key, t * neurons + j, i)
            moved += after != w
            weight[events[e], j] = bounded(after, highest, n)
    return updates, updates - moved


@njit(error_model="numpy", inline="always")
def _step_down(n, weight, events, turns, j, random, limit):  # type: ignore[no-untyped-def]
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
                weight[events[e], j] = bounded(after, n.maximum[j], n)
    return moved


by_type(lower, _lower_float, _lower_fixed, inline="always")


@njit(error_model="numpy", inline="always")
def change_column(n, j, key, turn, neurons, traced, values, column):  # type: ignore[no-untyped-def]
    """Changes weights to neuron j at its spike; how many, and how many stayed the same.

    Args:
        n: Numbers of weights.
        j: The neuron.
        key: Of the draws.
        turn: How often its weights were updated.
        neurons: How many there are.
        traced: int32 ``[A]``: inputs.
        values: ``[A]``: their traces.
        column: ``[A]``: their weights, changed in place.
    """
    updates = unchanged = 0
    rate, highest = n.rate_post[j], n.maximum[j]  # in a loop, they might be what it changes
    for a in range(traced.shape[0]):
        w, change = column[a], potentiation(values[a], rate, n)
        after = changed(w, change, drawn(n, key, traced[a] * neurons + j, turn), n)
        updates += change != 0
        unchanged += (change != 0) & (after == w)
        column[a] = bounded(after, highest, n)
    return updates, unchanged


@njit(**PART)
def scale_column(n, j, key, turn, neurons, column, changes):  # type: ignore[no-untyped-def]
    """Scales weights to their sum, with their changes, and bounds them.

    Args:
        n: Numbers of weights.
        j: The neuron.
        key: Of the draws.
        turn: How often these weights were updated.
        neurons: How many there are.
        column: ``[I]``: the weights, changed in place.
        changes: ``[I]``.
    """
    nothing, highest = column.dtype.type(0), n.maximum[j]
    total = nothing
    for i in range(column.shape[0]):
        column[i] = fine(column[i], changes[i], n)
        total += column[i]
    gain = quotient(n.sum[j], total) if total > 0 else nothing
    for i in range(column.shape[0]):
        after = scaled(column[i], gain, drawn(n, key, i * neurons + j, turn), n)
        column[i] = bounded(after, highest, n)
