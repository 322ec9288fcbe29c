"""Compiled traces, comparisons, adaptive neurons and random spikes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from qspinn.export.kernels.calls import ADAPTIVE, COMPARE, DRAWN, TRACE
from qspinn.export.kernels.neuron_kernels import random_of
from qspinn.fixed_point.compiled_bits import U64, random_bits
from qspinn.steps import neurons, traces
from qspinn.steps.lowering import AdaptiveNumbers, FollowingNumbers
from qspinn.steps.random_spikes import PROBABILITY_BITS, WORD
from qspinn.steps.targets.numba import PART
from qspinn.steps.words import STOCHASTIC, Rounding, up

__all__ = ["Shown", "plastic"]

_draw, _mix, _spread, _stream = (
    random_bits.draw,
    random_bits.mix,
    random_bits.spread,
    random_bits.stream,
)
_following = traces.following
_adaptive_charge, _reaches = neurons.adaptive_charge, neurons.reaches
_reset_to, _counted_down, _drawn_rank = (
    neurons.reset_to,
    neurons.counted_down,
    neurons.drawn_rank,
)
_CERTAIN = (1 << PROBABILITY_BITS) - 1


class Shown(NamedTuple):
    """What a presentation draws from: words of 64 bits, which no memory of 32 bits holds.

    Attributes:
        keys: Of the presentation, uint64, for each operation of random spikes.
        words: Spikes of inputs, uint64 ``[ceil(T / 64), inputs]``.
    """

    keys: Any
    words: Any


@njit(**PART)
def plastic(call, memory, constants, tables, key, first, shown, step):  # type: ignore[no-untyped-def]
    """A step of a layer.

    Args:
        call: Its record.
        memory: Of the sample.
        constants: Thresholds.
        tables: Orders of elements.
        key: Of the draws of stochastic rounding.
        first: Number of the draw of the first element.
        shown: A `Shown`.
        step: The time step.
    """
    if call.kind == TRACE:
        _trace(call, memory, tables, key, first)
    elif call.kind == COMPARE:
        _compare(call, memory)
    elif call.kind == ADAPTIVE:
        _adaptive(call, memory, constants, shown, step)
    elif call.kind == DRAWN:
        _random_spikes(call, memory, shown, step)


@njit(**PART)
def _trace(call, memory, tables, key, first):  # type: ignore[no-untyped-def]
    to = Rounding(call.mode, call.low, call.high, call.wrap != 0)
    n = FollowingNumbers(to, call.keep, call.gain, call.v_up, call.x_up, call.down)
    x = memory[call.x : call.x + call.size]
    trace = memory[call.out : call.out + call.size]
    for i in range(call.size):
        trace[i] = _following(trace[i], x[i], random_of(call, tables, key, first, i), n)


@njit(**PART)
def _compare(call, memory):  # type: ignore[no-untyped-def]
    x = memory[call.x : call.x + call.size]
    out = memory[call.out : call.out + call.size]
    shift, least = call.up, call.least
    for i in range(call.size):
        out[i] = up(x[i], shift) >= least


@njit(**PART)
def _adaptive(call, memory, constants, shown, step):  # type: ignore[no-untyped-def]
    size = call.size
    held = call.waiting + size * (1 + step % call.delay)
    pending = memory[held : held + size]
    out = memory[call.out : call.out + size]
    count = _fire(call, memory, constants, pending, out, shown, step)
    if call.one_winner != 0 and count > 1:
        random = _draw(_stream(shown.keys[call.shown], call.winners), step)
        rank = _drawn_rank(random, count)
        for i in range(size):
            crossed = out[i]
            out[i] = crossed != 0 and rank == 0
            rank -= crossed
    pending[:] = out


@njit(**PART)
def _fire(call, memory, constants, pending, out, shown, step):  # type: ignore[no-untyped-def]
    """Charges and resets; the number of neurons that reach their threshold."""
    size = call.size
    v, x = memory[call.state : call.state + size], memory[call.x : call.x + size]
    refractory = memory[call.waiting : call.waiting + size]
    thresholds = constants[call.threshold : call.threshold + size]
    to = Rounding(call.mode, call.low, call.high, call.wrap != 0)
    inhibition, x_up, reset = call.inhibition, call.x_up, call.reset
    n = AdaptiveNumbers(
        call.keep, call.v_up, call.down, inhibition, reset, 0, call.up, 0, to, x_up
    )  # fmt: skip
    rests, is_drawn = call.refractory, call.mode == STOCHASTIC
    key = _stream(shown.keys[call.shown], call.stream) if is_drawn else U64(0)
    arrived = count = 0
    for i in range(size):
        arrived += pending[i]
    for i in range(size):
        random = _spread(key, step, i) if is_drawn else U64(0)
        lowered = (arrived - pending[i]) * inhibition
        h = _adaptive_charge(v[i], x[i], lowered, refractory[i] == 0, x_up, random, n)
        crossed = _reaches(h, thresholds[i], n)
        v[i] = _reset_to(h, crossed, reset)
        refractory[i] = _counted_down(refractory[i], crossed, rests)
        out[i] = crossed
        count += crossed
    return count


@njit(**PART)
def _random_spikes(call, memory, shown, step):  # type: ignore[no-untyped-def]
    if step == 0:
        _show(call, memory, shown)
    words = shown.words[step // WORD, call.words : call.words + call.size]
    out, bit = memory[call.out : call.out + call.size], U64(step % WORD)
    for i in range(call.size):
        out[i] = (words[i] >> bit) & U64(1)


@njit(**PART)
def _show(call, memory, shown):  # type: ignore[no-untyped-def]
    """Draws the spikes of all steps, see :mod:`qspinn.steps.random_spikes`."""
    total = U64(0)
    for i in range(call.size):
        total += _draw(U64(_probability(call, memory, i)), i)
    key = _mix(U64(call.key) + total)
    shown.keys[call.shown] = key
    key, rows = _stream(key, call.stream), shown.words.shape[0]
    for i in range(call.size):
        p = U64(_probability(call, memory, i))
        for row in range(rows):
            word = U64(0)
            if p != U64(0):
                base = (i * rows + row) * PROBABILITY_BITS
                for digit in range(PROBABILITY_BITS):
                    random, is_one = _draw(key, base + digit), (p >> U64(digit)) & U64(1)
                    word = word | random if is_one != U64(0) else word & random
            shown.words[row, call.words + i] = word


@njit(**PART)
def _probability(call, memory, i):  # type: ignore[no-untyped-def]
    half = (1 << call.down) >> 1
    return min((np.int64(memory[call.x + i]) * call.factor + half) >> call.down, _CERTAIN)
