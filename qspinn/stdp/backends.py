"""The backends: what presents images, on which device, and which of them is chosen."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable

import numpy as np
import torch

from qspinn.stdp import batched, reference
from qspinn.stdp.job import Job, Presentation, lasting_keys
from qspinn.stdp.numbers import TraceNumbers
from qspinn.steps.traces import decaying
from qspinn.steps.words import STOCHASTIC

BACKENDS = ("auto", "reference", "numba", "torch", "triton")


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


def run_numba(job: Job) -> Presentation:
    """Event by event, compiled for this machine at its first use."""
    from qspinn.stdp import kernel, kernel_memory

    inputs, neurons = job.weight.shape
    spikes = 1 if job.settings.one_winner else neurons
    types = kernel_memory.types_of(job.numbers, inputs, spikes)
    weight = job.weight.numpy().astype(types.weight)
    theta = job.theta.numpy().copy()
    turns = job.turns.numpy()  # changed in place
    count = len(job.keys)
    counts = np.zeros((count, neurons), np.int32)
    raster = np.zeros((job.steps, count, neurons) if job.record else (0, 0, 0), np.bool_)
    stats = np.zeros(3, np.int64)
    tables = [_trace_table(n, job.steps) for n in (job.numbers.pre, job.numbers.post)]
    kernel.run(
        job.numbers,
        kernel_memory.task_of(job),
        job.probabilities.numpy().astype(np.uint16, order="C"),
        job.keys.numpy().view(np.uint64),
        weight,
        theta,
        turns,
        lasting_keys(job.seed, job.keys.device).numpy().view(np.uint64),
        (tables[0].astype(types.trace), tables[1]),
        kernel_memory.make_work(job, types),
        counts,
        raster,
        stats,
    )
    if job.learning:
        job.weight.copy_(torch.from_numpy(weight))
        job.theta.copy_(torch.from_numpy(theta))
    recorded = torch.from_numpy(raster) if job.record else None
    return Presentation(torch.from_numpy(counts), recorded, *(int(value) for value in stats))


def run_triton(job: Job) -> Presentation:
    """As on torch, but all steps of the neurons in one GPU kernel."""
    from qspinn.stdp.triton_kernel import triton_steps

    return batched.present(job, triton_steps)


RUNNERS: dict[str, Callable[[Job], Presentation]] = {
    "reference": reference.present,  # step by step
    "numba": run_numba,
    "torch": lambda job: batched.present(job, batched.torch_steps),  # all of a group at once
    "triton": run_triton,
}


@functools.lru_cache(maxsize=64)
def _trace_table(n: TraceNumbers, steps: int) -> np.ndarray:
    """Traces 0 to T steps after a spike.

    Nothing but zeros where the rounding draws: then the kernel steps through each trace.
    """
    values = np.zeros(steps + 1, np.result_type(n.keep))
    if n.to.mode != STOCHASTIC:
        values[0] = n.one
        for t in range(steps):
            values[t + 1] = decaying(values[t], False, 0, n)
    return values
