"""The network and its plasticity on torch, step by step and in the order that defines them.

Slow and plain: what every other backend is compared with.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qspinn.fixed_point.random_bits import stream
from qspinn.stdp.arithmetic import Arithmetic
from qspinn.stdp.dynamics import NeuronState, StepKeys, advance
from qspinn.stdp.encoding import poisson_spikes
from qspinn.stdp.job import Job, Presentation, lasting_keys
from qspinn.stdp.numbers import PRE, THETA, THETA_DECAY, TRACE_POST, TRACE_PRE


def present(job: Job) -> Presentation:
    """Presents images, ``stdp.parallel`` side by side."""
    spikes = poisson_spikes(job.probabilities, job.keys, job.steps)
    parts = [torch.zeros(job.steps, 0, len(job.theta), dtype=torch.bool, device=job.keys.device)]
    updates = underflows = 0
    for first in range(0, len(job.keys), job.stdp.parallel):
        group = slice(first, first + job.stdp.parallel)
        run = _Group(job, job.keys[group])
        parts.append(run.present(spikes[:, group].bool()))
        updates, underflows = updates + run.updates, underflows + run.underflows
    raster = torch.cat(parts, 1)
    counts = raster.sum(0, dtype=torch.int32)
    return Presentation(
        counts, raster if job.record else None, int(spikes.sum()), updates, underflows
    )


class _Group:
    """Presentations side by side on the same weights, which change in place where they learn."""

    def __init__(self, job: Job, keys: Tensor) -> None:
        self.job, self.keys = job, keys
        self.arithmetic = Arithmetic(job.numbers, keys.device)
        self.lasting = lasting_keys(job.seed, keys.device)
        purposes = (TRACE_PRE, TRACE_POST, THETA, PRE)
        self.streams = {purpose: stream(keys, purpose) for purpose in purposes}
        self.updates = self.underflows = 0
        (inputs, neurons), batch = job.weight.shape, len(keys)
        dtype, device = self.arithmetic.dtype, keys.device
        self.pre = torch.zeros(batch, inputs, dtype=dtype, device=device)
        self.post = torch.zeros(batch, neurons, dtype=dtype, device=device)
        self.sums = torch.zeros(inputs, neurons, dtype=dtype, device=device)
        self.has_spiked = torch.zeros(neurons, dtype=torch.bool, device=device)
        self.inputs = torch.arange(inputs, device=device).unsqueeze(1)
        self.synapses = self.inputs * neurons + torch.arange(neurons, device=device)

    def present(self, inputs: Tensor) -> Tensor:
        """Runs all steps; spikes of neurons, bool ``[T, B, N]``."""
        job, keys = self.job, StepKeys.of(self.keys)
        state = NeuronState.fresh(
            len(self.keys),
            len(job.theta),
            job.settings.inhibition_delay,
            self.arithmetic.dtype,
            inputs.device,
        )
        raster = []
        for t, arriving in enumerate(inputs):
            current = torch.stack([self._current(row) for row in arriving])
            total = self.arithmetic.threshold(job.theta)
            crossed, spikes, state = advance(
                state, current, total, job.settings, self.arithmetic, keys
            )
            raster.append(spikes)
            if job.learning:
                self._learn(arriving, crossed, spikes, t)
        if job.learning:
            self._end()
        return torch.stack(raster)

    def _current(self, row: Tensor) -> Tensor:
        """The rows of the inputs that spike, one after the other: float sums have an order."""
        current = torch.zeros_like(self.job.theta, dtype=self.arithmetic.dtype)
        for i in row.nonzero()[:, 0].tolist():
            current = current + self.job.weight[i]
        return current

    def _learn(self, arriving: Tensor, crossed: Tensor, spikes: Tensor, t: int) -> None:
        theta, stdp, arithmetic, keys = self.job.theta, self.job.stdp, self.arithmetic, self.streams
        self.pre = arithmetic.trace(self.pre, arriving, keys[TRACE_PRE], t, of_inputs=True)
        self.post = arithmetic.trace(self.post, spikes, keys[TRACE_POST], t, of_inputs=False)
        self.has_spiked |= spikes.any(0)
        counter = t * crossed.shape[1] + torch.arange(crossed.shape[1], device=crossed.device)
        # Where no neuron spikes, and before the first one does, nothing changes.
        for b in crossed.any(1).nonzero()[:, 0].tolist():
            raised = arithmetic.raised(theta, keys[THETA][b], counter)
            theta.copy_(torch.where(crossed[b], raised, theta))
        deferred = stdp.update == "deferred"
        have_spiked, are_spiking = self.post.any(1).tolist(), spikes.any(1).tolist()
        for b in range(len(spikes)):
            if stdp.rate_pre > 0 and have_spiked[b]:
                change = arriving[b].unsqueeze(1) * arithmetic.change_pre(self.post[b])
                if deferred:
                    self.sums += change
                else:
                    self._apply(change, keys[PRE][b], counter, self.inputs)
            if are_spiking[b]:
                change = spikes[b] * arithmetic.change_post(self.pre[b])
                if deferred:
                    self.sums += change
                else:
                    self._update(change, spikes[b])

    def _update(self, change: Tensor, neurons: Tensor) -> None:
        """Changes ``[I, N]`` of the weights to some neurons (bool ``[N]``), scaled as they are."""
        turns = self.job.turns
        turns += neurons
        if self.job.stdp.joint:
            self._normalise(change, neurons)
        else:
            self._apply(change, self.lasting[0], self.synapses, turns)

    def _apply(self, change: Tensor, key: Tensor, counter: Tensor, turn: Tensor) -> None:
        """Synapses change; where the change is 0, they do not."""
        weight, moves = self.job.weight, change != 0
        after = self.arithmetic.changed(weight, change, key, counter, turn)
        self._count(moves, after == weight)
        weight.copy_(torch.where(moves, self.arithmetic.bounded(after), weight))

    def _count(self, moves: Tensor, same: Tensor) -> None:
        self.updates += int(moves.sum())
        self.underflows += int((moves & same).sum())

    def _end(self) -> None:
        theta, stdp = self.job.theta, self.job.stdp
        if stdp.update == "deferred":
            self._update(self.sums, self.has_spiked)
        if stdp.weight_sum is not None and not stdp.joint:
            self._normalise(torch.zeros_like(self.sums), self.has_spiked)
        theta.copy_(self.arithmetic.decayed(theta, stream(self.keys[0], THETA_DECAY)))

    def _normalise(self, change: Tensor, neurons: Tensor) -> None:
        """Scales the weights to some neurons, with their changes, to their sum."""
        weight = self.job.weight
        p = self.arithmetic.fine(weight, change)
        total = torch.zeros_like(p[0])
        for row in p:  # one after the other: float sums have an order
            total = total + row
        total = total.where(total > 0, 1)
        after = self.arithmetic.scaled(p, total, self.lasting[1], self.synapses, self.job.turns)
        kept = torch.where(p > 0, self.arithmetic.bounded(after), 0)
        self._count(neurons & (change != 0), kept == weight)
        weight.copy_(torch.where(neurons, kept, weight))
