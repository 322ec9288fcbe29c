"""What the pages of docs/results on event cameras share: runs of ``train.py``, and their table.

A page is a :class:`Study`. For each learning rule and repetition (a fold, a seed) there is one run
in 32-bit, in which the trained network is also quantised in all ways of :data:`PTQ`, and one run
for each way of :data:`ITQ`. Finished runs are kept in a folder, so that a benchmark can be stopped
and started again; one that was broken off goes on from its last checkpoint. An experiment without
runs in that folder keeps its rows on the page.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from measuring import RESULTS, ROOT

from hydra import compose, initialize_config_dir

from qspinn.app.run.train import train
from qspinn.atomic import write_text
from qspinn.records import RunRecord, read_record, write_json

BITS = (8, 6, 5, 4, 3)
ROUNDINGS = ("nearest", "truncate", "stochastic")


@dataclass(frozen=True)
class Setting:
    """One row of the table.

    Attributes:
        scheme: ``none``, ``ptq`` or ``itq``.
        bits: Word length of everything; 32 for ``none``.
        rounding: Of everything.
        weights: Word length of the weights, where it is another one.
    """

    scheme: str
    bits: int = 32
    rounding: str = "none"
    weights: int | None = None

    @property
    def key(self) -> str:
        weights = "" if self.weights is None else f"{self.weights}_"
        return f"{self.scheme}_{weights}{self.bits}_{self.rounding}"

    @property
    def word_length(self) -> str:
        """As in a table."""
        return str(self.bits) if self.weights is None else f"{self.bits} (weights {self.weights})"


NONE = Setting("none")
PTQ = tuple(Setting("ptq", bits, rounding) for rounding in ROUNDINGS for bits in BITS)
ITQ = tuple(Setting("itq", bits, rounding) for rounding in ROUNDINGS for bits in BITS)


@dataclass(frozen=True)
class Row:
    """A setting, measured in every repetition that is finished.

    Attributes:
        accuracies: Repetition -> accuracy.
        losses: Repetition -> accuracy of its own 32-bit network, minus that.
        bits: Footprint.
        baseline_bits: Of the 32-bit network.
    """

    setting: Setting
    accuracies: dict[int, float]
    losses: dict[int, float]
    bits: int
    baseline_bits: int


Rows = dict[str, list[Row]]
"""The rows of each experiment."""


@dataclass(frozen=True)
class Study:
    """What a page is about.

    Attributes:
        name: Of its files in docs/results, and of the script that makes them.
        title: Its heading.
        rules: Experiment (a file of conf/experiment) -> how its section is called.
        repetition: ``fold`` or ``seed``.
        repetitions: How many.
        overrides: Of ``train.py``, for a repetition.
        introduction: What a reader must know before the tables.
        quantised: What has the word length of a row.
        command: Makes the page.
        first: The in-training quantisations that are run before the others.
        mixed: Settings with a word length of the weights, each a run of its own.
    """

    name: str
    title: str
    rules: dict[str, str]
    repetition: str
    repetitions: int
    overrides: Callable[[int], Sequence[str]]
    introduction: Callable[[Rows], str]
    quantised: str
    command: str
    first: tuple[Setting, ...] = ()
    mixed: tuple[Setting, ...] = ()


def main(study: Study, description: str) -> None:
    """Runs what is missing of a study and writes its page."""
    parser = argparse.ArgumentParser(description=description.split("\n\n")[0])
    parser.add_argument("--experiment", choices=study.rules, help="only this one")
    parser.add_argument("--itq", type=_itq, metavar="BITS:ROUNDING,...", help="or none; else all")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--runs", type=Path, default=ROOT / "outputs" / f"benchmark_{study.name}")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments, overrides = parser.parse_known_args()
    wrong = [text for text in overrides if text.startswith("-") or "=" not in text]
    if wrong:
        parser.error(f"{wrong[0]}: neither an option nor an override of train.py")
    others = [setting for setting in ITQ if setting not in study.first]
    wanted = [*study.first, *study.mixed, *others] if arguments.itq is None else arguments.itq
    runs, results = arguments.runs.resolve(), arguments.results.resolve()
    for setting in () if arguments.report else (NONE, *wanted):
        for experiment in [arguments.experiment] if arguments.experiment else study.rules:
            for repetition in range(study.repetitions):
                run(study, experiment, setting, repetition, runs, overrides)
                write_page(study, runs, results)
    print(write_page(study, runs, results))


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


def run(
    study: Study,
    experiment: str,
    setting: Setting,
    repetition: int,
    runs: Path,
    overrides: Sequence[str],
) -> None:
    """Trains once, unless that was done before."""
    given = [f"experiment={experiment}", *study.overrides(repetition)]
    given.append(f"quantization.scheme={setting.scheme}")
    if setting.scheme == "none":
        given += [ptq_callback(one) for one in PTQ]
    else:
        given += [
            f"quantization.word_length={setting.bits}",
            f"quantization.rounding={setting.rounding}",
        ]
        if setting.weights is not None:
            given.append(f"quantization.roles.weight.word_length={setting.weights}")
    print(f"{experiment}: {setting.key}, {study.repetition} {repetition}", flush=True)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", [*given, *overrides])
    with contextlib.chdir(ROOT):
        train(config, runs / experiment / setting.key / str(repetition))


def ptq_callback(setting: Setting) -> str:
    """An override that quantises the trained network in one more way, and tests it."""
    rule = f'{{layers:"*",role:"*",word_length:{setting.bits},rounding:{setting.rounding}}}'
    target = "qspinn.callbacks.PostTrainingQuantization"
    return (
        f"+callbacks.{setting.key}={{_target_:{target},plan:{{rules:[{rule}]}},"
        f"stages:[test],prefix:{setting.key}/}}"
    )


def records(folder: Path, setting: Setting) -> dict[int, RunRecord]:
    """Repetition -> record of the finished runs of a setting."""
    found = sorted((folder / setting.key).glob("*/record.json"))
    return {int(path.parent.name): read_record(path) for path in found}


def rows_of(folder: Path, mixed: Sequence[Setting] = ()) -> Iterator[Row]:
    """The rows of an experiment, as far as they are measured."""
    none = records(folder, NONE)
    if not none:
        return
    baselines = {place: record.accuracy for place, record in none.items()}
    size = next(iter(none.values())).baseline_footprint_bits
    yield Row(NONE, baselines, dict.fromkeys(baselines, 0.0), size, size)
    for setting in (*PTQ, *ITQ, *mixed):
        if setting in PTQ:
            accuracies = {
                place: record.metrics[f"{setting.key}/test/accuracy"]
                for place, record in none.items()
            }
            sizes = [one.metrics[f"{setting.key}/footprint_bits"] for one in none.values()]
        else:
            found = records(folder, setting)
            accuracies = {place: one.accuracy for place, one in found.items() if place in baselines}
            sizes = [one.footprint_bits for one in found.values()]
        if accuracies:
            losses = {place: baselines[place] - value for place, value in accuracies.items()}
            yield Row(setting, accuracies, losses, int(sizes[0]), size)


def all_rows(study: Study, runs: Path, earlier: Path) -> Rows:
    """The rows of each experiment: of its runs, or where there is none those of an earlier page."""
    kept = read_figures(earlier) if earlier.is_file() else {}
    return {
        name: list(rows_of(runs / name, study.mixed)) or kept.get(name, []) for name in study.rules
    }


def write_page(study: Study, runs: Path, results: Path) -> str:
    """Writes all that is measured so far to ``NAME.md`` and ``NAME.json``; returns the page."""
    results.mkdir(parents=True, exist_ok=True)
    rows = all_rows(study, runs, results / f"{study.name}.json")
    page = report(study, rows)
    write_text(page, results / f"{study.name}.md")
    write_json(figures(rows), results / f"{study.name}.json")
    return page


def report(study: Study, rows: Rows) -> str:
    """The page."""
    parts = [f"# {study.title}", study.introduction(rows), circumstances(study, rows)]
    for name, found in rows.items():
        title = f"## {study.rules[name]} (`experiment={name}`)"
        parts += [
            title,
            *([table(found, study.repetition)] if found else []),
            *not_run(study, found),
        ]
    return "\n\n".join(parts) + "\n"


def circumstances(study: Study, rows: Rows) -> str:
    """What holds for every table."""
    counts = {len(row.accuracies) for found in rows.values() for row in found}
    over = (
        f"the {study.repetitions} {study.repetition}s"
        if counts == {study.repetitions}
        else f"the {study.repetition}s of each row"
    )
    own = " (the weights have their own where stated)" if study.mixed else ""
    return (
        f"Quantised: {study.quantised}. All have the word length of the row{own}. PTQ quantises "
        f"the 32-bit network of the {study.repetition}; ITQ trains a new one. Mean and standard "
        f"deviation over {over}. The loss is relative to the 32-bit network of the same "
        f"{study.repetition}; a negative loss is a gain.\n\n"
        f"Machine: {os.cpu_count()} CPU cores ({platform.machine()}), one thread per run, no GPU. "
        f"Made by `{study.command}`."
    )


def table(rows: Sequence[Row], repetition: str) -> str:
    """A Markdown table."""
    lines = [
        "| scheme | word length | rounding | accuracy | loss against 32-bit | footprint | "
        f"reduction | {repetition}s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        setting = row.setting
        first = setting == NONE
        lines.append(
            f"| {setting.scheme if first else setting.scheme.upper()} | {setting.word_length} | "
            f"{'' if first else setting.rounding} | {percent(row.accuracies)} | "
            f"{'' if first else points(row.losses)} | {row.bits:,} bits | "
            f"{'' if first else f'{row.baseline_bits / row.bits:.1f}x'} | {len(row.accuracies)} |"
        )
    return "\n".join(lines)


def not_run(study: Study, rows: Sequence[Row]) -> Iterator[str]:
    """A line on what the table lacks, where it lacks anything."""
    done = {row.setting: len(row.accuracies) for row in rows}
    lacking: dict[tuple[str, int], list[str]] = {}
    for one in (NONE, *PTQ, *ITQ, *study.mixed):
        missing = study.repetitions - done.get(one, 0)
        if missing > 0:
            kind = "" if one == NONE else f"{one.scheme.upper()} {one.rounding}, "
            lacking.setdefault((kind, missing), []).append(one.word_length)
    if lacking:
        named = "; ".join(
            f"{kind}{', '.join(bits)} bits ({missing})" for (kind, missing), bits in lacking.items()
        )
        yield f"Not run (in brackets: how many {study.repetition}s are missing): {named}."


def percent(values: dict[int, float]) -> str:
    mean, spread = _mean_and_spread(values)
    return f"{mean:.2f}%{spread}"


def points(values: dict[int, float]) -> str:
    mean, spread = _mean_and_spread(values)
    return f"{mean:+.2f}{spread} points"


def _mean_and_spread(values: dict[int, float]) -> tuple[float, str]:
    """In hundredths; of one value there is no spread."""
    numbers = [100 * value for value in values.values()]
    spread = f" ± {statistics.stdev(numbers):.2f}" if len(numbers) > 1 else ""
    return statistics.mean(numbers), spread


def figures(rows: Rows) -> list[dict[str, object]]:
    """Everything that the page rests on."""
    return [
        {
            "experiment": name,
            "scheme": row.setting.scheme,
            "word_length": row.setting.bits,
            "rounding": row.setting.rounding,
            "weights": row.setting.weights,
            "accuracies": {str(place): value for place, value in row.accuracies.items()},
            "footprint_bits": row.bits,
            "baseline_footprint_bits": row.baseline_bits,
        }
        for name, found in rows.items()
        for row in found
    ]


def read_figures(path: Path) -> Rows:
    """The rows that :func:`figures` was made of."""
    rows: Rows = {}
    for one in json.loads(path.read_text(encoding="utf-8")):
        accuracies = {int(place): value for place, value in one["accuracies"].items()}
        found = rows.setdefault(one["experiment"], [])
        baselines = found[0].accuracies if found else accuracies
        losses = {place: baselines[place] - value for place, value in accuracies.items()}
        setting = Setting(one["scheme"], one["word_length"], one["rounding"], one.get("weights"))
        sizes = one["footprint_bits"], one["baseline_footprint_bits"]
        found.append(Row(setting, accuracies, losses, *sizes))
    return rows
