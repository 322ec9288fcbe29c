"""Traces in the kernel: looked up where they follow from the last spike, else stepped.

A trace that does not draw is known by the steps since its last spike: a table has it. One that is
rounded stochastically has to take each step. Those of inputs take them side by side, at the next
spike of a neuron, so that one instruction serves several.
"""

from __future__ import annotations

from numba import njit, types
from numba.extending import overload

from qspinn.fixed_point.compiled_bits import GOLDEN, U64
from qspinn.stdp.kernel_words import I32, add, draw, product, right, sub
from qspinn.steps.plasticity import depression
from qspinn.steps.targets.numba import PART
from qspinn.steps.traces import decaying
from qspinn.steps.words import STOCHASTIC


@njit(**PART)
def start_traces(pre, post, traced, places, values, draws, key, post_draws, post_key):  # type: ignore[no-untyped-def]
    """Before a presentation: traces of the inputs listed in ``traced``, and where all traces draw.

    Args:
        pre: Numbers of the traces of inputs.
        post: Of those of neurons.
        traced: int32 ``[A]``.
        places: int32 ``[I]``, filled: the place of an input in that list.
        values: ``[A]``, filled: the traces.
        draws: uint64 ``[A]``, filled: the draws of step 0.
        key: Of the draws.
        post_draws: uint64 ``[N]``, filled: the same of neurons.
        post_key: Of their draws.
    """
    if pre.to.mode == STOCHASTIC:
        for a in range(traced.shape[0]):
            places[traced[a]] = a
            values[a] = 0
            draws[a] = draw(key, traced[a])
    if post.to.mode == STOCHASTIC:
        for j in range(post_draws.shape[0]):
            post_draws[j] = draw(post_key, j)


@njit(error_model="numpy", inline="always")
def follow_traces(n, table, traced, times, places, values, draws, events, starts, since, t):  # type: ignore[no-untyped-def]
    """Brings ``values``, the traces in step ``since``, to step t.

    Args:
        n: Numbers of the traces of inputs.
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
    if n.to.mode != STOCHASTIC:
        for a in range(traced.shape[0]):
            last = times[traced[a]]
            values[a] = table[t - last] if last >= 0 else 0
        return
    for step in range(since + 1, t + 1):
        step_all(n, values, draws, step)
        for e in range(starts[step], starts[step + 1]):
            values[places[events[e]]] = n.one


def step_all(n, values, draws, t):  # type: ignore[no-untyped-def]
    """One step of traces ``[A]`` that are rounded stochastically, without spikes."""


def _step_all_defined(n, values, draws, t):  # type: ignore[no-untyped-def]
    turn = U64(t) * GOLDEN
    for a in range(values.shape[0]):
        values[a] = decaying(values[a], False, draws[a] + turn, n)  # spread(key, i, t)


def _step_all_narrow(n, values, draws, t):  # type: ignore[no-untyped-def]
    # Traces never grow, so what fitted its format at the spike does so ever after.
    bits = n.down
    turn, unused, leak = U64(t) * GOLDEN, U64(64 - bits), I32((1 << bits) - n.keep)
    for a in range(values.shape[0]):
        rounding = I32((draws[a] + turn) >> unused)
        lost = right(sub(rounding, product(values[a], leak)), I32(bits))
        values[a] = add(values[a], lost)


@overload(step_all, jit_options=PART)
def _choose_step(n, values, draws, t):  # type: ignore[no-untyped-def]
    return _step_all_narrow if values.dtype is types.int32 else _step_all_defined


@njit(error_model="numpy", inline="always")
def depressions(n, rates, table, spiked, times, values, draws, t, changes):  # type: ignore[no-untyped-def]
    """Changes that a spike of an input makes in step t to its weights to the neurons listed.

    Args:
        n: Numbers of the traces of neurons.
        rates: ``[N]``.
        table: Traces of neurons 0 to T steps after a spike, where they do not draw.
        spiked: int32 ``[K]``: neurons that have spiked.
        times: int32 ``[N]``: the step that ``values`` are of; that of the last spike where they
            are looked up.
        values: ``[N]``.
        draws: See `start_traces`.
        t: The step.
        changes: ``[K]``, filled.
    """
    is_drawn = n.to.mode == STOCHASTIC
    for q in range(spiked.shape[0]):
        j = spiked[q]
        if is_drawn:
            y = values[j]
            random = draws[j] + U64(times[j]) * GOLDEN
            for _ in range(times[j], t):
                random += GOLDEN  # spread(key, j, step)
                y = decaying(y, False, random, n)
            values[j] = y
            times[j] = t
        else:
            y = table[t - times[j]]
        changes[q] = depression(y, rates[j])
