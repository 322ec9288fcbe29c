"""Exports the models of the README, and runs each in every engine on its whole test set.

    python benchmarks/exported.py --data FOLDER [--only NAME ...] [--out FOLDER]

FOLDER holds ``MNIST/raw`` and ``N-MNIST-small``; what is missing is left out, loudly. The models
are trained by ``train.py`` as in the README; runs that have ended are not repeated. The program in
C, the engines in NumPy and numba and the network in torch must give the same answers on every test
sample. Writes ``docs/results/exported.json`` and ``docs/results/exported.md``.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from measuring import RESULTS, ROOT

import numpy as np
import torch
from exported_models import (
    Subject,
    Way,
    agreement,
    c_way,
    memory,
    programs,
    timed,
    torch_way,
)
from exported_report import BATCHES, C_WAYS, ONE, write
from torch import Tensor, nn

from qspinn.app.run.rebuilding import rebuilt_run
from qspinn.data.atis import read_atis
from qspinn.data.events import integrate
from qspinn.export import device_model, load_model, save_model
from qspinn.export.nir_reading import network_from_nir
from qspinn.export.report import sizes_of
from qspinn.plan import QuantizationPlan, footprint, reset_states
from qspinn.quantizers import detach, plan_of, quantize_module
from qspinn.records import RECORD_NAME, RunRecord, read_record

PAGE = RESULTS / "exported"
STRANGER, STRANGERS_STEPS = "stranger", 310


@dataclass(frozen=True)
class Case:
    """A network.

    Attributes:
        title: In the tables.
        overrides: Of ``train.py``.
        needs: Folder in the data, if any.
    """

    title: str
    overrides: tuple[str, ...]
    needs: str | None = None


PTQ, WORDS = "quantization.scheme=ptq", "quantization.word_length="
MNIST = ("experiment=unsupervised_mnist", "data.root={data}")
CASES = {
    "unsupervised": Case("unsupervised, N=400", (*MNIST, PTQ, f"{WORDS}3,2"), "MNIST"),
    "stochastic": Case(
        "unsupervised, N=400, learned in fixed point",
        (*MNIST, "quantization.scheme=itq", f"{WORDS}3", "quantization.rounding=stochastic"),
        "MNIST",
    ),
    "conv_snn": Case(
        "conv_snn, MNIST",
        ("experiment=mnist_full", "data.root={data}", "trainer.max_epochs=2", PTQ, f"{WORDS}8,6,4"),
        "MNIST",
    ),
    "nmnist": Case(
        "conv_snn, N-MNIST",
        ("experiment=nmnist", "data.root={data}/N-MNIST-small", PTQ, f"{WORDS}8,4"),
        "N-MNIST-small",
    ),
    "gestures": Case(
        "conv_snn, simulated gestures", ("experiment=synthetic_gesture", PTQ, f"{WORDS}8,4")
    ),
    "decolle": Case("DECOLLE, MNIST subset", ("experiment=decolle_mnist_quick", PTQ, f"{WORDS}8")),
}


def runs_of(name: str, data: Path | None, out: Path) -> Iterator[tuple[Path, RunRecord]]:
    """Trains what is not there, and gives the folders of the runs of a case."""
    sweep = out / name
    overrides = [one.format(data=data) for one in CASES[name].overrides]
    command = [sys.executable, "train.py", "-m", *overrides, f"hydra.sweep.dir={sweep}"]
    subprocess.run([*command, "progress=lines"], cwd=ROOT, check=True)
    found = [(path.parent, read_record(path)) for path in sorted(sweep.glob(f"*/{RECORD_NAME}"))]
    yield from sorted(found, key=lambda pair: -pair[1].footprint_bits)


def subject_of(folder: Path, record: RunRecord) -> Subject:
    """The network of a run, its model, and the test data."""
    parts = rebuilt_run(folder, record)
    parts.data.setup("test")
    batches = [batch[:2] for batch in parts.data.test_dataloader()]
    inputs, labels = (torch.cat(each) for each in zip(*batches, strict=True))
    roundings = {one["rounding"] for one in record.formats.values()}
    model = load_model(folder / "model.qspinn")
    return Subject(model, parts.module, inputs, labels, is_drawn="stochastic" in roundings)


def ways_of(subject: Subject, built: dict[str, Any]) -> list[Way]:
    """What is timed: C, and the 32-bit network in torch."""
    count = min(len(subject.labels), 500)
    codes = subject.codes(0, count)
    ways = [
        c_way(name, built[program], codes)
        for name, program in zip(C_WAYS, ("aligned", "packed", "native"), strict=True)
    ]
    network = copy.deepcopy(subject.module)
    detach(network)
    for batch in (1, *(one for one in BATCHES if one <= count)):
        for backend, module in _in_torch(network.eval(), batch):
            name = ONE if batch == 1 else f"torch, 32-bit, {batch} at once"
            ways.append(torch_way(name + backend, module, subject.part(0, batch), batch))
    return ways


def _in_torch(network: nn.Module, batch: int) -> Iterator[tuple[str, nn.Module]]:
    """The network; of one with several implementations those in torch."""
    plastic: Any = getattr(network, "network", None)
    if not hasattr(plastic, "backend"):
        yield "", network
        return
    for backend in ("torch", "reference") if batch == 1 else ("torch",):
        chosen: Any = copy.deepcopy(network)
        chosen.network.backend = backend
        yield f" (backend={backend})", chosen


def measured(subject: Subject, options: argparse.Namespace) -> dict[str, Any]:
    """What was compared, what the program takes, and how long it takes."""
    with tempfile.TemporaryDirectory() as place:
        built = programs(subject.model, Path(place))
        found = agreement(subject, built, options.clear or len(subject.labels))
        taken = memory(built)
        times = timed(ways_of(subject, built), options.rounds)
    return {
        "agreement": asdict(found),
        "memory": asdict(taken),
        "microseconds": times,
        "is_drawn": subject.is_drawn,
    }


def row_of_run(name: str, folder: Path, record: RunRecord, options: Any) -> dict[str, Any]:
    """A row of the tables."""
    subject = subject_of(folder, record)
    sizes = sizes_of(subject.model, folder / "model.qspinn")
    known = record.device_model or {}
    if known["tensor_bits"] != record.flash_bits:
        raise SystemExit(f"{folder}: the model stores other bits than the footprint counts")
    return {
        "title": CASES[name].title,
        "bits": record.word_lengths["weight"],
        "rounding": record.rounding,
        "accuracy": record.accuracy,
        "float_accuracy": record.baseline_accuracy,
        "file": asdict(sizes) | {"table_bits": known["table_bits"]},
        "flash_bits": record.flash_bits,
        "ram_bits": record.ram_bits,
        **measured(subject, options),
    }


def rows_of_stranger(data: Path, options: Any) -> Iterator[dict[str, Any]]:
    """The N-MNIST network of the NIR paper: from its file to C."""
    digits, calibration = (frames_of(data, *of) for of in (("Test", 1), ("Train", 31)))
    graph = data / "strangers" / "nmnist_cnn_nir" / "cnn_sinabs.nir"
    for bits in (8, 4):
        network = network_from_nir(graph)
        plan = QuantizationPlan.uniform(bits, roles={"membrane": {"calibration": "spikes"}})
        quantized = quantize_module(network, plan, calibration[0]).eval()
        model = device_model(quantized, digits[0][:, :1], name="stranger")
        subject = Subject(model, quantized, *digits, batch_axis=1)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.qspinn"
            sizes = save_model(model, path)
        counted = footprint(quantized, plan_of(quantized))
        yield {
            "title": "NIR paper's CNN, N-MNIST",
            "bits": [bits],
            "rounding": "nearest",
            "accuracy": accuracy_of(quantized, *digits),
            "float_accuracy": accuracy_of(network, *digits),
            "file": asdict(sizes)
            | {"table_bits": sum(one.payload_bits for one in model.tables.values())},
            "flash_bits": counted.flash_bits,
            "ram_bits": counted.ram_bits,
            **measured(subject, options),
        }


def frames_of(data: Path, part: str, every: int) -> tuple[Tensor, Tensor]:
    """Frames of 1 ms ``[T, N, 2, 34, 34]``, and labels, of every so many recordings."""
    files = sorted((data / "N-MNIST-small" / part).glob("[0-9]/*.bin"))[::every]
    steps = STRANGERS_STEPS
    frames = [integrate(read_atis(file), steps, "time", 0, 1000 * steps) for file in files]
    labels = torch.tensor([int(file.parent.name) for file in files])
    return torch.from_numpy(np.stack(frames, 1)).float(), labels


def accuracy_of(network: nn.Module, frames: Tensor, labels: Tensor) -> float:
    """Of spike counts ``[T, N, classes]``."""
    right = 0
    for some, answers in zip(frames.split(20, 1), labels.split(20), strict=True):
        reset_states(network)
        with torch.no_grad():
            right += int((network(some).sum(0).argmax(-1) == answers).sum())
    reset_states(network)
    return right / len(labels)


def main() -> None:
    """Measures, and writes after each case."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, help="with MNIST/raw and N-MNIST-small")
    parser.add_argument("--only", nargs="*", choices=[*CASES, STRANGER], help="else all")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "exported")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clear", type=int, help="test samples for NumPy at most; else all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = PAGE.with_suffix(".json")
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for name in options.only or (*CASES, STRANGER):
        needs = "strangers" if name == STRANGER else CASES[name].needs
        if needs and not (options.data and (options.data / needs).is_dir()):
            print(f"LEFT OUT: {name} needs --data FOLDER with {needs}", flush=True)
            continue
        if name == STRANGER:
            found[name] = list(rows_of_stranger(options.data, options))
        else:
            runs = runs_of(name, options.data, options.out.absolute())
            found[name] = [row_of_run(name, *run, options) for run in runs]
        ordered = {one: found[one] for one in (*CASES, STRANGER) if one in found}
        write(PAGE, ordered, options.rounds)
        print(f"{name}: done", flush=True)


if __name__ == "__main__":
    main()
