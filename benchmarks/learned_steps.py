"""The table of docs/results/learned_steps.md: steps that follow the weights, and steps that learn.

    python benchmarks/learned_steps.py --nmnist FOLDER   # about a minute or five per row and seed
    python benchmarks/learned_steps.py --case subset     # the embedded images alone
    python benchmarks/learned_steps.py --report          # only writes the page

Each run is one of ``train.py``, with ``quantization.scheme=itq``, in the folder --runs. Finished
ones are kept, so that the script can be stopped and started again. Every row is reported, and none
is chosen by its accuracy.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import RESULTS, ROOT, spread

from hydra import compose, initialize_config_dir

from qspinn.app.run.train import train
from qspinn.atomic import write_text
from qspinn.records import read_record, write_json

WAYS = {
    "follow": (),
    "learned": ("quantization.learned_steps=weight+membrane",),
}
FLOAT = "32-bit"
CHANNELS = ("quantization.scale=free", "quantization.granularity=channel")


@dataclass(frozen=True)
class Case:
    """A network, its data, and the word lengths that it is trained in.

    Attributes:
        title: As the page calls it.
        overrides: Of ``train.py``.
        lengths: As the page calls them -> overrides.
        folds: Whether each seed leaves out another fifth of the recordings, for testing.
    """

    title: str
    overrides: Sequence[str]
    lengths: Mapping[str, Sequence[str]]
    folds: bool = False

    def of(self, length: str, way: str, seed: int, root: Path | None) -> list[str]:
        """The overrides of one run."""
        given = [*self.overrides, f"seed={seed}", "baselines=null"]
        if self.folds:
            given += ["data.folds=5", f"data.fold={seed}", "data.val_fraction=0.1"]
        if root is not None:
            given.append(f"data.root={root}")
        if length == FLOAT:
            return [*given, "quantization.scheme=none"]
        return [*given, "quantization.scheme=itq", *CHANNELS, *self.lengths[length], *WAYS[way]]


CASES = {
    "subset": Case(
        "Embedded MNIST images, 8 epochs",
        ("trainer.max_epochs=8",),
        {f"{bits} bits everything": (f"quantization.word_length={bits}",) for bits in (3, 2)},
    ),
    "nmnist": Case(
        "N-MNIST (1,100 recordings)",
        ("experiment=nmnist",),
        {
            "2-bit weights, 4 bits the rest": (
                "quantization.word_length=4",
                "quantization.roles.weight.word_length=2",
            )
        },
        folds=True,
    ),
}


def main() -> None:
    """Runs what is missing, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--case", choices=CASES, help="only this one")
    parser.add_argument("--nmnist", type=Path, help="folder of N-MNIST")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--runs", type=Path, default=ROOT / "outputs" / "benchmark_learned_steps")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    runs = arguments.runs.resolve()
    for name in () if arguments.report else [arguments.case] if arguments.case else CASES:
        root = arguments.nmnist if CASES[name].folds else None
        if CASES[name].folds and root is None:
            print(f"{name} is left out: write --{name} FOLDER")
            continue
        for seed in range(arguments.seeds):
            _run(name, seed, None if root is None else root.resolve(), runs)
    print(write_results(runs, arguments.results))


def rows(case: Case) -> Iterator[tuple[str, str]]:
    """Word lengths and way of each row."""
    yield FLOAT, FLOAT
    yield from ((length, way) for length in case.lengths for way in WAYS)


def _folder(runs: Path, name: str, length: str, way: str, seed: int) -> Path:
    return runs / name / length.replace(" ", "_").replace(",", "") / way / str(seed)


def _run(name: str, seed: int, root: Path | None, runs: Path) -> None:
    for length, way in rows(CASES[name]):
        folder = _folder(runs, name, length, way, seed)
        if (folder / "record.json").is_file():
            continue
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            config = compose("train", CASES[name].of(length, way, seed, root))
        with contextlib.chdir(ROOT):
            record = train(config, folder)
        print(f"{folder}: {record.accuracy:.2%}", flush=True)


def measured(runs: Path, name: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Row -> seed -> what its record says."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for length, way in rows(CASES[name]):
        for path in sorted(_folder(runs, name, length, way, 0).parent.glob("*/record.json")):
            record = read_record(path)
            found.setdefault(f"{length}/{way}", {})[path.parent.name] = {
                "test": record.accuracy,
                "validation": record.validation_accuracy,
                "bits": record.footprint_bits,
                "baseline_bits": record.baseline_footprint_bits,
            }
    return found


def write_results(runs: Path, results: Path) -> str:
    """Writes ``learned_steps.md`` and ``.json``; returns the page."""
    found = {name: one for name in CASES if (one := measured(runs, name))}
    parts = ["# Steps that follow the weights, and steps that learn", _introduction()]
    for name, of_rows in found.items():
        parts += [f"## {CASES[name].title}", "\n".join(_table(CASES[name], of_rows))]
    page = "\n\n".join(parts) + "\n"
    results.mkdir(parents=True, exist_ok=True)
    write_text(page, results / "learned_steps.md")
    write_json(found, results / "learned_steps.json")
    return page


def _introduction() -> str:
    return (
        "In-training quantisation of `conv_snn` with `scale=free granularity=channel`, every bit "
        "counted. *Follow*: thresholds move where the weights lose clearly less then. *Learned*: "
        "`learned_steps=weight+membrane`, the optimizer learns the steps by LSQ's gradient. Mean "
        "and standard deviation over the seeds, or folds, in percent; what is lost is relative to "
        "the 32-bit network of the same seed, in points of accuracy on test data. No row was "
        "chosen by its accuracy.\n\n"
        f"Machine: {os.cpu_count()} CPU cores ({platform.processor() or platform.machine()}), one "
        "thread per run, no GPU. Made by `python benchmarks/learned_steps.py --nmnist FOLDER`."
    )


def _table(case: Case, found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[str]:
    yield "| | steps | validation | test | lost | reduction | seeds |"
    yield "|---|---|---|---|---|---|---|"
    floats = found.get(f"{FLOAT}/{FLOAT}", {})
    for length, way in rows(case):
        seeds = found.get(f"{length}/{way}", {})
        if not seeds:
            continue
        lost = [
            100 * (floats[seed]["test"] - one["test"])
            for seed, one in seeds.items()
            if seed in floats
        ]
        first = next(iter(seeds.values()))
        is_float = length == FLOAT
        cells = [
            length,
            "" if is_float else way,
            spread([100 * one["validation"] for one in seeds.values()]),
            spread([100 * one["test"] for one in seeds.values()]),
            "" if is_float or not lost else f"**{spread(lost)}**",
            "" if is_float else f"{first['baseline_bits'] / first['bits']:.1f}x",
            str(len(seeds)),
        ]
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
