"""The event-driven kernel: presentations of images, one after the other or side by side.

What costs is what happens: a row of weights is added per input spike, a column changes per neuron
spike, and only neurons that spiked are normalised. The order of all sums and changes is fixed
(step, presentation, input, neuron), so that a backend that keeps to it gives the same spikes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numba import njit

from qspinn import fixed_point, steps
from qspinn.fixed_point.rebound import digest_of
from qspinn.stdp.kernel_charge import charge, for_charge
from qspinn.stdp.kernel_parts import (
    UNDERFLOWS,
    UPDATES,
    encode,
    fire,
    gather,
    normalise,
    note_spikes,
    potentiate,
    raise_theta,
    set_inhibition,
    settle,
    spike,
    sum_up_post,
    sum_up_pre,
)
from qspinn.stdp.kernel_plasticity import lower
from qspinn.stdp.kernel_traces import depressions, follow_traces, start_traces
from qspinn.stdp.kernel_words import draw, stream, threshold
from qspinn.stdp.numbers import (
    INPUT,
    MEMBRANE,
    PRE,
    PURPOSES,
    THETA,
    THETA_DECAY,
    TRACE_POST,
    TRACE_PRE,
    WINNER,
)
from qspinn.steps.neurons import decayed

INPUT_SPIKES = 0


def _compiled(sources: str) -> Any:
    """The kernel; the digest of its sources, as a variable of its closure, is in its cache key."""

    @njit(cache=True, nogil=True, error_model="numpy")
    def run(numbers, task, probabilities, given_keys, weight, theta, turns, lasting_keys, tables, work, counts, raster, stats):  # type: ignore[no-untyped-def]  # noqa: E501  # fmt: skip
        """Presents images, and learns from them where the task says so.

        Args:
            numbers: `Numbers`.
            task: What to do.
            probabilities: uint16 ``[M, I]``.
            given_keys: uint64 ``[M]``.
            weight: ``[I, N]``, changed in place: float32, or codes.
            theta: ``[N]``, changed in place.
            turns: int64 ``[N]``, how often weights to each neuron were updated; changed in place.
            lasting_keys: uint64 ``[2]``: of the draws for updates, and for normalisation.
            tables: Traces of inputs and of neurons, 0 to T steps after a spike.
            work: For as many presentations as run side by side.
            counts: int32 ``[M, N]``, filled.
            raster: bool ``[T, M, N]``, filled; or ``[0, 0, 0]``.
            stats: int64 ``[3]``, added to.
        """
        assert len(sources) > 0  # makes it a part of the cache's key
        steps, delay, learning, deferred = task.steps, task.delay, task.learning, task.deferred
        inputs, neurons = weight.shape
        parallel = work.v.shape[0]
        # Unpacked once: handing the tuple on would count references to each of its arrays.
        keys, starts, events, active = work.keys, work.starts, work.events, work.active
        current, v, ready, lowered, total = (
            work.current, work.v, work.ready, work.lowered, work.total
        )  # fmt: skip
        places, pre_values, pre_draws = work.places, work.pre_values, work.pre_draws
        pre_times, followed = work.pre_times, work.followed
        post_values, post_draws, post_times = work.post_values, work.post_draws, work.post_times
        spiked, crossed, outputs, output_starts = (
            work.spiked, work.crossed, work.outputs, work.output_starts
        )  # fmt: skip
        neuron, weighing = numbers.neuron, numbers.weight
        charging = for_charge(neuron, v)
        actives, knowns, crossings = work.counts[0], work.counts[1], work.counts[2]
        slots, learners, sums = work.slots, work.learners, work.changes
        column, falls, event_turns = work.column, work.falls, work.event_turns
        for j in range(neurons):
            total[j] = threshold(neuron, theta[j])
        for first in range(0, probabilities.shape[0], parallel):
            size = min(parallel, probabilities.shape[0] - first)
            for b in range(size):
                for purpose in range(PURPOSES):
                    keys[b, purpose] = stream(given_keys[first + b], purpose)
                actives[b] = encode(
                    probabilities[first + b], keys[b, INPUT], steps, starts[b], events[b],
                    work.cursor, work.words, active[b],
                )  # fmt: skip
                if task.any_change_at_rest:
                    actives[b] = inputs
                    for i in range(inputs):
                        active[b, i] = i
                stats[INPUT_SPIKES] += starts[b, steps]
                v[b] = 0
                ready[b] = 0
                pre_times[b] = -1
                followed[b] = -1
                if learning:
                    start_traces(
                        numbers.pre, numbers.post, active[b, : actives[b]], places[b],
                        pre_values[b], pre_draws[b], keys[b, TRACE_PRE], post_draws[b],
                        keys[b, TRACE_POST],
                    )  # fmt: skip
                post_times[b] = -1
                knowns[b] = 0
                output_starts[b, 0] = 0
            for t in range(steps):
                for b in range(size):
                    gather(weight, events[b, starts[b, t] : starts[b, t + 1]], current)
                    inhibits = (
                        t >= delay and output_starts[b, t - delay] < output_starts[b, t - delay + 1]
                    )
                    if inhibits:
                        set_inhibition(
                            charging, lowered, outputs[b], output_starts[b, t - delay],
                            output_starts[b, t - delay + 1],
                        )  # fmt: skip
                    count = charge(
                        charging, v[b], current, lowered, inhibits, total, ready[b],
                        keys[b, MEMBRANE], t,
                    )  # fmt: skip
                    if count > 0:
                        count = fire(
                            neuron.reset, v[b], total, ready[b], t + 1 + task.refractory, crossed[b]
                        )
                    crossings[b] = count
                    output_starts[b, t + 1] = spike(
                        crossed[b], count, task.one_winner, keys[b, WINNER], t, outputs[b],
                        output_starts[b, t],
                    )  # fmt: skip
                if not learning:
                    continue
                for b in range(size):
                    for e in range(starts[b, t], starts[b, t + 1]):
                        pre_times[b, events[b, e]] = t
                    if crossings[b] > 0:
                        raise_theta(
                            numbers, crossed[b], crossings[b], theta, total, keys[b, THETA], t
                        )
                        knowns[b] = note_spikes(
                            numbers.post.one, outputs[b], output_starts[b, t],
                            output_starts[b, t + 1], t, post_times[b], post_values[b],
                            spiked[b], knowns[b], slots, learners,
                        )  # fmt: skip
                for b in range(size):
                    if task.pre_changes and knowns[b] > 0:
                        arriving, known = events[b, starts[b, t] : starts[b, t + 1]], knowns[b]
                        depressions(
                            numbers.post, weighing.rate_pre, tables[1], spiked[b, :known],
                            post_times[b], post_values[b], post_draws[b], t, falls,
                        )  # fmt: skip
                        if deferred:
                            sum_up_pre(spiked[b, :known], falls, arriving, slots, sums)
                        else:
                            updates, unchanged = lower(
                                weighing, weight, arriving, spiked[b, :known], falls, event_turns,
                                keys[b, PRE], t,
                            )  # fmt: skip
                            stats[UPDATES] += updates
                            stats[UNDERFLOWS] += unchanged
                    traced = active[b, : actives[b]]
                    if output_starts[b, t] < output_starts[b, t + 1]:
                        follow_traces(
                            numbers.pre, tables[0], traced, pre_times[b], places[b],
                            pre_values[b, : actives[b]], pre_draws[b], events[b], starts[b],
                            followed[b], t,
                        )  # fmt: skip
                        followed[b] = t
                    for e in range(output_starts[b, t], output_starts[b, t + 1]):
                        j = outputs[b, e]
                        turns[j] += not deferred
                        if not (deferred or task.joint):
                            potentiate(
                                weighing, traced, pre_values[b], j, lasting_keys[0], turns[j],
                                weight, column, stats,
                            )  # fmt: skip
                            continue
                        row = sums[slots[j] * deferred]
                        sum_up_post(weighing, traced, pre_values[b], j, row)
                        if not deferred:
                            normalise(
                                weighing, j, lasting_keys[1], turns[j], weight, column, row, stats
                            )
            for b in range(size):
                for t in range(steps):
                    for e in range(output_starts[b, t], output_starts[b, t + 1]):
                        counts[first + b, outputs[b, e]] += 1
                        if raster.shape[0] > 0:
                            raster[t, first + b, outputs[b, e]] = True
            if not learning:
                continue
            for q in range(learners[-1]):
                j = learners[q]
                row = sums[q * deferred]
                turns[j] += deferred
                if deferred and not task.joint:
                    settle(weighing, j, lasting_keys[0], turns[j], weight, row, stats)
                if task.normalises and (deferred or not task.joint):
                    normalise(weighing, j, lasting_keys[1], turns[j], weight, column, row, stats)
                slots[j] = -1
            learners[-1] = 0
            for j in range(neurons):
                theta[j] = decayed(theta[j], draw(keys[0, THETA_DECAY], j), numbers.theta)
                total[j] = threshold(neuron, theta[j])

    return run


_SOURCES = (Path(__file__), Path(str(steps.__file__)), Path(str(fixed_point.__file__)))
run = _compiled(digest_of(*(file.parent for file in _SOURCES)))
