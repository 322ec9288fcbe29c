"""Traces, adaptive neurons, random spikes and totals in the engine on NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from qspinn.export.model import Codes
from qspinn.export.plastic import (
    AdaptiveNeuron,
    Compare,
    LabelSums,
    RandomSpikes,
    Total,
    Trace,
)
from qspinn.export.program import Instruction
from qspinn.fixed_point.random_bits import draw, spread, stream
from qspinn.steps import neurons
from qspinn.steps.random_spikes import WORD, content_keys, probabilities_of, spike_words
from qspinn.steps.traces import following
from qspinn.steps.words import STOCHASTIC

__all__ = ["PLASTIC_COMPUTE"]


class Shown(NamedTuple):
    """What a presentation draws from.

    Attributes:
        keys: Of the presentations, int64 ``[N]``.
        words: Spikes of inputs, 64 steps to a word: int64 ``[N, I, words]``.
    """

    keys: Tensor
    words: Codes


class Waiting(NamedTuple):
    """What neurons hold beside their potentials.

    Attributes:
        refractory: Steps left: ``[N, neurons]``.
        pending: Spikes that have not arrived as inhibition yet, oldest first.
    """

    refractory: Codes
    pending: tuple[Codes, ...]


def _trace(run: Any, number: int, one: Instruction, given: list[Codes], step: int) -> Codes:
    state = _state(run, number, one)
    random = run.random(number, one.to.mode, state.size)  # type: ignore[union-attr]
    random = None if random is None else random.reshape(state.shape)
    after: Codes = following(state, given[0].reshape(state.shape), random, one.numbers)
    run.states[number] = after
    return after


def _compare(run: Any, number: int, one: Instruction, given: list[Codes], step: int) -> Codes:
    return (given[0] << one.ups[0] >= one.threshold).astype(np.int64)


def _adaptive(run: Any, number: int, one: Instruction, given: list[Codes], step: int) -> Codes:
    what, n, v = one.what, one.numbers, _state(run, number, one)
    assert isinstance(what, AdaptiveNeuron)
    silent = np.zeros_like(v)
    held = run.held.setdefault(number, Waiting(silent, (silent,) * what.delay))
    random, chances = None, one.operation.operands[1:]
    keys = run.held[chances[0].source].keys if chances else None
    if one.to.mode == STOCHASTIC:  # type: ignore[union-attr]
        key = stream(keys, what.draws[0]).unsqueeze(1)
        random = spread(key, step, torch.arange(v.shape[1])).numpy()
    arriving = held.pending[0]
    lowered = (arriving.sum(1, keepdims=True) - arriving) * n.inhibition  # type: ignore[union-attr]
    current, up = given[0].reshape(v.shape), n.current_up  # type: ignore[union-attr]
    ready = held.refractory == 0
    v = neurons.adaptive_charge(v, current, lowered, ready, up, random, n)
    crossed = neurons.reaches(v, one.threshold, n)
    spikes = crossed
    if what.one_winner:
        count, drawn = crossed.sum(1), draw(stream(keys, what.draws[1]), step).numpy()
        rank = neurons.drawn_rank(drawn, count)[:, None]
        spikes = crossed & (crossed.cumsum(1) - 1 == rank)
    run.states[number] = neurons.reset_to(v, crossed, one.reset)
    refractory = neurons.counted_down(held.refractory, crossed, what.refractory)
    after: Codes = spikes.astype(np.int64)
    run.held[number] = Waiting(refractory, (*held.pending[1:], after))
    return after


def _random_spikes(run: Any, number: int, one: Instruction, given: list[Codes], step: int) -> Codes:
    n = one.numbers
    if step == 0:
        codes = torch.from_numpy(np.ascontiguousarray(given[0].reshape(run.batch, -1)))
        p = probabilities_of(codes, n)  # type: ignore[arg-type]
        keys = content_keys(torch.tensor(n.key), p)  # type: ignore[union-attr]
        words = spike_words(p, keys, run.steps, n.purpose)  # type: ignore[union-attr]
        run.held[number] = Shown(keys, words.numpy())
    word: Codes = run.held[number].words[:, :, step // WORD]
    return (word >> step % WORD) & 1


def _total(run: Any, number: int, one: Instruction, given: list[Codes], step: int) -> Codes:
    state = _state(run, number, one)
    if step >= one.what.first:
        run.states[number] = state = state + given[0].reshape(state.shape)
    return state


def _label_sums(run: Any, number: int, one: Instruction, given: list[Codes], step: int) -> Codes:
    assert one.weight is not None
    is_of = one.weight == np.arange(one.operation.size)[:, None]
    sums: Codes = given[0].reshape(run.batch, -1) @ is_of.T.astype(np.int64)
    return sums


def _state(run: Any, number: int, one: Instruction) -> Codes:
    shape = (run.batch, *one.operation.shape)
    state: Codes = run.states.setdefault(number, np.zeros(shape, np.int64))
    return state


PLASTIC_COMPUTE: dict[type, Callable[..., Codes]] = {
    Trace: _trace,
    Compare: _compare,
    AdaptiveNeuron: _adaptive,
    RandomSpikes: _random_spikes,
    Total: _total,
    LabelSums: _label_sums,
}
