"""What `compile_steps` saves: forward and backward of a small network, one thread.

    python benchmarks/compiled_step.py

In 32-bit, quantised, and quantised with compiled steps, which take turns within each round.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import measuring

import torch
from spikingjelly.activation_based import functional
from torch import Tensor

from qspinn.networks import ConvSNN
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, calibrate

SAMPLES, STEPS, SIDE = 32, 6, 34
FLOAT, EAGER, COMPILED = "32-bit", "6 bits", "6 bits, compiled"


def running(device: torch.device, **options: bool) -> Callable[[], Tensor]:
    """Forward and backward of a network in 32-bit, or attached with options; returns its scores."""
    torch.manual_seed(0)
    network = ConvSNN((2, SIDE, SIDE), time_steps=None).to(device)
    x = torch.randint(0, 4, (SAMPLES, STEPS, 2, SIDE, SIDE)).float().to(device)
    if options:
        plan = calibrate(network, QuantizationPlan.uniform(6).resolve(network, x), x)
        attach(network, plan, **options)

    def run() -> Tensor:
        functional.reset_net(network)
        network.zero_grad()
        scores = network(x)
        scores.square().sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        functional.reset_net(network)
        return scores.detach()

    return run


def main() -> None:
    """Prints medians, and ratios to the network in 32-bit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11, help="9 or more")
    rounds = parser.parse_args().rounds
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    ways = {
        FLOAT: running(device),
        EAGER: running(device, compile_steps=False),
        COMPILED: running(device, compile_steps=True),
    }
    started = time.perf_counter()
    compiled = ways[COMPILED]()
    first = time.perf_counter() - started
    same = torch.equal(compiled, ways[EAGER]())
    laps = measuring.interleaved(ways, rounds)
    print(f"{measuring.processor()}, torch {torch.__version__}, {rounds} rounds")
    print(f"{SAMPLES} samples of {STEPS} steps, 2x{SIDE}x{SIDE}; forward and backward on {device}")
    for name, one in laps.items():
        # On a CPU its own work, whatever else runs there; a GPU's is not the processor's.
        clock = "wall" if device.type == "cuda" else "processor"
        ratio = measuring.ratio(getattr(one, clock), getattr(laps[FLOAT], clock))
        median = one.median if clock == "wall" else one.median_processor
        print(f"{name:20} {median:.4f} s   {ratio.text()}")
    print(f"the first compiled run took {first:.1f} s; the same answers: {same}")


if __name__ == "__main__":
    main()
