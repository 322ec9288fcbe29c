"""How fast the compiled integer engine classifies, against the simulation in torch.

    python benchmarks/integer_engine.py --data-root FOLDER [--quick]

ConvSNN is trained in 32-bit for a moment, so that its layers are as active as those of a trained
network, then quantised after training. All ways of running it take turns within each round, so that
a slow moment of the machine hits all of them. Before anything is timed, their answers are compared.
"""

from __future__ import annotations

import argparse
import copy
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import measuring
from measuring import ROOT

import numpy as np
import torch
from spikingjelly.activation_based import functional
from torch import Tensor

from qspinn.atomic import write_text
from qspinn.data import MNIST, MNISTSubset
from qspinn.export import DeviceModel, IntegerEngine, device_model, encode
from qspinn.export.compiled import CompiledEngine
from qspinn.networks import ConvSNN
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, calibrate

BITS = (8, 6, 4)
BATCH = 256
COMPARED = 64
FLOAT, SIMULATION = "32-bit network, torch", "quantised network, torch"
CLEAR = "clear engine, with `encode`"
COMPILED, ENCODED = "compiled engine, with `encode`", "compiled engine, of codes"


@dataclass
class Row:
    """One word length and batch size.

    Attributes:
        bits: Of everything.
        batch: Images at once.
        times: Of a batch, by way of running it.
        accuracy: Of the quantised network on all test images.
        spikes: Per image, of all layers.
    """

    bits: int
    batch: int
    times: dict[str, measuring.Laps]
    accuracy: float
    spikes: float


def images(root: Path | None, split: int) -> tuple[Tensor, Tensor]:
    """Pixels in [0, 1], and labels; without a folder those of the embedded subset."""
    data = MNISTSubset() if root is None else MNIST(root, val_size=0)
    found = data.load_datasets()[split]
    return found.images.float() / 255, found.labels.long()


def trained(x: Tensor, labels: Tensor) -> ConvSNN:
    """ConvSNN after one pass."""
    torch.manual_seed(0)
    net = ConvSNN()
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for first in range(0, len(x), 64):
        scores = net(x[first : first + 64])
        loss = torch.nn.functional.cross_entropy(10 * scores, labels[first : first + 64])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        functional.reset_net(net)
    return net.eval()


def quantised(net: ConvSNN, bits: int, x: Tensor) -> ConvSNN:
    """A copy with quantizers attached."""
    copied = copy.deepcopy(net)
    plan = calibrate(copied, QuantizationPlan.uniform(bits).resolve(copied, x), x)
    functional.reset_net(copied)
    attach(copied, plan)
    return copied


def scores_of(net: ConvSNN, x: Tensor) -> Tensor:
    """What a network answers."""
    with torch.no_grad():
        scores = net(x)
    functional.reset_net(net)
    return scores


def counted(model: DeviceModel, x: Tensor) -> float:
    """Spikes per image."""
    spikes = 0

    def watch(_: int, number: int, out: np.ndarray) -> None:
        nonlocal spikes
        if type(model.operations[number].what).__name__ == "Neuron":
            spikes += int(out.sum())

    IntegerEngine(model).run(encode(model, x), watch=watch)
    return spikes / len(x)


def same_answers(net: ConvSNN, model: DeviceModel, x: Tensor) -> None:
    """Stops where three ways of running a network differ."""
    codes = encode(model, x)
    clear, compiled = IntegerEngine(model).run(codes), CompiledEngine(model).run(codes)
    expected = scores_of(net, x).numpy() * (model.steps * net.population)
    if not (np.array_equal(clear.sums, compiled.sums) and np.array_equal(expected, clear.sums)):
        raise SystemExit("the answers differ")


def measured(net: ConvSNN, bits: int, data: tuple[Tensor, Tensor], rounds: int) -> list[Row]:
    """A row for each batch size."""
    x, labels = data
    inner = quantised(net, bits, x[:BATCH])
    model = device_model(inner, x[:1])
    functional.reset_net(inner)
    same_answers(inner, model, x[:COMPARED])
    engine, clear = CompiledEngine(model), IntegerEngine(model)
    correct = engine.run(encode(model, x)).classes == labels.numpy()
    rows = []
    for batch in (BATCH, 1):
        some = x[:batch]
        codes = encode(model, some)
        ways: dict[str, Callable[[], object]] = {
            FLOAT: lambda some=some: scores_of(net, some),
            SIMULATION: lambda some=some: scores_of(inner, some),
            COMPILED: lambda some=some: engine.run(encode(model, some)),
            ENCODED: lambda codes=codes: engine.run(codes),
        }
        if batch == 1:
            ways[CLEAR] = lambda some=some: clear.run(encode(model, some))
        rows.append(
            Row(
                bits,
                batch,
                measuring.interleaved(ways, rounds),
                correct.mean(),
                counted(model, x[:COMPARED]),
            )
        )
    return rows


def first_run() -> list[float]:
    """Seconds of the first run of an engine, wall and processor: compiled, and from the cache."""
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1] + '/benchmarks')\n"
        "from integer_engine import *\n"
        "x = torch.rand(1, 1, 28, 28); net = quantised(ConvSNN().eval(), 8, x)\n"
        "model = device_model(net, x); engine = CompiledEngine(model); codes = encode(model, x)\n"
        "start, used = time.perf_counter(), time.process_time(); engine.run(codes)\n"
        "print(time.perf_counter() - start, time.process_time() - used)"
    )
    found: list[float] = []
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(2):
            command = [sys.executable, "-c", code, str(ROOT)]
            environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
            done = subprocess.run(
                command, env=environment, check=True, capture_output=True, text=True
            )
            found += map(float, done.stdout.split()[-2:])
    return found


def table(rows: list[Row]) -> str:
    """As Markdown."""
    lines = [
        "| bits | images at once | | µs per image | of processor time | of that of the compiled "
        "engine with `encode` | without |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for name, times in row.times.items():
            wall, used = (one * 1e6 / row.batch for one in (times.median, times.median_processor))
            line = f"| {row.bits} | {row.batch} | {name} | {wall:.1f} | {used:.1f} |"
            if name not in (COMPILED, ENCODED):
                line += f" {ratio(row, name, COMPILED)} | {ratio(row, name, ENCODED)} |"
            else:
                line += " | |"
            lines.append(line)
    return "\n".join(lines)


def ratio(row: Row, name: str, ours: str) -> str:
    """Of processor time: of the medians, with the lowest and the highest of a round."""
    found = measuring.ratio(row.times[name].processor, row.times[ours].processor)
    return f"**{found.median:.1f}x** ({found.lowest:.1f} to {found.highest:.1f})"


def report(rows: list[Row], first: list[float], rounds: int, command: str) -> str:
    """The page."""
    by_bits = {row.bits: row for row in rows}
    activity = "; ".join(
        f"{bits} bits: {row.accuracy:.2%} of the test images, {row.spikes:.0f} spikes per image"
        for bits, row in by_bits.items()
    )
    return f"""# Speed of the compiled integer engine

{measuring.circumstances(measuring.machine("torch", "numba", "numpy"), command)}

`ConvSNN()` (12, 24 and 48 channels, 40 output neurons, LIF, T=4) on MNIST test images, trained in 32-bit in one pass and quantised after training, everything to one word length, to nearest. {activity}. The answers of torch, of the clear engine and of the compiled engine are equal. All ways of running it take turns in {rounds} rounds; the table shows medians, and ratios of the medians of processor time with the lowest and highest ratio of a round. Processor time excludes that of other programs on the shared machine. `encode` turns pixels into codes, which a device gets from its sensor.

{table(rows)}

The first run of a process also compiles the engine, or reads it from numba's cache on disk: {first[0]:.1f} s ({first[1]:.1f} s of processor time), and {first[2]:.2f} s ({first[3]:.2f} s) from the cache. It is compiled once for all models whose results fit in 32 bits, and once for all others; both once more for networks with traces or adaptive neurons, which this model has none of.
"""  # noqa: E501


def main() -> None:
    """Measures, and writes or prints the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data-root", type=Path, help="of MNIST; else its embedded subset")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--quick", action="store_true", help="few rounds, and the page is printed")
    options = parser.parse_args()
    rounds = measuring.LEAST_ROUNDS if options.quick else options.rounds
    x, labels = images(options.data_root, 0)
    count = 2000 if options.quick else 16000
    net = trained(x[:count], labels[:count])
    data = images(options.data_root, 2)
    rows = [row for bits in BITS for row in measured(net, bits, data, rounds)]
    command = "python benchmarks/integer_engine.py --data-root FOLDER"
    page = report(rows, first_run(), rounds, command)
    if not options.quick:
        write_text(page, measuring.RESULTS / "integer_engine.md")
    print(page)


if __name__ == "__main__":
    main()
