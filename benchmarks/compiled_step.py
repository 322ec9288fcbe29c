"""What `compile_steps` saves: forward and backward of a small network, one thread.

python benchmarks/compiled_step.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import measuring  # noqa: F401  (the path, one thread)

import torch
from spikingjelly.activation_based import functional
from torch import Tensor

from qspinn.networks import ConvSNN
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, calibrate, detach

SAMPLES, STEPS, SIDE = 32, 6, 34
REPEATS = 10


def main() -> None:
    """Prints the fastest of some runs."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = ConvSNN((2, SIDE, SIDE), time_steps=None).to(device)
    x = torch.randint(0, 4, (SAMPLES, STEPS, 2, SIDE, SIDE)).float().to(device)
    plan = calibrate(network, QuantizationPlan.uniform(6).resolve(network, x), x)

    def run() -> Tensor:
        functional.reset_net(network)
        network.zero_grad()
        scores = network(x)
        scores.square().sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        functional.reset_net(network)
        return scores.detach()

    print(f"{SAMPLES} samples of {STEPS} steps, 2x{SIDE}x{SIDE}; forward and backward on {device}")
    print(f"32-bit                {fastest(run):.4f} s")
    attach(network, plan)
    eager = run()
    print(f"6 bits                {fastest(run):.4f} s")
    detach(network)
    attach(network, plan, compile_steps=True)
    started = time.perf_counter()
    same = torch.equal(run(), eager)
    first = time.perf_counter() - started
    print(f"6 bits, compiled      {fastest(run):.4f} s (first run {first:.1f} s, same: {same})")


def fastest(run: Callable[[], object]) -> float:
    """Seconds of the fastest of some runs; on a CPU, of its own work, whatever else runs there."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    times = []
    for _ in range(REPEATS):
        started = clock()
        run()
        times.append(clock() - started)
    return min(times)


if __name__ == "__main__":
    main()
