"""Our network as the speed comparison sets it up, and what it is measured on."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qspinn.data import MNIST, MNISTSubset
from qspinn.networks import STDP, DiehlCook, DiehlCookSettings
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, calibrate

NEURONS, STEPS, WARMUP = 400, 250, 64
RATES = {"rate_pre": 1e-4, "rate_post": 1e-2}  # of BindsNET's example; all else is the default
FLOAT, NEAREST, STOCHASTIC = "32-bit", "8-bit, nearest", "8-bit, stochastic"
WEIGHTS = "8-bit, stochastic weights"  # all else to nearest
VARIANTS = (FLOAT, NEAREST, WEIGHTS, STOCHASTIC)
"""Weights of 8 bits, everything else of 16; the roundings while learning."""
CHUNK = 500  # images handed over at once, as experiment=unsupervised_mnist does
EPOCH = 60_000


def network(
    variant: str = FLOAT, parallel: int = 1, neurons: int = NEURONS, steps: int = STEPS
) -> DiehlCook:
    """The network of the comparison, untrained."""
    torch.manual_seed(0)
    stdp = STDP(**RATES, parallel=parallel)
    net = DiehlCook((1, 28, 28), neurons, steps, DiehlCookSettings(), stdp, backend="numba")
    if variant != FLOAT:
        of_weights = "nearest" if variant == NEAREST else "stochastic"
        others = "stochastic" if variant == STOCHASTIC else "nearest"
        plan = QuantizationPlan.uniform(
            16, others, roles={"weight": {"word_length": 8, "rounding": of_weights}}
        )
        attach(net, calibrate(net, plan.resolve(net), learning=True))
    return net


def load_images(root: Path | None) -> tuple[Tensor, Tensor]:
    """Training and test images, uint8 ``[M, 1, 28, 28]``; without a folder the embedded ones."""
    data = MNISTSubset() if root is None else MNIST(root, val_size=0)
    train, _, test = data.load_datasets()
    return train.images, test.images


def scaled(images: Tensor) -> Tensor:
    """As the peer scales them, so that the inputs have the same rates."""
    return images.float() / 255


class Trained:
    """A network that has learned from some images, and can be put back there."""

    def __init__(self, net: DiehlCook, images: Tensor) -> None:
        self.net = net
        net.present(images, learning=True)
        self._state = {name: value.clone() for name, value in net.state_dict().items()}

    def seconds(self, images: Tensor, learning: bool, per_call: int = CHUNK) -> dict[str, float]:
        """Seconds and processor seconds per image from that state on, and spikes per image."""
        self.net.load_state_dict(self._state)
        count, spikes = len(images), [0, 0]
        start, cpu_start = time.perf_counter(), time.process_time()
        for chunk in images.split(per_call):
            shown = self.net.present(chunk, learning=learning)
            spikes[0] += shown.input_spikes
            spikes[1] += int(shown.spike_counts.sum())
        elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu_start
        return {
            "seconds": elapsed / count,
            "cpu_seconds": cpu / count,
            "input_spikes": spikes[0] / count,
            "output_spikes": spikes[1] / count,
        }


def in_new_process(function: Callable[..., Any], *arguments: Any, **environment: str) -> Any:
    """The result of a function in a process that has done nothing else."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, context) as pool:
            return pool.submit(function, *arguments).result()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def compile_seconds(images: Tensor) -> dict[str, dict[str, float]]:
    """What the first presentation costs more than the second: compiled, and loaded from cache."""
    table: dict[str, dict[str, float]] = {}
    for variant in (FLOAT, NEAREST):
        with tempfile.TemporaryDirectory() as cache:
            table[variant] = {
                name: in_new_process(_first_call, variant, images[:1], NUMBA_CACHE_DIR=cache)
                for name in ("compiled", "cached")
            }
    return table


def _first_call(variant: str, images: Tensor) -> float:
    torch.set_num_threads(1)
    net = network(variant)
    times = []
    for _ in range(2):
        start = time.perf_counter()
        net.present(scaled(images), learning=True)
        times.append(time.perf_counter() - start)
    return times[0] - times[1]


def epoch(variant: str, parallel: int, images: Tensor) -> dict[str, Any]:
    """An epoch of 60,000 images in a new process: seconds, and the peak of memory as it goes."""
    return in_new_process(_epoch, variant, parallel, images)


def _epoch(variant: str, parallel: int, images: Tensor) -> dict[str, Any]:
    torch.set_num_threads(1)
    images = images.clone()  # handed over in shared memory, which counts only once it is read
    net = network(variant, parallel)
    net.present(scaled(images[:CHUNK]), learning=True)  # compiles
    net = network(variant, parallel)
    _forget_peak()
    peaks, seconds, cpu_start = [], 0.0, time.process_time()
    for first in range(0, EPOCH, CHUNK):
        start = time.perf_counter()
        # The embedded images are fewer: gone through again and again.
        places = torch.arange(first, first + CHUNK) % len(images)
        net.present(scaled(images[places]), learning=True)
        seconds += time.perf_counter() - start
        peaks.append(_peak_mib())
    cpu = time.process_time() - cpu_start
    return {"seconds": seconds, "cpu_seconds": cpu, "images": EPOCH, "peak_mib": peaks}


def _forget_peak() -> None:
    """So that the peak is that of the epoch, not of what went before; on Linux only."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def _peak_mib() -> float:
    """Peak of the resident memory. Linux's getrusage would count the parent's as well."""
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
