"""What the kernel works with: scratch memory, and its task as numbers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qspinn.stdp.numbers import PURPOSES, NeuronNumbers, Numbers, TraceNumbers
from qspinn.stdp.settings import STDP, DiehlCookSettings
from qspinn.steps.words import NEAREST, STOCHASTIC, TRUNCATE

MOST = 2**31  # what a sum in 32 bits must stay below


class Work(NamedTuple):
    """Scratch memory for B presentations side by side, T steps, I inputs, N neurons.

    Attributes:
        keys: uint64 ``[B, random_PURPOSES]``.
        starts: int32 ``[B, T + 1]``: where the input spikes of a step begin in ``events``.
        events: int32 ``[B, T * I]``: inputs that spike, step by step, ascending.
        cursor: int32 ``[T]``.
        words: uint64 ``[ceil(T / 64), I]``: spikes of the active inputs.
        active: int32 ``[B, I]``: inputs that may spike; ``counts[b, 0]`` of them.
        current: ``[N]``: sum of the weights of the inputs that spike.
        v: ``[B, N]``.
        ready: int32 ``[B, N]``: the first step after refractoriness.
        lowered: ``[N]``: inhibition, in steps in which any arrives.
        total: ``[N]``: what a potential must reach.
        places: int32 ``[B, I]``: place of an input in ``active``, where its trace draws.
        pre_values: ``[B, I]``: traces of the inputs in ``active``, as of ``followed``.
        pre_draws: uint64 ``[B, I]``: where they draw, their draws of step 0.
        pre_times: int32 ``[B, I]``: last spike of an input; -1: no spike yet.
        followed: int32 ``[B]``; -1: before the first step.
        post_values: ``[B, N]``.
        post_draws: uint64 ``[B, N]``: where they draw, their draws of step 0.
        post_times: int32 ``[B, N]``.
        spiked: int32 ``[B, N]``: neurons that have spiked; ``counts[b, 1]`` of them.
        crossed: int32 ``[B, N]``: neurons at their threshold; ``counts[b, 2]`` of them.
        outputs: int32 ``[B, T or T * N]``: neurons that spike, step by step.
        output_starts: int32 ``[B, T + 1]``.
        counts: int32 ``[B, 3]``.
        slots: int32 ``[N]``: place of a neuron in ``learners``; -1: none.
        learners: int32 ``[N + 1]``: neurons whose weights change; the last entry is their number.
        column: ``[I]``: weights to one neuron.
        falls: ``[N]``: changes at a spike of an input.
        event_turns: uint64 ``[I]``: what the draws of the inputs that spike differ by.
        changes: Sums of changes; ``[N, I]``, by slot, where updates are deferred, else ``[1, I]``.
    """

    keys: np.ndarray
    starts: np.ndarray
    events: np.ndarray
    cursor: np.ndarray
    words: np.ndarray
    active: np.ndarray
    current: np.ndarray
    v: np.ndarray
    ready: np.ndarray
    lowered: np.ndarray
    total: np.ndarray
    places: np.ndarray
    pre_values: np.ndarray
    pre_draws: np.ndarray
    pre_times: np.ndarray
    followed: np.ndarray
    post_values: np.ndarray
    post_draws: np.ndarray
    post_times: np.ndarray
    spiked: np.ndarray
    crossed: np.ndarray
    outputs: np.ndarray
    output_starts: np.ndarray
    counts: np.ndarray
    slots: np.ndarray
    learners: np.ndarray
    column: np.ndarray
    falls: np.ndarray
    event_turns: np.ndarray
    changes: np.ndarray


class Types(NamedTuple):
    """NumPy types that the kernel holds its numbers in.

    Attributes:
        weight: Of weights.
        value: Of theta, traces of neurons, and changes.
        trace: Of traces of inputs.
        current: Of sums of weights.
        potential: Of potentials, and of what is compared with them.
    """

    weight: np.dtype
    value: np.dtype
    trace: np.dtype
    current: np.dtype
    potential: np.dtype


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


def make_work(
    parallel: int,
    steps: int,
    inputs: int,
    neurons: int,
    types: Types,
    *,
    one_winner: bool,
    deferred: bool,
) -> Work:
    """Scratch memory."""
    value, current, potential = types.value, types.current, types.potential
    shape_i, shape_n = (parallel, inputs), (parallel, neurons)
    return Work(
        keys=np.zeros((parallel, PURPOSES), np.uint64),
        starts=np.zeros((parallel, steps + 1), np.int32),
        events=np.zeros((parallel, steps * inputs), np.int32),
        cursor=np.zeros(steps, np.int32),
        words=np.zeros((-(-steps // 64), inputs), np.uint64),
        active=np.zeros(shape_i, np.int32),
        current=np.zeros(neurons, current),
        v=np.zeros(shape_n, potential),
        ready=np.zeros(shape_n, np.int32),
        lowered=np.zeros(neurons, potential),
        total=np.zeros(neurons, potential),
        places=np.zeros(shape_i, np.int32),
        pre_values=np.zeros(shape_i, types.trace),
        pre_draws=np.zeros(shape_i, np.uint64),
        pre_times=np.zeros(shape_i, np.int32),
        followed=np.zeros(parallel, np.int32),
        post_values=np.zeros(shape_n, value),
        post_draws=np.zeros(shape_n, np.uint64),
        post_times=np.zeros(shape_n, np.int32),
        spiked=np.zeros(shape_n, np.int32),
        crossed=np.zeros(shape_n, np.int32),
        outputs=np.zeros((parallel, steps if one_winner else steps * neurons), np.int32),
        output_starts=np.zeros((parallel, steps + 1), np.int32),
        counts=np.zeros((3, parallel), np.int32),
        slots=np.full(neurons, -1, np.int32),
        learners=np.zeros(neurons + 1, np.int32),
        column=np.zeros(inputs, value),
        falls=np.zeros(neurons, value),
        event_turns=np.zeros(inputs, np.uint64),
        changes=np.zeros((neurons if deferred else 1, inputs), value),
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


def task_of(settings: DiehlCookSettings, stdp: STDP, steps: int, learning: bool) -> Task:
    """What the settings ask of the kernel."""
    return Task(
        steps,
        settings.inhibition_delay,
        settings.refractory,
        settings.one_winner,
        learning,
        stdp.update == "deferred",
        stdp.rate_pre > 0,
        stdp.trace_target > 0,
        stdp.weight_sum is not None,
        stdp.weight_sum is not None and stdp.normalise == "update",
    )
