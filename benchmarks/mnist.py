"""The accuracy and footprint table of the README: MNIST, 32-bit against quantised.

Runs ``train.py`` once per scheme and seed (finished runs are kept, so the
script can be stopped and started again), then writes a Markdown table and, of
the embedded images, a picture.

    python benchmarks/mnist.py                                 # the 5,000 embedded images
    python benchmarks/mnist.py --full data.root=FOLDER         # all 70,000 images
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from measuring import RESULTS, ROOT

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from qspinn.atomic import write_text
from qspinn.records import RunRecord, read_record, write_json


@dataclass(frozen=True)
class Setting:
    """One row of the table."""

    name: str
    scheme: str
    overrides: tuple[str, ...]


TITLES = {"mnist_full": "Full MNIST", "mnist_subset": "Embedded MNIST images"}


def _everything(bits: int, scheme: str) -> Setting:
    return Setting(f"{bits}-bit everything", scheme, (f"quantization.word_length={bits}",))


W4_S6 = ("quantization.word_length=6", "quantization.roles.weight.word_length=4")
FULL = (
    _everything(8, "ptq"),
    _everything(8, "itq"),
    Setting("4-bit weights, 6-bit rest", "itq", W4_S6),
)
SUBSET = (
    *(_everything(bits, "ptq") for bits in (8, 6, 4, 3)),
    *(_everything(bits, "itq") for bits in (8, 6)),
    Setting("4-bit weights, 6-bit rest", "itq", W4_S6),
    *(_everything(bits, "itq") for bits in (4, 3)),
)


def main() -> None:
    """Runs what is missing and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="the full MNIST (data.root=FOLDER)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=ROOT / "outputs" / "benchmark_mnist")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("overrides", nargs="*", help="further overrides of train.py")
    arguments = parser.parse_args()
    name = "mnist_full" if arguments.full else "mnist_subset"
    settings = FULL if arguments.full else SUBSET
    common = (["experiment=mnist_full"] if arguments.full else []) + arguments.overrides
    records = {
        (setting, seed): _record(setting, seed, common, arguments.runs / name)
        for seed in range(arguments.seeds)
        for setting in settings
    }
    arguments.results.mkdir(parents=True, exist_ok=True)
    table = _table(settings, records)
    report = f"# {TITLES[name]}\n\n{_circumstances(arguments)}\n\n{table}\n"
    write_text(report, arguments.results / f"{name}.md")
    write_json(_figures(records), arguments.results / f"{name}.json")
    if not arguments.full:
        _plot(settings, records, arguments.results / f"{name}.png")
    print(report)


def _record(setting: Setting, seed: int, common: Sequence[str], runs: Path) -> RunRecord:
    folder = runs / f"{setting.scheme}-{setting.name.replace(' ', '_').replace(',', '')}-{seed}"
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        f"quantization.scheme={setting.scheme}",
        *setting.overrides,
        *common,
        f"seed={seed}",
        f"hydra.run.dir={folder}",
    ]
    print(" ".join(command[1:]), flush=True)
    subprocess.run(command, check=True, cwd=ROOT)
    return read_record(folder / "record.json")


Records = dict[tuple[Setting, int], RunRecord]


def _baselines(records: Records) -> dict[int, float]:
    """Seed -> 32-bit accuracy, which the PTQ runs measure."""
    return {
        seed: record.baseline_accuracy
        for (setting, seed), record in records.items()
        if setting.scheme == "ptq" and record.baseline_accuracy is not None
    }


def _table(settings: Sequence[Setting], records: Records) -> str:
    baselines = _baselines(records)
    some = next(iter(records.values()))
    lines = [
        "| scheme | word lengths | accuracy | loss against 32-bit | footprint | reduction |",
        "|---|---|---|---|---|---|",
        f"| none | 32-bit | {_percent(baselines.values())} | | "
        f"{some.baseline_footprint_bits:,} bits | |",
    ]
    for setting in settings:
        rows = {seed: record for (s, seed), record in records.items() if s == setting}
        losses = [baselines[seed] - record.accuracy for seed, record in rows.items()]
        one = next(iter(rows.values()))
        lines.append(
            f"| {setting.scheme.upper()} | {setting.name} | "
            f"{_percent(record.accuracy for record in rows.values())} | "
            f"{100 * statistics.mean(losses):+.2f} points | {one.footprint_bits:,} bits | "
            f"{one.baseline_footprint_bits / one.footprint_bits:.1f}x |"
        )
    return "\n".join(lines)


def _percent(values: object) -> str:
    accuracies = [100 * value for value in values]  # type: ignore[attr-defined]
    spread = f" ± {statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
    return f"{statistics.mean(accuracies):.2f}%{spread}"


def _circumstances(arguments: argparse.Namespace) -> str:
    data = (
        "the full MNIST: 60,000 training images (5,000 of them for validation), 10,000 test images"
        if arguments.full
        else "the embedded MNIST subset: 3,500 training, 500 validation, 1,000 test images"
    )
    command = "python benchmarks/mnist.py" + (" --full data.root=FOLDER" if arguments.full else "")
    seeds = (
        "One seed"
        if arguments.seeds == 1
        else f"{arguments.seeds} seeds, mean and standard deviation"
    )
    return (
        f"Data: {data}. {seeds}. Quantised: "
        "weights, biases, membrane potentials at every time step, thresholds, decays and pixels. "
        "The footprint counts all of them except the pixels, which only pass through.\n\n"
        f"Machine: {os.cpu_count()} CPU cores ({platform.machine()}), no GPU. "
        f"Made by `{command}`."
    )


def _figures(records: Records) -> list[dict[str, object]]:
    return [
        {
            "setting": setting.name,
            "scheme": setting.scheme,
            "seed": seed,
            "accuracy": record.accuracy,
            "baseline_accuracy": record.baseline_accuracy,
            "footprint_bits": record.footprint_bits,
            "baseline_footprint_bits": record.baseline_footprint_bits,
            "seconds": record.seconds,
        }
        for (setting, seed), record in records.items()
    ]


def _plot(settings: Sequence[Setting], records: Records, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    baseline = 100 * statistics.mean(_baselines(records).values())
    some = next(iter(records.values()))
    axes.axhline(baseline, color="0.6", lw=1, ls="--")
    axes.plot(some.baseline_footprint_bits / 8192, baseline, "s", color="0.3", label="32-bit")
    for scheme, color, marker in (("ptq", "#c1502e", "o"), ("itq", "#2a6f97", "^")):
        points = []
        for setting in settings:
            if setting.scheme != scheme:
                continue
            rows = [record for (s, _), record in records.items() if s == setting]
            accuracies = [100 * record.accuracy for record in rows]
            spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
            points.append((rows[0].footprint_bits / 8192, statistics.mean(accuracies), spread))
        points.sort()
        sizes, means, spreads = zip(*points, strict=True)
        axes.errorbar(
            sizes, means, spreads, color=color, marker=marker, capsize=3, label=scheme.upper()
        )
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axes.set_xlabel("footprint (KiB: weights, biases, membranes, thresholds, decays)")
    axes.set_ylabel("test accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
