"""The tables of docs/results/nmnist.md: real event-camera recordings, 32-bit against quantised.

Runs ``train.py`` once per fold of a cross-validation over all recordings: in 32-bit, with all
post-training quantisations of that training, and once more per in-training quantisation. Finished
runs are kept in the folder --runs, so the script can be stopped and started again, and run for
other experiments (learning rules) later. The page has all that it finds there; an experiment that
has no 32-bit run there keeps its rows of nmnist.json.

    python benchmarks/nmnist.py data.root=FOLDER                         # all of it, some hours
    python benchmarks/nmnist.py --itq 6:nearest,4:nearest data.root=FOLDER
    python benchmarks/nmnist.py --experiment nmnist_decolle data.root=FOLDER     # the other rule
    python benchmarks/nmnist.py --report                                 # only writes the page
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from qspinn.records import RunRecord, read_record, write_json  # noqa: E402

FOLDS = 5
BITS = (8, 6, 5, 4, 3)
ROUNDINGS = ("nearest", "truncate", "stochastic")
RULES = {"nmnist": "Surrogate gradient", "nmnist_decolle": "DECOLLE"}
NETWORKS = {
    "nmnist": "Three convolutions and an output layer with four neurons per class.",
    "nmnist_decolle": "A convolution and a fully connected layer, each with a fixed random readout "
    "that it learns from ([local learning](../local_learning.md)). Synaptic and membrane traces of "
    "all inputs, refractory states and the last readout are quantised and counted, too.",
}


@dataclass(frozen=True)
class Setting:
    """One row of the table.

    Attributes:
        scheme: ``none``, ``ptq`` or ``itq``.
        bits: Word length of everything; 32 for ``none``.
        rounding: Of everything.
    """

    scheme: str
    bits: int = 32
    rounding: str = "none"

    @property
    def key(self) -> str:
        return f"{self.scheme}_{self.bits}_{self.rounding}"


@dataclass(frozen=True)
class Row:
    """A setting, measured on every fold that is finished.

    Attributes:
        accuracies: Fold -> accuracy.
        losses: Fold -> accuracy of the 32-bit network of the same fold, minus that.
        bits: Footprint.
        baseline_bits: Of the 32-bit network.
    """

    setting: Setting
    accuracies: dict[int, float]
    losses: dict[int, float]
    bits: int
    baseline_bits: int


PTQ = tuple(Setting("ptq", bits, rounding) for rounding in ROUNDINGS for bits in BITS)
ITQ = tuple(Setting("itq", bits, rounding) for rounding in ROUNDINGS for bits in BITS)


def main() -> None:
    """Runs what is missing and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--experiment", default="nmnist", help="a file of conf/experiment")
    parser.add_argument("--itq", type=_itq, default=ITQ, metavar="BITS:ROUNDING,...")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--runs", type=Path, default=ROOT / "outputs" / "benchmark_nmnist")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results")
    arguments, overrides = parser.parse_known_args()
    wrong = [text for text in overrides if text.startswith("-") or "=" not in text]
    if wrong:
        parser.error(f"{wrong[0]}: neither an option nor an override of train.py")
    if not arguments.report:
        for setting in (Setting("none"), *arguments.itq):
            for fold in range(FOLDS):
                run(arguments.experiment, setting, fold, arguments.runs, overrides)
    arguments.results.mkdir(parents=True, exist_ok=True)
    rows = all_rows(arguments.runs, arguments.results / "nmnist.json")
    page = report(rows)
    (arguments.results / "nmnist.md").write_text(page, encoding="utf-8")
    write_json(figures(rows), arguments.results / "nmnist.json")
    print(page)


def all_rows(runs: Path, earlier: Path) -> dict[str, list[Row]]:
    """Experiment -> rows: of the runs that are there, else of an earlier nmnist.json."""
    found = read_figures(earlier) if earlier.is_file() else {}
    for name in experiments(runs):
        rows = list(rows_of(runs / name))
        if rows:
            found[name] = rows
    return dict(sorted(found.items()))


def _itq(text: str) -> tuple[Setting, ...]:
    """The in-training quantisations that are asked for; ``none``: no one."""
    settings = []
    for part in () if text == "none" else text.split(","):
        bits, _, rounding = part.partition(":")
        setting = Setting("itq", int(bits) if bits.isdecimal() else 0, rounding or "nearest")
        if setting not in ITQ:
            raise argparse.ArgumentTypeError(
                f"{part!r}: write one of {BITS}, a colon and one of {ROUNDINGS}, or none"
            )
        settings.append(setting)
    return tuple(settings)


def run(experiment: str, setting: Setting, fold: int, runs: Path, overrides: Sequence[str]) -> None:
    """Trains on one fold, unless that was done before."""
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        f"experiment={experiment}",
        f"data.folds={FOLDS}",
        f"data.fold={fold}",
        f"quantization.scheme={setting.scheme}",
        f"hydra.run.dir={runs / experiment / setting.key / str(fold)}",
        *overrides,
    ]
    if setting.scheme == "none":
        command += [ptq_callback(one) for one in PTQ]
    else:
        command += [
            f"quantization.word_length={setting.bits}",
            f"quantization.rounding={setting.rounding}",
        ]
    print(f"{experiment}: {setting.key}, fold {fold}", flush=True)
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def ptq_callback(setting: Setting) -> str:
    """An override that quantises the trained network in one more way, and tests it."""
    rule = f'{{layers:"*",role:"*",word_length:{setting.bits},rounding:{setting.rounding}}}'
    target = "qspinn.callbacks.PostTrainingQuantization"
    return (
        f"+callbacks.{setting.key}={{_target_:{target},plan:{{rules:[{rule}]}},"
        f"stages:[test],prefix:{setting.key}/}}"
    )


def experiments(runs: Path) -> list[str]:
    """Those that have finished runs."""
    return sorted({path.parents[2].name for path in runs.glob("*/*/*/record.json")})


def records(folder: Path, setting: Setting) -> dict[int, RunRecord]:
    """Fold -> record of the finished runs of a setting."""
    found = sorted((folder / setting.key).glob("*/record.json"))
    return {int(path.parent.name): read_record(path) for path in found}


def rows_of(folder: Path) -> Iterator[Row]:
    """The rows of an experiment, as far as they are measured."""
    none = records(folder, Setting("none"))
    if not none:
        return
    baselines = {fold: record.accuracy for fold, record in none.items()}
    size = next(iter(none.values())).baseline_footprint_bits
    yield Row(Setting("none"), baselines, dict.fromkeys(baselines, 0.0), size, size)
    for setting in (*PTQ, *ITQ):
        if setting.scheme == "ptq":
            accuracies = {
                fold: record.metrics[f"{setting.key}/test/accuracy"]
                for fold, record in none.items()
            }
            sizes = [one.metrics[f"{setting.key}/footprint_bits"] for one in none.values()]
        else:
            found = records(folder, setting)
            accuracies = {fold: one.accuracy for fold, one in found.items() if fold in baselines}
            sizes = [one.footprint_bits for one in found.values()]
        if accuracies:
            losses = {fold: baselines[fold] - value for fold, value in accuracies.items()}
            yield Row(setting, accuracies, losses, int(sizes[0]), size)


def report(rows: dict[str, list[Row]]) -> str:
    """The page."""
    parts = ["# N-MNIST: real recordings of an event camera", circumstances(rows)]
    for name, found in rows.items():
        title = f"## {RULES.get(name, name)} (`experiment={name}`)"
        parts += [title, *([NETWORKS[name]] if name in NETWORKS else []), table(found)]
    return "\n\n".join(parts) + "\n"


def circumstances(rows: dict[str, list[Row]]) -> str:
    folds = {len(row.accuracies) for found in rows.values() for row in found}
    finished = (
        f"Mean and standard deviation over the {FOLDS} folds."
        if folds == {FOLDS}
        else "Mean and standard deviation over the folds of each row."
    )
    return (
        "1,100 real recordings of N-MNIST (Orchard and others, 2015), 34x34 pixels, both "
        f"polarities; {FOLDS}-fold cross-validation over all of them: 880 train, "
        f"220 test. {finished} One recording of a fold is 0.45 points.\n\n"
        "Quantised are weights, biases, membrane potentials at every time step, thresholds, decays "
        "and event counts, all at the word length of the row; the footprint counts all of them but "
        "the counts, which only pass through. PTQ quantises the 32-bit network of the fold, ITQ "
        "trains anew. A loss below zero is a gain.\n\n"
        f"Machine: {os.cpu_count()} CPU cores ({platform.machine()}), one thread per run, no GPU. "
        "Made by `python benchmarks/nmnist.py data.root=FOLDER`, with `--experiment NAME` for "
        "another learning rule."
    )


def table(rows: Sequence[Row]) -> str:
    """A Markdown table."""
    lines = [
        "| scheme | word length | rounding | accuracy | loss against 32-bit | footprint | "
        "reduction | folds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        setting = row.setting
        first = setting.scheme == "none"
        lines.append(
            f"| {setting.scheme if first else setting.scheme.upper()} | {setting.bits} | "
            f"{'' if first else setting.rounding} | {percent(row.accuracies)} | "
            f"{'' if first else points(row.losses)} | {row.bits:,} bits | "
            f"{'' if first else f'{row.baseline_bits / row.bits:.1f}x'} | {len(row.accuracies)} |"
        )
    return "\n".join(lines)


def percent(values: dict[int, float]) -> str:
    numbers = [100 * value for value in values.values()]
    spread = f" ± {statistics.stdev(numbers):.2f}" if len(numbers) > 1 else ""
    return f"{statistics.mean(numbers):.2f}%{spread}"


def points(values: dict[int, float]) -> str:
    return f"{100 * statistics.mean(values.values()):+.2f} points"


def figures(rows: dict[str, list[Row]]) -> list[dict[str, object]]:
    """Everything that the page rests on."""
    return [
        {
            "experiment": name,
            "scheme": row.setting.scheme,
            "word_length": row.setting.bits,
            "rounding": row.setting.rounding,
            "accuracies": {str(fold): value for fold, value in row.accuracies.items()},
            "footprint_bits": row.bits,
            "baseline_footprint_bits": row.baseline_bits,
        }
        for name, found in rows.items()
        for row in found
    ]


def read_figures(path: Path) -> dict[str, list[Row]]:
    """The rows that :func:`figures` was made of."""
    rows: dict[str, list[Row]] = {}
    for one in json.loads(path.read_text(encoding="utf-8")):
        accuracies = {int(fold): value for fold, value in one["accuracies"].items()}
        found = rows.setdefault(one["experiment"], [])
        baselines = found[0].accuracies if found else accuracies
        losses = {fold: baselines[fold] - value for fold, value in accuracies.items()}
        setting = Setting(one["scheme"], one["word_length"], one["rounding"])
        sizes = one["footprint_bits"], one["baseline_footprint_bits"]
        found.append(Row(setting, accuracies, losses, *sizes))
    return rows


if __name__ == "__main__":
    main()
