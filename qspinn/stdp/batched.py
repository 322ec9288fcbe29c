"""The backend on torch: presentations side by side as matrix products, on any device.

The currents of all steps of a group are one matrix product, and so are, where updates are deferred,
the changes of its weights. Online updates go through the steps one by one, but touch only the rows
and columns that change.

In fixed point all results equal those of `reference`, bit for bit: products of whole numbers are
computed in floats only where these hold every partial sum exactly (:func:`exact_type`), so their
order does not matter. In float, sums have another order than the reference's, so currents, changes
of weights and totals may differ in their last bits, and in time a spike may.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qspinn.fixed_point.random_bits import stream
from qspinn.stdp.dynamics import NeuronState, StepKeys, advance
from qspinn.stdp.encoding import poisson_spikes
from qspinn.stdp.job import Job, Presentation
from qspinn.stdp.numbers import THETA
from qspinn.stdp.plasticity import Online, Plasticity, change_deferred

ELEMENTS = {"cpu": 1 << 24, "cuda": 1 << 27}
"""Spikes and currents that are held at a time: bounds the memory of inference."""

Steps = Callable[[Plasticity, Tensor, Tensor], Tensor]
"""From the network, spikes of inputs ``[T, B, I]`` and keys ``[B]`` to spikes ``[T, B, N]``."""


def present(job: Job, steps: Steps) -> Presentation:
    """Presents images: ``stdp.parallel`` side by side to learn, else as many as memory allows.

    Inference holds a bounded number of presentations at a time. Learning holds a group whole: about
    30 bytes for each of its ``T * parallel * I`` inputs where updates are online, else for those of
    as many presentations as inference would hold.

    Args:
        job: What to do; its weights, theta and turns are changed where it learns.
        steps: :func:`torch_steps`, or another way through the steps of the neurons, which raises
            theta where the job learns.

    Raises:
        ValueError: Formats whose sums exceed 53 bits.
    """
    network = Plasticity(job)
    neurons, device = len(job.theta), job.keys.device
    size = job.stdp.parallel if job.learning else at_once(job)
    counts = [torch.zeros(0, neurons, dtype=torch.int32, device=device)]
    raster = [torch.zeros(job.steps, 0, neurons, dtype=torch.bool, device=device)]
    arrived = 0
    for first in range(0, len(job.keys), size):
        group = slice(first, first + size)
        keys = job.keys[group]
        inputs = poisson_spikes(job.probabilities[group], keys, job.steps).contiguous()
        spikes = _presented(network, inputs, keys, steps)
        arrived += int(inputs.sum(dtype=torch.int64))
        counts.append(spikes.sum(0, dtype=torch.int32))
        if job.record:
            raster.append(spikes)
    updates, underflows = network.statistics.tolist()
    recorded = torch.cat(raster, 1) if job.record else None
    return Presentation(torch.cat(counts), recorded, arrived, updates, underflows)


def at_once(job: Job) -> int:
    """Presentations that inference holds at a time."""
    elements = ELEMENTS.get(job.keys.device.type, ELEMENTS["cpu"])
    return max(1, elements // (job.steps * sum(job.weight.shape)))


def torch_steps(
    network: Plasticity,
    inputs: Tensor,
    keys: Tensor,
    after_step: Callable[[Tensor, int], None] | None = None,
) -> Tensor:
    """All steps of the neurons, one by one.

    Args:
        network: Its theta rises where it learns.
        inputs: Spikes of inputs, float32 0 or 1, ``[T, B, I]``.
        keys: int64 ``[B]``.
        after_step: Called with the spikes of a step, and its number; may change weights. Without
            it, they stay as they are, and the currents of many steps are computed together.

    Returns:
        Spikes of neurons, bool ``[T, B, N]``.
    """
    held = ELEMENTS.get(keys.device.type, ELEMENTS["cpu"])
    block = 1 if after_step else max(1, held // (len(keys) * len(network.job.theta)))
    job, rules = network.job, network.rules
    state = NeuronState.fresh(
        len(keys), len(job.theta), job.settings.inhibition_delay, rules.dtype, keys.device
    )
    draws, theta_keys = StepKeys.of(keys), stream(keys, THETA)
    total = rules.threshold(job.theta)
    raster = []
    for arriving in inputs.split(block):
        for current in network.currents(arriving):
            crossed, spikes, state = advance(
                state, current.to(rules.dtype), total, job.settings, rules, draws
            )
            raster.append(spikes)
            if job.learning and bool(crossed.any()):
                network.raise_theta(crossed, theta_keys, state.t - 1)
                total = rules.threshold(job.theta)
            if after_step is not None:
                after_step(spikes, state.t - 1)
    return torch.stack(raster)


def _presented(network: Plasticity, inputs: Tensor, keys: Tensor, steps: Steps) -> Tensor:
    """Presents a group, and learns from it where that is asked; spikes of neurons."""
    job = network.job
    if not job.learning:
        return steps(network, inputs, keys)
    deferred = job.stdp.update == "deferred"
    if deferred:
        spikes = steps(network, inputs, keys)
    else:
        spikes = torch_steps(network, inputs, keys, Online(network, inputs, keys))
    spiked = spikes.flatten(0, 1).any(0).nonzero()[:, 0]
    if deferred:
        change_deferred(network, inputs, spikes, spiked, keys, at_once(job))
    network.finish(spiked, keys[0])
    return spikes
