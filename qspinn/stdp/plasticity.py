"""Changes of weights and theta for the batched backends, on the synapses that change alone."""

from __future__ import annotations

import torch
from torch import Tensor

from qspinn.fixed_point.random_bits import stream
from qspinn.stdp.arithmetic import Arithmetic
from qspinn.stdp.job import Job, lasting_keys
from qspinn.stdp.numbers import PRE, THETA_DECAY, TRACE_POST, TRACE_PRE
from qspinn.steps.exactness import spike_product_dtype
from qspinn.steps.words import STOCHASTIC


class Plasticity:
    """The weights and theta of a job, and how they are used and changed.

    Args:
        job: What is to be done.

    Attributes:
        job: The same; its weights and theta are changed in place.
        rules: Its arithmetic.
        factors: Weights as factors of matrix products, ``[I, N]``, kept in step with them.
        keys: Of the draws at updates and at normalisations of weights, int64 ``[2]``.
        joint: Whether weights are normalised at their updates.
        statistics: Synaptic changes tried, and those without effect; int64 ``[2]``.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        device = job.keys.device
        self.rules = Arithmetic(job.numbers, device)
        self.fixed = not job.numbers.is_float
        inputs = job.weight.shape[0]
        highest = job.numbers.weight.to.high
        kind = spike_product_dtype(highest, inputs) if self.fixed else torch.float32
        self.factors = job.weight.to(kind)
        self.statistics = torch.zeros(2, dtype=torch.int64, device=device)
        self.keys = lasting_keys(job.seed, device)
        self.joint = job.stdp.joint
        self.all_inputs = torch.arange(inputs, device=device)
        self._tables: dict[bool, Tensor] = {}

    def currents(self, inputs: Tensor) -> Tensor:
        """Sums of the weights of the inputs ``[T, B, I]`` that spike, ``[T, B, N]``."""
        return inputs.to(self.factors.dtype) @ self.factors

    def product(self, a: Tensor, b: Tensor, largest: int) -> Tensor:
        """``a^T b`` of ``[K, I]`` and ``[K, N]``; one holds spikes, the other up to ``largest``."""
        kind = spike_product_dtype(largest, len(a)) if self.fixed else torch.float32
        return (a.to(kind).T @ b.to(kind)).to(self.rules.dtype)

    def raise_theta(self, crossed: Tensor, keys: Tensor, t: int) -> None:
        """Theta of the neurons that reached their threshold, ``[B, N]``, row after row."""
        theta = self.job.theta
        for b in crossed.any(1).nonzero()[:, 0].tolist():
            j = crossed[b].nonzero()[:, 0]
            theta[j] = self.rules.raised(theta[j], keys[b], t * len(theta) + j)

    def traces(
        self, spikes: Tensor, keys: Tensor, of_inputs: bool, columns: Tensor | None = None
    ) -> Tensor:
        """Traces after each step, ``[T, B, *]``, of all or of some columns of the spikes (bool)."""
        numbers = self.rules.numbers
        if (numbers.pre if of_inputs else numbers.post).to.mode == STOCHASTIC:
            key = stream(keys, TRACE_PRE if of_inputs else TRACE_POST)
            x = torch.zeros(spikes.shape[1:], dtype=self.rules.dtype, device=spikes.device)
            kept = []
            for step, arriving in enumerate(spikes):
                x = self.rules.trace(x, arriving, key, step, of_inputs)
                kept.append(x if columns is None else x[:, columns])
            return torch.stack(kept)
        if columns is not None:
            spikes = spikes[:, :, columns]
        t = torch.arange(len(spikes), device=spikes.device).view(-1, 1, 1)
        last = torch.where(spikes, t, -1).cummax(0).values
        return torch.where(last < 0, 0, self._table(of_inputs)[t - last.clamp(min=0)])

    def _table(self, of_inputs: bool) -> Tensor:
        """Traces 0 to T - 1 steps after a spike, for the roundings that draw nothing."""
        if of_inputs not in self._tables:
            key = torch.zeros(1, dtype=torch.int64, device=self.job.keys.device)
            spike = torch.ones(1, 1, dtype=torch.bool, device=key.device)
            x = torch.zeros(1, 1, dtype=self.rules.dtype, device=key.device)
            values = []
            for t in range(self.job.steps):
                x = self.rules.trace(x, spike if t == 0 else ~spike, key, t, of_inputs)
                values.append(x)
            self._tables[of_inputs] = torch.cat(values).flatten()
        return self._tables[of_inputs]

    def change(
        self,
        rows: Tensor,
        columns: Tensor,
        change: Tensor,
        key: Tensor,
        place: Tensor,
        turn: Tensor,
    ) -> None:
        """Changes the weights of these rows and columns; those whose change is 0 stay.

        Args:
            rows: Inputs, int64 ``[R]``.
            columns: Neurons, int64 ``[C]``.
            change: Broadcasts to ``[R, C]``.
            key: Of the draws of stochastic rounding, int64 ``[]``.
            place: Which draws, and
            turn: which of the evenly spread ones that follow; both broadcast to ``[R, C]``.
        """
        before = self.job.weight[rows.unsqueeze(1), columns]
        after = self.rules.changed(before, change, key, place, turn)
        moves = (change != 0).expand_as(before)
        self._count(moves, after == before)
        kept = torch.where(moves, self.rules.of(columns).bounded(after), before)
        self._write(rows, columns, kept)

    def update(self, columns: Tensor, change: Tensor) -> None:
        """The changes ``[I, C]`` at an update of these neurons, scaled as they are where asked."""
        self.job.turns[columns] += 1
        if self.joint:
            self.normalise(columns, change)
        else:
            turn, place = self.job.turns[columns], self.places(columns)
            self.change(self.all_inputs, columns, change, self.keys[0], place, turn)

    def places(self, columns: Tensor) -> Tensor:
        """The numbers of all synapses of these neurons, int64 ``[I, C]``."""
        return self.all_inputs.unsqueeze(1) * self.job.weight.shape[1] + columns

    def normalise(self, columns: Tensor, change: Tensor) -> None:
        """Scales the weights of these neurons, with their changes ``[I, C]``, to their sum."""
        before, rules = self.job.weight[:, columns], self.rules.of(columns)
        p = rules.fine(before, change)
        total = p.sum(0)
        turn, place = self.job.turns[columns], self.places(columns)
        after = rules.scaled(p, total.where(total > 0, 1), self.keys[1], place, turn)
        kept = torch.where(p > 0, rules.bounded(after), 0)
        self._count((change != 0).expand_as(before), kept == before)
        self._write(self.all_inputs, columns, kept)

    def finish(self, spiked: Tensor, key: Tensor) -> None:
        """What ends a group: normalisation of the neurons that have spiked; decay of theta."""
        if self.job.stdp.weight_sum is not None and not self.joint:
            self.normalise(spiked, torch.zeros_like(self.job.weight[:, spiked]))
        theta = self.job.theta
        theta.copy_(self.rules.decayed(theta, stream(key, THETA_DECAY)))

    def _count(self, moves: Tensor, same: Tensor) -> None:
        self.statistics += torch.stack([moves.sum(), (moves & same).sum()])

    def _write(self, rows: Tensor, columns: Tensor, kept: Tensor) -> None:
        self.job.weight[rows.unsqueeze(1), columns] = kept
        if self.fixed:
            self.factors[rows.unsqueeze(1), columns] = kept.to(self.factors.dtype)


class Online:
    """Changes weights after every step of a group, presentation after presentation.

    Args:
        network: What is changed.
        inputs: Spikes of inputs, 0 or 1, ``[T, B, I]``.
        keys: int64 ``[B]``.
    """

    def __init__(self, network: Plasticity, inputs: Tensor, keys: Tensor) -> None:
        self.network, self.keys = network, keys
        self.depresses = network.job.stdp.rate_pre > 0
        self.pre = network.traces(inputs.bool(), keys, of_inputs=True)
        per_step = inputs.sum(2, dtype=torch.int64).flatten().tolist()
        self.events = inputs.nonzero()[:, 2].split(per_step)
        batch, neurons = len(keys), len(network.job.theta)
        self.post = torch.zeros(batch, neurons, dtype=network.rules.dtype, device=keys.device)
        self.spiked: list[set[int]] = [set() for _ in range(batch)]

    def __call__(self, spikes: Tensor, t: int) -> None:
        """The changes of step t, in which these neurons ``[B, N]`` spike."""
        batch = len(spikes)
        if self.depresses:
            key = stream(self.keys, TRACE_POST)
            self.post = self.network.rules.trace(self.post, spikes, key, t, of_inputs=False)
        now: list[list[int]] = [[] for _ in range(batch)]
        for b, j in spikes.nonzero().tolist():
            now[b].append(j)
            self.spiked[b].add(j)
        for b in range(batch):
            if self.depresses and self.spiked[b]:
                self._depress(b, t)
            if now[b]:
                self._potentiate(b, t, torch.tensor(now[b], device=spikes.device))

    def _depress(self, b: int, t: int) -> None:
        """At the spikes of inputs."""
        columns = torch.tensor(sorted(self.spiked[b]), device=self.keys.device)
        change = self.network.rules.change_pre(self.post[b])[columns]
        rows = self.events[t * len(self.keys) + b]
        key = stream(self.keys[b], PRE)
        place = t * len(self.network.job.theta) + columns
        self.network.change(rows, columns, change, key, place, rows.unsqueeze(1))

    def _potentiate(self, b: int, t: int, columns: Tensor) -> None:
        """At the spikes of neurons."""
        change = self.network.rules.of(columns).change_post(self.pre[t, b])
        self.network.update(columns, change)


def change_deferred(
    network: Plasticity, inputs: Tensor, spikes: Tensor, spiked: Tensor, keys: Tensor, size: int
) -> None:
    """Makes all changes of a group at its end.

    Args:
        network: What is changed.
        inputs: Spikes of inputs, 0 or 1, ``[T, B, I]``.
        spikes: Of neurons, bool ``[T, B, N]``.
        spiked: The neurons that have any, int64 ``[S]``.
        keys: int64 ``[B]``.
        size: Presentations whose traces are held at a time.
    """
    shape = (inputs.shape[2], len(spiked))
    sums = torch.zeros(shape, dtype=network.rules.dtype, device=keys.device)
    for first in range(0, len(keys), size):
        part = slice(first, first + size)
        sums += _sums(network, inputs[:, part], spikes[:, part], spiked, keys[part])
    network.update(spiked, sums)


def _sums(
    network: Plasticity, inputs: Tensor, spikes: Tensor, spiked: Tensor, keys: Tensor
) -> Tensor:
    """Sums of the changes ``[I, S]``: the traces of one side at the spikes of the other."""
    numbers, stdp = network.rules.numbers, network.job.stdp
    weight, one_pre, one_post = numbers.weight, int(numbers.pre.one), int(numbers.post.one)
    fires = spikes.any(2)
    x = network.traces(inputs.bool(), keys, of_inputs=True)[fires] - weight.trace_target
    largest = max(one_pre, int(weight.trace_target))
    sums = network.product(x, spikes[fires][:, spiked], largest)
    sums *= weight.rate_post[spiked]
    if stdp.rate_pre > 0:
        y = network.traces(spikes, keys, of_inputs=False, columns=spiked)
        fallen = network.product(inputs.flatten(0, 1), y.flatten(0, 1), one_post)
        sums -= weight.rate_pre[spiked] * fallen
    return sums
