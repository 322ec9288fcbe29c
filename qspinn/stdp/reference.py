"""The network and its plasticity on torch, step by step and in the order that defines them.

Slow and plain: what every other backend is compared with.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qspinn.fixed_point.random_bits import stream
from qspinn.stdp.arithmetic import Arithmetic
from qspinn.stdp.dynamics import NeuronState, StepKeys, advance
from qspinn.stdp.encoding import poisson_spikes
from qspinn.stdp.numbers import PRE, THETA, THETA_DECAY, TRACE_POST, TRACE_PRE
from qspinn.stdp.settings import STDP, DiehlCookSettings


@dataclass
class Learned:
    """What plasticity changes, in place.

    Attributes:
        weight: ``[I, N]``.
        theta: ``[N]``.
        turns: How often the weights to each neuron were updated, int64 ``[N]``.
        keys: Of the draws at updates and at normalisations, int64 ``[2]``.
        updates: Synaptic changes tried.
        underflows: Those that rounding left without effect.
    """

    weight: Tensor
    theta: Tensor
    turns: Tensor
    keys: Tensor
    updates: int = 0
    underflows: int = 0


def present(
    probabilities: Tensor,
    keys: Tensor,
    learned: Learned,
    settings: DiehlCookSettings,
    stdp: STDP,
    arithmetic: Arithmetic,
    steps: int,
    learning: bool,
) -> tuple[Tensor, Tensor]:
    """Presents images, ``stdp.parallel`` side by side.

    Args:
        probabilities: int64 ``[M, I]``, see `encoding`.
        keys: int64 ``[M]``.
        learned: Weights and theta, changed where ``learning``.
        settings: Of the neurons.
        stdp: Of the plasticity.
        arithmetic: In float or in integers.
        steps: T.
        learning: Whether weights and theta change.

    Returns:
        Spikes of inputs, float32 ``[T, M, I]``, and of neurons, bool ``[T, M, N]``.
    """
    spikes = poisson_spikes(probabilities, keys, steps)
    raster = []
    for first in range(0, len(keys), stdp.parallel):
        group = slice(first, first + stdp.parallel)
        run = _Group(learned, settings, stdp, arithmetic, keys[group], spikes.shape[2])
        raster.append(run.present(spikes[:, group].bool(), learning))
    neurons = learned.theta.shape[0]
    empty = torch.zeros(steps, 0, neurons, dtype=torch.bool)
    return spikes, torch.cat(raster, 1) if raster else empty


class _Group:
    """Presentations side by side on the same weights."""

    def __init__(
        self,
        learned: Learned,
        settings: DiehlCookSettings,
        stdp: STDP,
        arithmetic: Arithmetic,
        keys: Tensor,
        inputs: int,
    ) -> None:
        self.learned, self.settings, self.stdp = learned, settings, stdp
        self.arithmetic = arithmetic
        self.keys = keys
        neurons = learned.theta.shape[0]
        dtype, device = arithmetic.dtype, keys.device
        self.pre = torch.zeros(len(keys), inputs, dtype=dtype, device=device)
        self.post = torch.zeros(len(keys), neurons, dtype=dtype, device=device)
        self.sums = torch.zeros(inputs, neurons, dtype=dtype, device=device)
        self.has_spiked = torch.zeros(neurons, dtype=torch.bool, device=keys.device)
        self.inputs = torch.arange(inputs, device=keys.device).unsqueeze(1)
        self.synapses = self.inputs * neurons + torch.arange(neurons, device=keys.device)

    def present(self, inputs: Tensor, learning: bool) -> Tensor:
        """Runs all steps; spikes of neurons, bool ``[T, B, N]``."""
        _, batch, _ = inputs.shape
        neurons, device = self.learned.theta.shape[0], inputs.device
        state = NeuronState.fresh(
            batch, neurons, self.settings.inhibition_delay, self.arithmetic.dtype, device
        )
        keys = StepKeys.of(self.keys)
        raster = []
        for t, arriving in enumerate(inputs):
            current = torch.stack([self._current(row) for row in arriving])
            total = self.arithmetic.threshold(self.learned.theta)
            crossed, spikes, state = advance(
                state, current, total, self.settings, self.arithmetic, keys
            )
            raster.append(spikes)
            if learning:
                self._learn(arriving, crossed, spikes, t)
        if learning:
            self._end()
        return torch.stack(raster)

    def _current(self, row: Tensor) -> Tensor:
        """The rows of the inputs that spike, one after the other: float sums have an order."""
        current = torch.zeros_like(self.learned.theta, dtype=self.arithmetic.dtype)
        for i in row.nonzero()[:, 0].tolist():
            current = current + self.learned.weight[i]
        return current

    def _learn(self, arriving: Tensor, crossed: Tensor, spikes: Tensor, t: int) -> None:
        learned, arithmetic, keys = self.learned, self.arithmetic, self.keys
        self.pre = arithmetic.trace(self.pre, arriving, stream(keys, TRACE_PRE), t, of_inputs=True)
        self.post = arithmetic.trace(
            self.post, spikes, stream(keys, TRACE_POST), t, of_inputs=False
        )
        self.has_spiked |= spikes.any(0)
        counter = t * crossed.shape[1] + torch.arange(crossed.shape[1], device=crossed.device)
        for b, key in enumerate(stream(keys, THETA)):
            raised = arithmetic.raised(learned.theta, key, counter)
            learned.theta.copy_(torch.where(crossed[b], raised, learned.theta))
        for b in range(len(keys)):
            if self.stdp.rate_pre > 0:
                change = arriving[b].unsqueeze(1) * arithmetic.change_pre(self.post[b])
                key = stream(keys[b], PRE)
                if self.stdp.update == "deferred":
                    self.sums += change
                else:
                    self._apply(change, key, counter, self.inputs)
            change = spikes[b] * arithmetic.change_post(self.pre[b])
            if self.stdp.update == "deferred":
                self.sums += change
            else:
                self._update(change, spikes[b])

    def _update(self, change: Tensor, neurons: Tensor) -> None:
        """Changes ``[I, N]`` of the weights to some neurons (bool ``[N]``), scaled as they are."""
        learned = self.learned
        learned.turns += neurons
        if self._joint:
            self._normalise(change, neurons)
        else:
            self._apply(change, learned.keys[0], self.synapses, learned.turns)

    @property
    def _joint(self) -> bool:
        return self.stdp.weight_sum is not None and self.stdp.normalise == "update"

    def _apply(self, change: Tensor, key: Tensor, counter: Tensor, turn: Tensor) -> None:
        """Synapses change; where the change is 0, they do not."""
        learned, moves = self.learned, change != 0
        after = self.arithmetic.changed(learned.weight, change, key, counter, turn)
        self._count(moves, after == learned.weight)
        learned.weight.copy_(torch.where(moves, self.arithmetic.bounded(after), learned.weight))

    def _count(self, moves: Tensor, same: Tensor) -> None:
        self.learned.updates += int(moves.sum())
        self.learned.underflows += int((moves & same).sum())

    def _end(self) -> None:
        learned = self.learned
        if self.stdp.update == "deferred":
            self._update(self.sums, self.has_spiked)
        if self.stdp.weight_sum is not None and not self._joint:
            self._normalise(torch.zeros_like(self.sums), self.has_spiked)
        key = stream(self.keys[0], THETA_DECAY)
        learned.theta.copy_(self.arithmetic.decayed(learned.theta, key))

    def _normalise(self, change: Tensor, neurons: Tensor) -> None:
        """Scales the weights to some neurons, with their changes, to their sum."""
        learned = self.learned
        p = self.arithmetic.fine(learned.weight, change)
        total = torch.zeros_like(p[0])
        for row in p:  # one after the other: float sums have an order
            total = total + row
        total = total.where(total > 0, 1)
        after = self.arithmetic.scaled(p, total, learned.keys[1], self.synapses, learned.turns)
        kept = torch.where(p > 0, self.arithmetic.bounded(after), 0)
        self._count(neurons & (change != 0), kept == learned.weight)
        learned.weight.copy_(torch.where(neurons, kept, learned.weight))
