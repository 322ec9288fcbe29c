"""What in-training quantisation takes of a training step, in one operation per layer and stepwise.

A small convolutional network, one thread, rounds interleaved; ratios to SpikingJelly's own float
step, medians.

    python benchmarks/fused_sequences.py [--batch 64] [--rounds 9]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, calibrate
from qspinn.quantizers.fused import choice

STEPS, SIDE = 8, 28
ROLES = ("weight", "bias", "membrane", "threshold", "decay", "input")
WORKS: dict[str, tuple[tuple[str, ...], str] | None] = {
    "float": None,
    "weights": (("weight",), "nearest"),
    "weights + membrane": (("weight", "membrane"), "nearest"),
    "everything": (ROLES, "nearest"),
    "everything, stochastic": (ROLES, "stochastic"),
}


def network(x: Tensor, work: tuple[tuple[str, ...], str] | None) -> nn.Sequential:
    """Two convolutions with batch norm and a linear layer, quantised to 8 bits in part or whole."""

    def lif() -> nn.Module:
        return neuron.LIFNode(detach_reset=True, surrogate_function=surrogate.ATan())

    net = nn.Sequential(
        *(layer.Conv2d(1, 16, 3, padding=1, bias=False), layer.BatchNorm2d(16), lif()),
        layer.MaxPool2d(2, 2),
        *(layer.Conv2d(16, 32, 3, padding=1, bias=False), layer.BatchNorm2d(32), lif()),
        *(layer.MaxPool2d(2, 2), layer.Flatten(), layer.Linear(32 * (SIDE // 4) ** 2, 10), lif()),
    )
    functional.set_step_mode(net, "m")
    if work is None:
        return net.train()
    roles, rounding = work
    left = {role: {"format": "float32"} for role in ROLES if role not in roles}
    plan = QuantizationPlan.uniform(8, rounding=rounding, roles=left).resolve(net, x)
    attach(net, calibrate(net, plan, x))
    return net.train()


def main() -> None:
    """Prints milliseconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.rand(STEPS, given.batch, 1, SIDE, SIDE)
    labels = torch.randint(0, 10, (given.batch,))
    cases = [(name, smallest) for name in WORKS for smallest in (choice.SMALLEST, 1 << 60)]
    networks = {name: network(x, work) for name, work in WORKS.items()}
    times: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    for _ in range(given.rounds + 1):
        for name, smallest in cases:
            choice.SMALLEST = smallest
            net = networks[name]
            started = time.process_time()
            functional.reset_net(net)
            net.zero_grad()
            nn.functional.cross_entropy(net(x).mean(0), labels).backward()
            times[name, smallest].append(time.process_time() - started)
    floats = times[cases[0]][1:]
    for (name, smallest), taken in times.items():
        ratio = statistics.median(a / b for a, b in zip(taken[1:], floats, strict=True))
        how = "stepwise" if smallest == 1 << 60 else "fused"
        print(f"{name:24s} {how:9s} {statistics.median(taken[1:]) * 1e3:8.1f} ms {ratio:6.2f}")


if __name__ == "__main__":
    main()
