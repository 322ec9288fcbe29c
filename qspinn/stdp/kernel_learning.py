"""What the kernel learns from spikes, and at the end of a group of presentations."""

from __future__ import annotations

from numba import njit

from qspinn.stdp.kernel_parts import (
    UNDERFLOWS,
    UPDATES,
    normalise,
    potentiate,
    settle,
    sum_up_post,
    sum_up_pre,
)
from qspinn.stdp.kernel_plasticity import lower
from qspinn.stdp.kernel_traces import depressions, follow_traces, start_traces
from qspinn.stdp.kernel_words import draw, threshold
from qspinn.stdp.numbers import THETA_DECAY, TRACE_POST, TRACE_PRE
from qspinn.steps.neurons import decayed


@njit(error_model="numpy")
def begin_learning(numbers, work, b):  # type: ignore[no-untyped-def]
    """Clears the traces of presentation b."""
    work.pre_times[b] = -1
    work.post_times[b] = -1
    work.followed[b] = -1
    start_traces(
        numbers.pre, numbers.post, work.active[b, : work.counts[0, b]], work.places[b],
        work.pre_values[b], work.pre_draws[b], work.keys[b, TRACE_PRE], work.post_draws[b],
        work.keys[b, TRACE_POST],
    )  # fmt: skip


@njit(error_model="numpy")
def learn_from_inputs(numbers, task, table, arriving, spiked, times, values, draws, falls, slots, sums, event_turns, key, t, weight, stats):  # type: ignore[no-untyped-def]  # noqa: E501  # fmt: skip
    """Lowers weights at the spikes of inputs in step t.

    Args:
        numbers: `Numbers`.
        task: What to do.
        table: Traces of neurons, 0 to T steps after a spike.
        arriving: int32: the inputs that spike.
        spiked: int32 ``[K]``: the neurons that have spiked.
        times: See `Work.post_times`; of one presentation, as all that follow.
        values: See `Work.post_values`.
        draws: See `Work.post_draws`.
        falls: ``[N]``, scratch memory.
        slots: See `Work`.
        sums: See `Work.changes`.
        event_turns: Scratch memory.
        key: Of the draws.
        t: The step.
        weight: ``[I, N]``, changed in place.
        stats: int64 ``[3]``, added to.
    """
    weighing = numbers.weight
    depressions(numbers.post, weighing.rate_pre, table, spiked, times, values, draws, t, falls)
    if task.deferred:
        sum_up_pre(spiked, falls, arriving, slots, sums)
    else:
        updates, same = lower(weighing, weight, arriving, spiked, falls, event_turns, key, t)
        stats[UPDATES] += updates
        stats[UNDERFLOWS] += same


@njit(error_model="numpy")
def learn_from_spikes(numbers, task, table, work, b, t, weight, turns, lasting_keys, stats):  # type: ignore[no-untyped-def]  # fmt: skip
    """Changes the weights to the neurons of presentation b that spike in step t.

    Args:
        numbers: `Numbers`.
        task: What to do.
        table: Traces of inputs, 0 to T steps after a spike.
        work: Scratch memory.
        b: The presentation.
        t: The step.
        weight: ``[I, N]``, changed in place.
        turns: int64 ``[N]``, likewise.
        lasting_keys: uint64 ``[2]``.
        stats: int64 ``[3]``, added to.
    """
    weighing, count = numbers.weight, work.counts[0, b]
    traced, values = work.active[b, :count], work.pre_values[b, :count]
    follow_traces(
        numbers.pre, table, traced, work.pre_times[b], work.places[b], values, work.pre_draws[b],
        work.events[b], work.starts[b], work.followed[b], t,
    )  # fmt: skip
    work.followed[b] = t
    for e in range(work.output_starts[b, t], work.output_starts[b, t + 1]):
        j = work.outputs[b, e]
        turns[j] += not task.deferred
        if not (task.deferred or task.joint):
            key = lasting_keys[0]
            potentiate(weighing, traced, values, j, key, turns[j], weight, work.column, stats)
            continue
        row = work.changes[work.slots[j] * task.deferred]
        sum_up_post(weighing, traced, values, j, row)
        if not task.deferred:
            key = lasting_keys[1]
            normalise(weighing, j, key, turns[j], weight, work.column, row, stats)


@njit(error_model="numpy")
def finish_group(numbers, task, work, weight, theta, turns, lasting_keys, stats):  # type: ignore[no-untyped-def]  # fmt: skip
    """What ends a group: deferred changes, normalisation, decay of theta.

    Args:
        numbers: `Numbers`.
        task: What to do.
        work: Scratch memory.
        weight: ``[I, N]``, changed in place.
        theta: ``[N]``, likewise.
        turns: int64 ``[N]``, likewise.
        lasting_keys: uint64 ``[2]``.
        stats: int64 ``[3]``, added to.
    """
    weighing, learners, column = numbers.weight, work.learners, work.column
    key = work.keys[0, THETA_DECAY]
    for q in range(learners[-1]):
        j = learners[q]
        row = work.changes[q * task.deferred]
        turns[j] += task.deferred
        if task.deferred and not task.joint:
            settle(weighing, j, lasting_keys[0], turns[j], weight, row, stats)
        if task.normalises and (task.deferred or not task.joint):
            normalise(weighing, j, lasting_keys[1], turns[j], weight, column, row, stats)
        work.slots[j] = -1
    learners[-1] = 0
    for j in range(theta.shape[0]):
        theta[j] = decayed(theta[j], draw(key, j), numbers.theta)
        work.total[j] = threshold(numbers.neuron, theta[j])
