"""The event-driven kernel: presentations of images, one after the other or side by side.

What costs is what happens: a row of weights is added per input spike, a column changes per neuron
spike, and only neurons that spiked are normalised. The order of all sums and changes is fixed
(step, presentation, input, neuron), so that a backend that keeps to it gives the same spikes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from numba import njit

from qspinn import steps
from qspinn.fixed_point import random_bits
from qspinn.stdp.kernel_charge import charge, for_charge
from qspinn.stdp.kernel_learning import (
    begin_learning,
    finish_group,
    learn_from_inputs,
    learn_from_spikes,
)
from qspinn.stdp.kernel_parts import (
    encode,
    fire,
    gather,
    note_spikes,
    raise_theta,
    set_inhibition,
    spike,
)
from qspinn.stdp.kernel_words import stream, threshold
from qspinn.stdp.numbers import INPUT, MEMBRANE, PRE, PURPOSES, THETA, WINNER

INPUT_SPIKES = 0


@njit(error_model="numpy")
def begin(numbers, task, probabilities, given_key, work, b, stats):  # type: ignore[no-untyped-def]
    """Draws the spikes of the inputs of presentation b, and puts its neurons to rest."""
    for purpose in range(PURPOSES):
        work.keys[b, purpose] = stream(given_key, purpose)
    count = encode(
        probabilities, work.keys[b, INPUT], task.steps, work.starts[b], work.events[b],
        work.cursor, work.words, work.active[b],
    )  # fmt: skip
    if task.any_change_at_rest:
        count = probabilities.shape[0]
        for i in range(count):
            work.active[b, i] = i
    work.counts[0, b] = count
    stats[INPUT_SPIKES] += work.starts[b, task.steps]
    work.v[b] = 0
    work.ready[b] = 0
    work.counts[1, b] = 0
    work.output_starts[b, 0] = 0
    if task.learning:
        begin_learning(numbers, work, b)


@njit(error_model="numpy")
def tell(outputs, output_starts, counts, raster, m):  # type: ignore[no-untyped-def]
    """Counts the spikes of presentation m, and records them where that is wanted."""
    for t in range(output_starts.shape[0] - 1):
        for e in range(output_starts[t], output_starts[t + 1]):
            counts[m, outputs[e]] += 1
            if raster.shape[0] > 0:
                raster[t, m, outputs[e]] = True


@njit(nogil=True, error_model="numpy")
def present(numbers, task, probabilities, given_keys, weight, theta, turns, lasting_keys, tables, work, counts, raster, stats):  # type: ignore[no-untyped-def]  # noqa: E501  # fmt: skip
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
    # Unpacked once: handing the tuple on in each step would count references to its arrays.
    keys, starts, events, current = work.keys, work.starts, work.events, work.current
    v, ready, lowered, total = work.v, work.ready, work.lowered, work.total
    outputs, output_starts, crossed = work.outputs, work.output_starts, work.crossed
    spiked, knowns, crossings = work.spiked, work.counts[1], work.counts[2]
    post_values, post_draws, post_times = work.post_values, work.post_draws, work.post_times
    pre_times, slots, learners, sums = work.pre_times, work.slots, work.learners, work.changes
    falls, event_turns, delay, rest = work.falls, work.event_turns, task.delay, task.refractory
    neuron, charging = numbers.neuron, for_charge(numbers.neuron, v)
    for j in range(theta.shape[0]):
        total[j] = threshold(neuron, theta[j])
    for first in range(0, probabilities.shape[0], v.shape[0]):
        size = min(v.shape[0], probabilities.shape[0] - first)
        for b in range(size):
            begin(numbers, task, probabilities[first + b], given_keys[first + b], work, b, stats)
        for t in range(task.steps):
            for b in range(size):
                gather(weight, events[b, starts[b, t] : starts[b, t + 1]], current)
                sent = output_starts[b, max(t - delay, 0)]
                sent_end = output_starts[b, max(t - delay, 0) + 1]
                inhibits = t >= delay and sent < sent_end
                if inhibits:
                    set_inhibition(charging, lowered, outputs[b], sent, sent_end)
                count = charge(
                    charging, v[b], current, lowered, inhibits, total, ready[b],
                    keys[b, MEMBRANE], t,
                )  # fmt: skip
                if count > 0:
                    count = fire(neuron.reset, v[b], total, ready[b], t + 1 + rest, crossed[b])
                crossings[b] = count
                output_starts[b, t + 1] = spike(
                    crossed[b], count, task.one_winner, keys[b, WINNER], t, outputs[b],
                    output_starts[b, t],
                )  # fmt: skip
            if not task.learning:
                continue
            for b in range(size):
                for e in range(starts[b, t], starts[b, t + 1]):
                    pre_times[b, events[b, e]] = t
                if crossings[b] > 0:
                    raise_theta(numbers, crossed[b], crossings[b], theta, total, keys[b, THETA], t)
                    knowns[b] = note_spikes(
                        numbers.post.one, outputs[b], output_starts[b, t],
                        output_starts[b, t + 1], t, post_times[b], post_values[b], spiked[b],
                        knowns[b], slots, learners,
                    )  # fmt: skip
            for b in range(size):
                if task.pre_changes and knowns[b] > 0:
                    learn_from_inputs(
                        numbers, task, tables[1], events[b, starts[b, t] : starts[b, t + 1]],
                        spiked[b, : knowns[b]], post_times[b], post_values[b], post_draws[b],
                        falls, slots, sums, event_turns, keys[b, PRE], t, weight, stats,
                    )  # fmt: skip
                if output_starts[b, t] < output_starts[b, t + 1]:
                    learn_from_spikes(
                        numbers, task, tables[0], work, b, t, weight, turns, lasting_keys, stats
                    )
        for b in range(size):
            tell(outputs[b], output_starts[b], counts, raster, first + b)
        if task.learning:
            finish_group(numbers, task, work, weight, theta, turns, lasting_keys, stats)


def _digest() -> str:
    """Of all files that the kernel is compiled from: numba itself looks only at this one."""
    folders = (Path(__file__).parent, Path(str(steps.__file__)).parent)
    files = [Path(str(random_bits.__file__))]
    files += [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _cached(sources: str) -> Any:
    """The kernel; the digest of its sources, as a variable of its closure, is in its cache key."""

    @njit(cache=True, nogil=True, error_model="numpy")
    def run(numbers, task, probabilities, given_keys, weight, theta, turns, lasting_keys, tables, work, counts, raster, stats):  # type: ignore[no-untyped-def]  # noqa: E501  # fmt: skip
        """See `present`."""
        assert len(sources) > 0
        present(
            numbers, task, probabilities, given_keys, weight, theta, turns, lasting_keys, tables,
            work, counts, raster, stats,
        )  # fmt: skip

    return run


run = _cached(_digest())
