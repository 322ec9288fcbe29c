"""The tables and the picture of docs/few_bits.md: trained networks, quantised to few bits.

    python benchmarks/few_bits.py --mnist FOLDER --nmnist FOLDER   # all of it, some hours
    python benchmarks/few_bits.py --case subset                    # the embedded images alone
    python benchmarks/few_bits.py --report                         # only writes the page

``train.py`` trains each network once per seed. Each is then quantised after training in all ways of
its case, at all word lengths of it, and evaluated on its validation data. For each word length the
way with the best mean on validation data is taken, and it alone, with the one that was there
before, is evaluated on test data. Finished parts are kept in the folder --runs, so that the script
can be stopped and started again.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import RESULTS, ROOT, spread

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from hydra import compose, initialize_config_dir
from spikingjelly.activation_based import functional
from torch import nn

from qspinn.app.compose.completing import complete, to_plain
from qspinn.app.run.building import build_parts
from qspinn.app.run.train import train
from qspinn.atomic import write_text
from qspinn.plan import QuantizationPlan, footprint_of
from qspinn.quantizers import plan_of, quantize_module
from qspinn.records import write_json

CALIBRATION_BATCHES = 8


@dataclass(frozen=True)
class Way:
    """How a network is quantised, whatever its word lengths.

    Attributes:
        name: As the page calls it.
        settings: Of the plan.
        repair: After training.
    """

    name: str
    settings: Mapping[str, str]
    repair: str = "none"


BEFORE = Way("powers of two", {})
REPAIRED = "bias+learned"
FREE, CHANNEL = {"scale": "free"}, {"scale": "free", "granularity": "channel"}
WAYS = (
    BEFORE,
    Way("powers of two, formats by spikes", {"calibration": "spikes"}),
    Way("powers of two, formats by spikes, repaired", {"calibration": "spikes"}, REPAIRED),
    Way("free scale", FREE),
    Way("free scale, repaired", FREE, REPAIRED),
    Way("free scale per channel", CHANNEL),
    Way("free scale per channel, repaired", CHANNEL, REPAIRED),
)


@dataclass(frozen=True)
class Length:
    """Word lengths of a network.

    Attributes:
        name: As the page calls them.
        bits: Of everything.
        weights: Of the weights, where they have another one.
        levels: Of the weights.
    """

    name: str
    bits: int
    weights: int | None = None
    levels: str = "all"


LENGTHS = (
    *(Length(f"{bits} bits everything", bits) for bits in (4, 3, 2)),
    Length("2-bit weights, 4 bits the rest", 4, 2),
)
WAYS_OF_SIGNS = (
    BEFORE,
    WAYS[2],
    *WAYS[4:],
    Way("free scale per channel, repaired, thresholds too", CHANNEL, f"{REPAIRED}+threshold"),
)
SIGNS = (
    Length("ternary weights, 4 bits the rest", 4, 2, "symmetric"),
    Length("1-bit weights, 4 bits the rest", 4, 1),
)
EVENT_WAYS = (BEFORE, WAYS[2], *WAYS[-2:])
EVENT_LENGTHS = tuple(one for one in LENGTHS if one.bits == 3)
DECOLLE_WAYS = (
    BEFORE,
    Way("powers of two per channel", {"granularity": "channel"}),
    Way("free scale", FREE),
    Way("free scale, powers of two per channel", CHANNEL),
)
DECOLLE_LENGTHS = (
    Length("3 bits everything", 3),
    # Weights are 97% of what a device holds of it; traces of 3 and 4 bits lose much.
    *(Length(f"3-bit weights, {bits} bits the rest", bits, 3) for bits in (8, 6)),
)


@dataclass(frozen=True)
class Case:
    """A network and its data.

    Attributes:
        title: As the page calls it.
        overrides: Of ``train.py``.
        root: The option that says where the data lie; None: they are embedded.
        folds: Whether each seed leaves out another fifth of the recordings, for testing.
        lengths: Word lengths that it is quantised to.
        ways: How it is quantised to them.
    """

    title: str
    overrides: Sequence[str]
    root: str | None = None
    folds: bool = False
    lengths: Sequence[Length] = LENGTHS
    ways: Sequence[Way] = WAYS

    def of_seed(self, seed: int, folder: Path | None) -> list[str]:
        """The overrides of one training."""
        given = [*self.overrides, f"seed={seed}", "quantization.scheme=none", "baselines=null"]
        if self.folds:
            given += ["data.folds=5", f"data.fold={seed}", "data.val_fraction=0.1"]
        return given if folder is None else [*given, f"data.root={folder}"]


CASES = {
    "subset": Case("Embedded MNIST images (5,000)", ()),
    "signs": Case(
        "Embedded MNIST images, 1-bit and ternary weights", (), lengths=SIGNS, ways=WAYS_OF_SIGNS
    ),
    "mnist": Case(
        "Full MNIST, 3 epochs", ("experiment=mnist_full", "trainer.max_epochs=3"), "mnist"
    ),
    "gestures": Case(
        "Simulated gestures (synthetic data), surrogate gradient",
        ("experiment=synthetic_gesture",),
        lengths=EVENT_LENGTHS,
        ways=EVENT_WAYS,
    ),
    "gestures_decolle": Case(
        "Simulated gestures (synthetic data), DECOLLE",
        ("experiment=synthetic_gesture_decolle",),
        lengths=DECOLLE_LENGTHS,
        ways=DECOLLE_WAYS,
    ),
    "nmnist": Case("N-MNIST (1,100 recordings)", ("experiment=nmnist",), "nmnist", folds=True),
}


def main() -> None:
    """Runs what is missing, and writes the page's tables and picture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--case", choices=CASES, help="only this one")
    parser.add_argument("--mnist", type=Path, help="folder of the full MNIST")
    parser.add_argument("--nmnist", type=Path, help="folder of N-MNIST")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--runs", type=Path, default=ROOT / "outputs" / "benchmark_few_bits")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    runs = arguments.runs.resolve()
    for name in () if arguments.report else [arguments.case] if arguments.case else CASES:
        case = CASES[name]
        folder = None if case.root is None else getattr(arguments, case.root)
        if case.root is not None and folder is None:
            print(f"{name} is left out: write --{case.root} FOLDER")
            continue
        for seed in range(arguments.seeds):
            Measuring(case, seed, folder, runs / name / str(seed)).on_validation_data()
        for seed in range(arguments.seeds):
            chosen = chosen_ways(runs / name, case)
            Measuring(case, seed, folder, runs / name / str(seed)).on_test_data(chosen)
    print(write_results(runs, arguments.results))


class Measuring:
    """One trained network, and what is measured of it.

    Args:
        case: The network and its data.
        seed: Of the training.
        root: Folder of the data.
        folder: Of the run.
    """

    def __init__(self, case: Case, seed: int, root: Path | None, folder: Path) -> None:
        self.case, self.seed, self.folder = case, seed, folder
        root = None if root is None else root.resolve()
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            self.config = compose("train", case.of_seed(seed, root))
        self.known: dict[str, Any] = (
            json.loads(self.file.read_text()) if self.file.is_file() else {}
        )
        self._quantised: tuple[tuple[str, str], nn.Module] | None = None

    @property
    def file(self) -> Path:
        """What is known already."""
        return self.folder / "few_bits.json"

    def on_validation_data(self) -> None:
        """Trains, and evaluates all ways on validation data."""
        if not (self.folder / "record.json").is_file():
            with contextlib.chdir(ROOT):
                train(self.config, self.folder)
        pairs = [(length, way) for length in self.case.lengths for way in self.case.ways]
        self._measure("validation", pairs)

    def on_test_data(self, chosen: Mapping[str, Way]) -> None:
        """Evaluates the ways that were chosen, and the one that was there before."""
        lengths = self.case.lengths
        pairs = [(length, BEFORE) for length in lengths]
        pairs += [(one, chosen[one.name]) for one in lengths if chosen[one.name] != BEFORE]
        self._measure("test", pairs)

    def _measure(self, data: str, pairs: Sequence[tuple[Length, Way]]) -> None:
        wanted = [
            (one, way) for one, way in pairs if f"{data}/{one.name}/{way.name}" not in self.known
        ]
        if not wanted and f"{data}/float" in self.known:
            return
        network, loaders = self._network()
        self.known[f"{data}/float"] = accuracy(network, loaders[data]())
        for length, way in wanted:
            quantized, seconds = self._of(network, length, way, loaders["training"])
            plan = plan_of(quantized)
            footprint = footprint_of(plan.inventory, plan)
            self.known[f"{data}/{length.name}/{way.name}"] = {
                "accuracy": accuracy(quantized, loaders[data]()),
                "bits": footprint.inference_bits,
                "baseline_bits": footprint.baseline_inference_bits,
                "seconds": seconds,
            }
            write_json(self.known, self.file)
            found = self.known[f"{data}/{length.name}/{way.name}"]["accuracy"]
            print(f"{self.folder}: {data}, {length.name}, {way.name}: {found:.2%}", flush=True)
        write_json(self.known, self.file)

    def _network(self) -> tuple[nn.Module, dict[str, Any]]:
        with contextlib.chdir(ROOT):
            parts = build_parts(to_plain(complete(self.config)))
        saved = torch.load(self.folder / "checkpoints" / "last.ckpt", weights_only=True)
        parts.module.load_state_dict(saved["state_dict"])
        parts.data.setup("test")
        loaders = {
            "training": parts.data.train_dataloader,
            "validation": parts.data.val_dataloader,
            "test": parts.data.test_dataloader,
        }
        return parts.network.eval(), loaders

    def _of(
        self, network: nn.Module, length: Length, way: Way, loader: Any
    ) -> tuple[nn.Module, float]:
        weights = {"word_length": length.weights, "levels": length.levels}
        roles = {} if length.weights is None else {"weight": weights}
        plan = QuantizationPlan.uniform(length.bits, roles=roles, **way.settings)
        torch.manual_seed(self.seed)  # the same batches for all ways
        batches = [batch[0] for batch in itertools.islice(loader(), CALIBRATION_BATCHES)]
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantized = quantize_module(network, plan, batches, repair=way.repair)
        return quantized, time.process_time() - start


@torch.no_grad()
def accuracy(network: nn.Module, loader: Any) -> float:
    """The share of the samples that a network classifies correctly."""
    right = total = 0
    for x, y, *_ in loader:
        functional.reset_net(network)
        right += int((network(x).argmax(1) == y).sum())
        total += len(y)
    functional.reset_net(network)
    return right / total


def measured(folder: Path, case: Case) -> list[dict[str, Any]]:
    """What is known of each seed of a case whose validation has ended."""
    files = sorted(folder.glob("*/few_bits.json"))
    found = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    needed = {f"validation/{one.name}/{way.name}" for one in case.lengths for way in case.ways}
    return [one for one in found if needed <= set(one)]


def chosen_ways(folder: Path, case: Case) -> dict[str, Way]:
    """Name of word lengths -> the way with the best mean on validation data."""
    seeds = measured(folder, case)
    return {
        one.name: max(case.ways, key=lambda way: _mean(seeds, f"validation/{one.name}/{way.name}"))
        for one in case.lengths
    }


def _mean(seeds: Sequence[Mapping[str, Any]], key: str) -> float:
    return statistics.mean(one[key]["accuracy"] for one in seeds)


def losses(seeds: Sequence[Mapping[str, Any]], data: str, key: str) -> list[float]:
    """What each seed loses against its own 32-bit network, in points."""
    return [
        100 * (one[f"{data}/float"] - one[f"{data}/{key}"]["accuracy"])
        for one in seeds
        if f"{data}/{key}" in one
    ]


def write_results(runs: Path, results: Path) -> str:
    """Writes ``few_bits.md``, ``.json`` and ``.png``; returns the page."""
    found = {name: measured(runs / name, case) for name, case in CASES.items()}
    found = {name: seeds for name, seeds in found.items() if seeds}
    parts = ["# Few bits: what was measured", _introduction()]
    for name, seeds in found.items():
        parts += [f"## {CASES[name].title}", *_tables(runs / name, CASES[name], seeds)]
    page = "\n\n".join(parts) + "\n"
    results.mkdir(parents=True, exist_ok=True)
    write_text(page, results / "few_bits.md")
    write_json(found, results / "few_bits.json")
    drawn = {name: seeds for name, seeds in found.items() if CASES[name].ways is WAYS}
    _draw(drawn, results / "few_bits.png")
    return page


def _introduction() -> str:
    return (
        "Post-training quantisation of `conv_snn` (surrogate gradient) and, where it says so, of "
        "`decolle`, trained in 32-bit. What is lost is relative to the 32-bit network of the same "
        "seed, in points of accuracy; mean and standard deviation over the seeds. Everything is "
        "quantised and counted: weights, biases, membrane potentials, thresholds, leaks, and of "
        "DECOLLE traces and the readout (inputs are quantised, too). Formats and repairs "
        f"see {CALIBRATION_BATCHES} batches of training data. For each word length the way with "
        "the best mean on validation data was chosen; the test data were used for that way, and "
        f"for the one that was there before ({BEFORE.name}, formats by squared error), alone.\n\n"
        f"Machine: {os.cpu_count()} CPU cores ({platform.processor() or platform.machine()}), one "
        "thread per run, no GPU. Made by `python benchmarks/few_bits.py --mnist FOLDER --nmnist "
        "FOLDER`."
    )


def _tables(folder: Path, case: Case, seeds: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    accuracies = [100 * one["test/float"] for one in seeds if "test/float" in one]
    if accuracies:
        yield f"32-bit: {spread(accuracies)}% on test data, {len(accuracies)} seeds."
        chosen = chosen_ways(folder, case)
        lines = ["| | lost before | lost now | reduction | chosen |", "|---|---|---|---|---|"]
        for length in case.lengths:
            way = chosen[length.name]
            key = f"{length.name}/{way.name}"
            held = [one[f"test/{key}"] for one in seeds if f"test/{key}" in one]
            if not held:
                continue
            before = losses(seeds, "test", f"{length.name}/{BEFORE.name}")
            reduction = held[0]["baseline_bits"] / held[0]["bits"]
            lines.append(
                f"| {length.name} | {spread(before)} | **{spread(losses(seeds, 'test', key))}** "
                f"| {reduction:.1f}x | {way.name} |"
            )
        yield "\n".join(lines)
    yield "What each way loses on validation data, and the processor seconds that it takes:"
    lines = ["| | " + " | ".join(length.name for length in case.lengths) + " | s |"]
    lines.append("|---" * (len(case.lengths) + 2) + "|")
    for way in case.ways:
        cells, seconds = [], []
        for length in case.lengths:
            key = f"{length.name}/{way.name}"
            cells.append(spread(losses(seeds, "validation", key)))
            seconds += [one[f"validation/{key}"]["seconds"] for one in seeds]
        lines.append(f"| {way.name} | {' | '.join(cells)} | {statistics.median(seconds):.1f} |")
    yield "\n".join(lines)


def _draw(found: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Accuracy against bits, before and now."""
    figure, axes = plt.subplots(1, max(len(found), 1), figsize=(4.2 * max(len(found), 1), 3.4))
    shown = [one for one in LENGTHS if one.weights is None]
    for axis, (name, seeds) in zip([axes] if len(found) < 2 else axes, found.items(), strict=False):
        for way in WAYS:
            values = [100 * _mean(seeds, f"validation/{one.name}/{way.name}") for one in shown]
            style = "--" if way.settings.get("scale") != "free" else "-"
            axis.plot([one.bits for one in shown], values, style, marker="o", label=way.name)
        floats = 100 * statistics.mean(one["validation/float"] for one in seeds)
        axis.axhline(floats, color="grey", linewidth=0.8)
        axis.set_title(CASES[name].title, fontsize=10)
        axis.set_xlabel("bits of everything")
        axis.set_xticks([one.bits for one in shown])
        axis.grid(alpha=0.3)
    figure.supylabel("accuracy on validation data, %", fontsize=10)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=3, fontsize=7, frameon=False)
    figure.tight_layout(rect=(0.0, 0.16, 1.0, 1.0))
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
