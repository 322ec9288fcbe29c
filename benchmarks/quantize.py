"""How long `quantize` takes, as multiples of copying the tensor once.

    python benchmarks/quantize.py [--elements 10000000] [--repeats 15] [--threads 1]

All candidates run in turn within each round, so that a slow moment of the machine hits all of them;
the figures are medians over the rounds. The format is Q1.6; the values are normal, about 5% of them
beyond the range.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from functools import partial

import measuring

import torch
from torch import Tensor

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--elements", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=15, help="rounds, 9 or more")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.elements % CHANNELS:
        parser.error(f"--elements must be a multiple of {CHANNELS}")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    x = torch.randn(options.elements)
    results = measuring.interleaved(candidates(x), options.repeats)
    print(
        f"{measuring.processor()}, {options.threads} thread(s), {platform.system()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )
    print(f"{options.elements:,} float32, {FMT}, median of {options.repeats} interleaved rounds\n")
    print(f"{'operation':<40}{'ms':>9}{'x clone':>9}")
    for name, laps in results.items():
        ratio = measuring.ratio(laps.wall, results["clone"].wall)
        print(f"{name:<40}{laps.median * 1e3:>9.1f}{ratio.median:>9.2f}")


if __name__ == "__main__":
    main()
