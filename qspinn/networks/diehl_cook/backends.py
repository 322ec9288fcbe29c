"""The backends: what presents images, on which device, and which of them is chosen."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qspinn.networks.diehl_cook import reference
from qspinn.networks.diehl_cook.number_types import (
    STOCHASTIC,
    FixedNumbers,
    Numbers,
    Rounding,
)
from qspinn.networks.diehl_cook.random_bits import LASTING, NORM, POST, root, stream
from qspinn.networks.diehl_cook.settings import STDP, DiehlCookSettings
from qspinn.networks.diehl_cook.torch_arithmetic import arithmetic, fitted, shifted

BACKENDS = ("auto", "reference", "numba", "torch", "triton")


@dataclass
class Job:
    """What a backend is to do.

    Attributes:
        probabilities: int64 ``[M, I]``, see `encoding`.
        keys: int64 ``[M]``.
        weight: ``[I, N]``: float32, or codes in int64; changed in place where ``learning``.
        theta: ``[N]``, likewise.
        turns: int64 ``[N]``: how often the weights to each neuron were updated; likewise.
        seed: Of the draws that do not depend on the presentation.
        settings: Of the neurons.
        stdp: Of the plasticity.
        numbers: What is computed with.
        steps: T.
        learning: Whether weights and theta change.
        record: Whether every spike is wanted, not only their counts.
    """

    probabilities: Tensor
    keys: Tensor
    weight: Tensor
    theta: Tensor
    turns: Tensor
    seed: int
    settings: DiehlCookSettings
    stdp: STDP
    numbers: Numbers
    steps: int
    learning: bool
    record: bool


@dataclass
class Result:
    """What came of it.

    Attributes:
        spike_counts: int32 ``[M, N]``.
        spikes: bool ``[T, M, N]``, where wanted.
        input_spikes: Spikes of all inputs.
        updates: Synaptic changes tried.
        underflows: Those that rounding left without effect.
    """

    spike_counts: Tensor
    spikes: Tensor | None
    input_spikes: int
    updates: int
    underflows: int


@functools.lru_cache(maxsize=64)
def lasting_keys(seed: int, device: torch.device) -> Tensor:
    """Keys of the draws at updates and at normalisations of weights, int64 ``[2]``."""
    key = root(seed, LASTING, device)
    return torch.stack([stream(key, POST), stream(key, NORM)])


def choose(name: str, device: torch.device) -> str:
    """The backend that ``auto`` stands for on a device; any other name stands for itself.

    Raises:
        ValueError: A backend that does not run on the device.
    """
    if name == "auto":
        if device.type == "cpu":
            return "numba"
        return "triton" if device.type == "cuda" and _has_triton() else "torch"
    if name == "numba" and device.type != "cpu":
        raise ValueError(
            f"backend='numba' runs on the CPU, and the network is on {device}: write "
            "backend='torch', backend='triton' or 'auto', or trainer.accelerator=cpu"
        )
    if name == "triton" and not _has_triton():
        raise ValueError("backend='triton': the package triton is not installed; write 'torch'")
    return name


def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def run_reference(job: Job) -> Result:
    """Step by step, on torch."""
    lasting = lasting_keys(job.seed, job.keys.device)
    learned = reference.Learned(job.weight, job.theta, job.turns, lasting)
    spikes, raster = reference.present(
        job.probabilities,
        job.keys,
        learned,
        job.settings,
        job.stdp,
        arithmetic(job.numbers, job.keys.device),
        job.steps,
        job.learning,
    )
    counts = raster.sum(0, dtype=torch.int32)
    recorded = raster if job.record else None
    return Result(counts, recorded, int(spikes.sum()), learned.updates, learned.underflows)


def run_numba(job: Job) -> Result:
    """Event by event, compiled for this machine at its first use."""
    from qspinn.networks.diehl_cook import kernel, kernel_memory

    inputs, neurons = job.weight.shape
    spikes = 1 if job.settings.one_winner else neurons
    types = kernel_memory.types_of(job.numbers, inputs, spikes)
    weight = job.weight.numpy().astype(types.weight)
    theta = job.theta.numpy().copy()
    turns = job.turns.numpy()  # changed in place
    work = kernel_memory.make_work(
        job.stdp.parallel,
        job.steps,
        inputs,
        neurons,
        types,
        one_winner=job.settings.one_winner,
        deferred=job.stdp.update == "deferred",
    )
    count = len(job.keys)
    counts = np.zeros((count, neurons), np.int32)
    raster = np.zeros((job.steps, count, neurons) if job.record else (0, 0, 0), np.bool_)
    stats = np.zeros(3, np.int64)
    pre_table, post_table = _trace_tables(job)
    kernel.run(
        job.numbers,
        kernel_memory.task_of(job.settings, job.stdp, job.steps, job.learning),
        job.probabilities.numpy().astype(np.uint16, order="C"),
        job.keys.numpy().view(np.uint64),
        weight,
        theta,
        turns,
        lasting_keys(job.seed, job.keys.device).numpy().view(np.uint64),
        (pre_table.astype(types.trace), post_table),
        work,
        counts,
        raster,
        stats,
    )
    if job.learning:
        job.weight.copy_(torch.from_numpy(weight))
        job.theta.copy_(torch.from_numpy(theta))
    recorded = torch.from_numpy(raster) if job.record else None
    return Result(torch.from_numpy(counts), recorded, *(int(value) for value in stats))


def run_torch(job: Job) -> Result:
    """All presentations of a group at once, on any device."""
    from qspinn.networks.diehl_cook import batched

    return Result(*batched.present(job, batched.torch_steps))


def run_triton(job: Job) -> Result:
    """As on torch, but all steps of the neurons in one GPU kernel."""
    from qspinn.networks.diehl_cook import batched
    from qspinn.networks.diehl_cook.triton_kernel import triton_steps

    return Result(*batched.present(job, triton_steps))


RUNNERS: dict[str, Callable[[Job], Result]] = {
    "reference": run_reference,
    "numba": run_numba,
    "torch": run_torch,
    "triton": run_triton,
}


def _trace_tables(job: Job) -> tuple[np.ndarray, np.ndarray]:
    """Traces of inputs and of neurons 0 to T steps after a spike."""
    n = job.numbers
    if not isinstance(n, FixedNumbers):
        return _float_table(n.keep_pre, job.steps), _float_table(n.keep_post, job.steps)
    return (
        _fixed_table(n.keep_pre, n.leak_bits_pre, n.pre, n.one_pre, job.steps),
        _fixed_table(n.keep_post, n.leak_bits_post, n.post, n.one_post, job.steps),
    )


@functools.lru_cache(maxsize=64)
def _float_table(keep: np.float32, steps: int) -> np.ndarray:
    values = np.ones(steps + 1, np.float32)
    for t in range(steps):
        values[t + 1] = values[t] * keep
    return values


@functools.lru_cache(maxsize=64)
def _fixed_table(keep: int, bits: int, to: Rounding, one: int, steps: int) -> np.ndarray:
    """Nothing but zeros where the rounding draws: then the kernel steps through each trace."""
    values = torch.zeros(steps + 1, dtype=torch.int64)
    if to.mode != STOCHASTIC:
        values[0] = one
        nothing = torch.zeros((), dtype=torch.int64)
        for t in range(steps):
            values[t + 1] = fitted(shifted(values[t] * keep, bits, to.mode, nothing, nothing), to)
    return values.numpy()
