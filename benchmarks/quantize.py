"""How long `quantize` takes, as multiples of copying the tensor once.

    python benchmarks/quantize.py [--elements 10000000] [--repeats 15] [--threads 1]

All candidates run in turn within each round, so that a slow moment of the machine hits all of them;
the figures are medians over the rounds. The format is Q1.6; the values are normal, about 5% of them
beyond the range.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from qspinn.fixed_point import (
    ROUNDINGS,
    FixedPointFormat,
    PerChannelFormat,
    quantize,
)

FMT = FixedPointFormat(1, 6)
CHANNELS = 100


def candidates(x: Tensor) -> dict[str, Callable[[], object]]:
    rows = x.view(CHANNELS, -1)
    per_channel = PerChannelFormat(8, tuple(6 + i % 2 for i in range(CHANNELS)))
    table: dict[str, Callable[[], object]] = {"clone": x.clone}
    for rounding in ROUNDINGS:
        table[f"quantize {rounding}"] = partial(quantize, x, FMT, rounding)
    table["quantize nearest, wrap"] = lambda: quantize(x, FMT, "nearest", "wrap")
    table["quantize nearest, per channel"] = lambda: quantize(rows, per_channel)
    table["rand_like (noise alone)"] = lambda: torch.rand_like(x)
    table["torch.fake_quantize_per_tensor_affine"] = lambda: torch.fake_quantize_per_tensor_affine(
        x, FMT.step, 0, FMT.code_min, FMT.code_max
    )
    return table


def medians(table: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each candidate over interleaved rounds, after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in table}
    for round_number in range(repeats + 1):
        for name, run in table.items():
            start = time.perf_counter()
            result = run()
            elapsed = time.perf_counter() - start
            del result
            if round_number:
                times[name].append(elapsed)
    return {name: statistics.median(values) for name, values in times.items()}


def processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--elements", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.elements % CHANNELS:
        parser.error(f"--elements must be a multiple of {CHANNELS}")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    x = torch.randn(options.elements)
    results = medians(candidates(x), options.repeats)
    print(
        f"{processor()}, {options.threads} thread(s), {platform.system()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )
    print(f"{options.elements:,} float32, {FMT}, median of {options.repeats} interleaved rounds\n")
    print(f"{'operation':<40}{'ms':>9}{'x clone':>9}")
    for name, seconds in results.items():
        print(f"{name:<40}{seconds * 1e3:>9.1f}{seconds / results['clone']:>9.2f}")


if __name__ == "__main__":
    main()
