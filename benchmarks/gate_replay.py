"""What the rules of the gate would have stopped of finished grids, and what was lost by it.

    python benchmarks/gate_replay.py FOLDER [FOLDER ...] [--chance 0 1 2]

Each FOLDER holds the records of a grid; grids of several networks or data are taken apart, and
those of several seeds looked at seed by seed and as a whole. The times are those of the records.
What is stopped before anything is computed costs its setup; a training that is stopped at a
validation costs its share of the fit; everything else is counted in full, also what the gate stops
after its validation, so that the speed-up is a lower bound. Looks between validations cannot be
replayed.
"""

import argparse
import csv
from pathlib import Path

import measuring  # noqa: F401  (the path, one thread)

from qspinn.records import baseline_key_of, find_records, read_record, setting_key_of
from qspinn.selection import Run, select
from qspinn.selection.search.gating import GateRules, Standing

NAME = "val/accuracy"


def curve_of(folder, epochs):
    with (folder / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get(NAME)]
    return {
        round((int(row["epoch"]) + 1) / epochs, 6): float(row[NAME])
        for row in rows
        if int(row["epoch"]) < epochs
    }


def place(run):
    """In the order of the gate."""
    record = run.record
    length = record.config["quantization"]["word_length"]
    rounding = record.rounding != "stochastic", record.rounding
    return record.seed, record.scheme == "itq", length, *rounding


def seconds_of(record):
    """Of a candidate in full; a PTQ candidate takes its 32-bit training from the store."""
    left_out = ("fit", "baseline") if record.scheme == "ptq" else ("baseline",)
    return sum(value for name, value in record.seconds.items() if name not in left_out)


def cut_short(run, standing, trainings):
    """Share of a training after which it is stopped, or None."""
    record = run.record
    epochs = record.config["trainer"]["max_epochs"]
    share = record.footprint_bits / record.baseline_footprint_bits
    curve = curve_of(Path(run.path).parent, epochs)
    seen = {}
    for progress, accuracy in sorted(curve.items()):
        seen[progress] = accuracy
        if progress < 1 and standing.falls_behind(share, progress, accuracy, trainings):
            trainings.append((share, seen))
            return progress
    trainings.append((share, curve))
    return None


def replayed(runs, rules):
    """The runs that are evaluated in full, and the seconds that all of them take."""
    kept, seconds, known, stopped, passed = [], 0.0, {}, set(), set()
    for run in sorted(runs, key=place):
        record, setting = run.record, setting_key_of(run.record)
        points, trainings = known.setdefault(baseline_key_of(record), ([], []))
        share = record.footprint_bits / record.baseline_footprint_bits
        reached, accuracy = record.validation_accuracy, record.validation_baseline_accuracy
        if setting in passed:  # it is evaluated with all seeds
            seconds += seconds_of(record)
            kept.append(run)
            points.append((share, reached))
            continue
        standing = Standing(rules, accuracy, record.validation_samples, tuple(points))
        if setting in stopped or standing.adds_too_little(share, standing.ceiling):
            stopped.add(setting)
            seconds += record.seconds["setup"]
            continue
        if record.scheme == "itq":
            done = cut_short(run, standing, trainings)
            if done is not None:
                seconds += record.seconds["setup"] + done * record.seconds["fit"]
                stopped.add(setting)
                continue
        seconds += seconds_of(record)
        if record.scheme == "itq" or not (
            standing.misses_target(reached) or standing.dominated(share, reached)
        ):
            kept.append(run)
            passed.add(setting)
            points.append((share, reached))
        else:
            stopped.add(setting)
    return kept, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--chance", type=float, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    grids = {}
    for path in find_records(arguments.folders):
        run = Run(str(path), read_record(path))
        name = f"{run.record.network}, {run.record.data}"
        grids.setdefault(f"{name}, seed {run.record.seed}", []).append(run)
        grids.setdefault(f"{name}, all seeds", []).append(run)
    print("| grid | chance | in full | at least so much faster | same model | hypervolume lost |")
    print("|---|---|---|---|---|---|")
    for name, runs in sorted(grids.items()):
        if name.endswith("all seeds") and len({run.record.seed for run in runs}) == 1:
            continue
        whole = select(runs)
        total = sum(seconds_of(run.record) for run in runs)
        for chance in arguments.chance:
            kept, seconds = replayed(runs, GateRules(chance=chance))
            found = select(kept)
            winners = [one.winner.group.path if one.winner else None for one in (found, whole)]
            print(
                f"| {name} | {chance:g} | "
                f"{len(kept)} of {len(runs)} | {total / seconds:.2f}x | "
                f"{'yes' if winners[0] == winners[1] else 'no'} | "
                f"{100 * (1 - found.hypervolume / whole.hypervolume):.2f}% |"
            )


if __name__ == "__main__":
    main()
