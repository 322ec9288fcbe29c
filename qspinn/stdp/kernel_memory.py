"""What the kernel works with: scratch memory, and its task as numbers."""

from __future__ import annotations

import functools
from collections import namedtuple
from typing import Any, NamedTuple

import numpy as np

from qspinn.stdp.job import Job
from qspinn.stdp.numbers import PURPOSES, NeuronNumbers, Numbers, TraceNumbers
from qspinn.steps.words import NEAREST, STOCHASTIC, TRUNCATE

MOST = 2**31  # what a sum in 32 bits must stay below


_MEMORY: dict[str, tuple[str, str]] = {
    "keys": ("B PURPOSES", "u8"),
    "starts": ("B T+1", "i4"),  # where the input spikes of a step begin in `events`
    "events": ("B T*I", "i4"),  # inputs that spike, step by step, ascending
    "cursor": ("T", "i4"),
    "words": ("T/64 I", "u8"),  # spikes of the active inputs
    "active": ("B I", "i4"),  # inputs that may spike; counts[0, b] of them
    "current": ("N", "current"),  # sum of the weights of the inputs that spike
    "v": ("B N", "potential"),
    "ready": ("B N", "i4"),  # the first step after refractoriness
    "lowered": ("N", "potential"),  # inhibition, in steps in which any arrives
    "total": ("N", "potential"),  # what a potential must reach
    "places": ("B I", "i4"),  # place of an input in `active`, where its trace draws
    "pre_values": ("B I", "trace"),  # traces of the inputs in `active`, as of `followed`
    "pre_draws": ("B I", "u8"),  # where they draw, their draws of step 0
    "pre_times": ("B I", "i4"),  # last spike of an input; -1: no spike yet
    "followed": ("B", "i4"),  # -1: before the first step
    "post_values": ("B N", "value"),
    "post_draws": ("B N", "u8"),  # where they draw, their draws of step 0
    "post_times": ("B N", "i4"),
    "spiked": ("B N", "i4"),  # neurons that have spiked; counts[1, b] of them
    "crossed": ("B N", "i4"),  # neurons at their threshold; counts[2, b] of them
    "outputs": ("B spikes", "i4"),  # neurons that spike, step by step
    "output_starts": ("B T+1", "i4"),
    "counts": ("3 B", "i4"),
    "slots": ("N", "i4"),  # place of a neuron in `learners`; -1: none
    "learners": ("N+1", "i4"),  # neurons whose weights change; the last entry is their number
    "column": ("I", "value"),  # weights to one neuron
    "falls": ("N", "value"),  # changes at a spike of an input
    "event_turns": ("I", "u8"),  # what the draws of the inputs that spike differ by
    "changes": ("slots I", "value"),  # sums of changes, by slot; one where updates are online
}
"""Scratch memory for B presentations side by side, T steps, I inputs, N neurons: name -> axes and
type, which is NumPy's name of it or a field of `Types`."""

Work = namedtuple("Work", list(_MEMORY))  # type: ignore[misc]


class Types(NamedTuple):
    """NumPy types that the kernel holds its numbers in."""

    weight: np.dtype  # of weights
    value: np.dtype  # of theta, traces of neurons, and changes
    trace: np.dtype  # of traces of inputs
    current: np.dtype  # of sums of weights
    potential: np.dtype  # of potentials, and of what is compared with them


def types_of(numbers: Numbers, inputs: int, spikes: int) -> Types:
    """The smallest types that hold all that can occur.

    Args:
        numbers: What is computed with.
        inputs: I.
        spikes: Most neurons that spike in a step.
    """
    if numbers.is_float:
        return Types(*[np.dtype("f4")] * 5)
    narrow, wide = np.dtype("i4"), np.dtype("i8")
    highest = numbers.weight.to.high
    return Types(
        np.min_scalar_type(highest),
        wide,
        narrow if _trace_fits_int32(numbers.pre) else wide,
        narrow if inputs * highest < MOST else wide,
        narrow if fits_int32(numbers.neuron, inputs * highest, spikes) else wide,
    )


def fits_int32(n: NeuronNumbers, current: int, spikes: int) -> bool:
    """Whether `kernel_charge` may compute potentials in 32 bits: see `NarrowNeuronNumbers`.

    Args:
        n: Numbers of the neurons.
        current: The largest sum of weights.
        spikes: Most neurons that spike in a step.
    """
    shift, widest = n.down, max(-n.v.low, n.v.high)
    if n.v.mode not in (TRUNCATE, NEAREST, STOCHASTIC) or shift > 30:
        return False
    if np.ptp(n.current_up) > 0 or n.inhibition % (1 << shift) != 0:
        return False
    current_up = int(n.current_up[0])
    leak = int(((1 << (shift - n.v_up)) - n.keep) << n.v_up)
    fine = min(shift, current_up)
    leaked = widest * leak + (1 << shift)
    driven = (current << (current_up - fine)) + (leaked >> fine) + 1
    lowered = spikes * (int(n.inhibition) >> shift)
    after = widest + (driven >> (shift - fine)) + 1 + lowered
    # The width of the format is subtracted from and added to what wraps.
    return bool(max(current, leaked, driven, after + 2 * widest + 2) < MOST)


def _trace_fits_int32(n: TraceNumbers) -> bool:
    """Whether traces of inputs fit 32 bits, and what a step of them takes: see `kernel_traces`."""
    if n.to.mode != STOCHASTIC:  # looked up
        return int(n.one) < MOST
    bits = n.down
    leak = (1 << bits) - int(n.keep)
    return 1 <= bits <= 30 and int(n.one) * leak + (1 << bits) < MOST


def make_work(job: Job, types: Types) -> Work:
    """Scratch memory, all 0, where nothing has a slot."""
    (inputs, neurons), stdp, one_winner = job.weight.shape, job.stdp, job.settings.one_winner
    of = (inputs, neurons, job.steps, stdp.parallel, one_winner, stdp.update == "deferred", types)
    work: Any = Work(*(np.zeros(shape, kind) for shape, kind in _shapes(*of)))
    work.slots[:] = -1
    return work


@functools.lru_cache(maxsize=64)
def _shapes(
    inputs: int,
    neurons: int,
    steps: int,
    parallel: int,
    one_winner: bool,
    is_deferred: bool,
    types: Types,
) -> tuple[tuple[tuple[int, ...], Any], ...]:
    """Shape and type of each array, kept: a presentation is short."""
    axes = {
        **{"B": parallel, "T": steps, "I": inputs, "N": neurons, "PURPOSES": PURPOSES},
        **{"T+1": steps + 1, "T*I": steps * inputs, "T/64": -(-steps // 64), "N+1": neurons + 1},
        "3": 3,
        "spikes": steps if one_winner else steps * neurons,
        "slots": neurons if is_deferred else 1,
    }
    named = types._asdict()
    return tuple(
        (tuple(axes[axis] for axis in shape.split()), named.get(kind, kind))
        for shape, kind in _MEMORY.values()
    )


class Task(NamedTuple):
    """What a run of the kernel is to do, as numbers."""

    steps: int
    delay: int
    refractory: int
    one_winner: bool
    learning: bool
    deferred: bool
    pre_changes: bool
    any_change_at_rest: bool
    normalises: bool
    joint: bool


def task_of(job: Job) -> Task:
    """What a job asks of the kernel."""
    settings, stdp = job.settings, job.stdp
    return Task(
        job.steps,
        settings.inhibition_delay,
        settings.refractory,
        settings.one_winner,
        job.learning,
        stdp.update == "deferred",
        stdp.rate_pre > 0,
        stdp.trace_target > 0,
        stdp.weight_sum is not None,
        stdp.joint,
    )
