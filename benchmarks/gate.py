"""What the gate saves, and what it loses: a full grid against gated ones.

    python benchmarks/gate.py --data FOLDER [--cases NAME ...] [--arms full gate bold]
                              [--seeds 0 1 2] [--reuse]

Every candidate of a grid is evaluated without the gate and with it, one right after the other in
one process, so that a busy machine is as busy for both. Each grid has a folder of its own, and a
store of 32-bit trainings, the first of which is part of its time. Started again, it goes on.
--reuse saves time on a busy machine: what passes the gate, and so is evaluated in full with the
same record, is not evaluated once more; the full grid is given that record and the same time.
With --report, writes gate.json, or gate_seeds.json for several seeds, and their tables.
"""

import argparse
import itertools
import json
import math
import shutil
import time
from pathlib import Path

import measuring
from measuring import ROOT

from hydra import compose, initialize_config_dir

import qspinn.app.run.train  # registers what conf/train.yaml uses
from qspinn.app.choose.sources import read_sources
from qspinn.app.explore.exploring import Candidate, evaluate
from qspinn.app.explore.sweep import in_order
from qspinn.atomic import write_text
from qspinn.records import read_gate_report
from qspinn.selection import hypervolume, select

CASES = {
    "supervised_quick": ("case=supervised_quick",),
    "unsupervised_quick": ("case=unsupervised_quick",),
    # 20,000 of the 55,000 training images; all 5,000 validation and 10,000 test images.
    "unsupervised_mnist": ("case=unsupervised_mnist", "trainer.limit_train_batches=40"),
}
ARMS = {
    "full": ("exploration.gate.enabled=false",),
    "gate": ("exploration.gate.enabled=true",),
    "chance1": ("exploration.gate.enabled=true", "exploration.gate.chance=1"),
    "bold": ("exploration.gate.enabled=true", "exploration.gate.chance=0"),
}
GRID = [
    (scheme, length, rounding)
    for scheme in ("ptq", "itq")
    for length in (2, 3, 4, 5, 6, 8)
    for rounding in ("truncate", "nearest", "stochastic")
]


SEED = "-seed"  # between the setting and the seed in the name of a candidate


def candidates_of(case, arm, seeds, folder, data):
    made = []
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for seed, (scheme, length, rounding) in itertools.product(seeds, GRID):
            overrides = [
                *CASES[case],
                *ARMS[arm],
                *([f"data.root={data}"] if case.endswith("mnist") else []),
                "callbacks.pictures=null",
                "baselines.train_for_itq=true",
                f"baselines.dir={folder / case / arm / 'baselines'}",
                f"quantization.scheme={scheme}",
                f"quantization.word_length={length}",
                f"quantization.rounding={rounding}",
                f"seed={seed}",
            ]
            name = f"{scheme}-{rounding}-{length}{SEED}{seed}"
            place = folder / case / arm / "grid" / name
            made.append(Candidate(compose("train", overrides), place))
    # In the order of the gate, for all, so that like stands beside like.
    return made


def setting_of(path):
    """The name of a candidate without its seed."""
    return Path(path).parent.name.split(SEED)[0]


def ordered(case, arms, seeds, folder, data):
    """The candidates of each arm, in the order that the gate has them in."""
    gated = in_order(candidates_of(case, "gate", seeds, folder, data))
    names = [one.folder.name for one in gated]
    found = {}
    for arm in arms:
        by_name = {one.folder.name: one for one in candidates_of(case, arm, seeds, folder, data)}
        found[arm] = [by_name[name] for name in names]
    return found


def warm_up(folder):
    """Have every kernel compiled, and everything imported, before a clock runs."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for case in ("supervised_quick", "unsupervised_quick"):
            for scheme, length, rounding in GRID:
                if length not in (4, 8) or (case == "supervised_quick" and length == 8):
                    continue
                overrides = [
                    f"case={case}",
                    f"baselines.dir={folder / 'warm' / 'baselines'}",
                    "trainer.limit_train_batches=2",
                    "trainer.max_epochs=1",
                    "callbacks.pictures=null",
                    f"quantization.scheme={scheme}",
                    f"quantization.word_length={length}",
                    f"quantization.rounding={rounding}",
                ]
                place = folder / "warm" / case / f"{scheme}-{rounding}-{length}"
                evaluate(Candidate(compose("train", [*overrides, "fresh=true"]), place))


def run(case, arms, seeds, reuse, folder, data):
    """Evaluate the candidates that are not done, the arms by turns."""
    done_file = folder / case / "times.jsonl"
    done_file.parent.mkdir(parents=True, exist_ok=True)
    done = {(line["arm"], line["name"]) for line in lines_of(done_file)}
    found = ordered(case, arms, seeds, folder, data)
    for index, row in enumerate(zip(*found.values(), strict=True)):
        turn = list(zip(found, row, strict=True))
        turn = turn[index % len(turn) :] + turn[: index % len(turn)]  # nobody is always first
        if reuse:
            turn.sort(key=lambda pair: pair[0] == "full")
        for arm, candidate in turn:
            if (arm, candidate.folder.name) in done:
                continue
            if reuse and arm == "full" and taken(candidate, folder / case / "gate" / "grid"):
                line = [one for one in lines_of(done_file) if one["name"] == candidate.folder.name]
                line = {**next(one for one in line if one["arm"] == "gate"), "arm": "full"}
                write(line, done_file)
                continue
            started, cpu = time.monotonic(), time.process_time()
            came = evaluate(candidate)
            line = {
                "arm": arm,
                "name": candidate.folder.name,
                "wall": time.monotonic() - started,
                "cpu": time.process_time() - cpu,
            }
            if came.error is not None:
                raise SystemExit(f"{candidate.folder}: {came.error}")
            write(line, done_file)
            print(f"{case} {index + 1}/{len(GRID) * len(seeds)} {arm}: {came}", flush=True)


def lines_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def write(line, file):
    with file.open("a") as opened:
        opened.write(json.dumps(line) + "\n")


def taken(candidate, grid):
    """Whether a candidate was evaluated in full beside this one; its record is copied then."""
    record = grid / candidate.folder.name / "record.json"
    if record.exists():
        candidate.folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(record, candidate.folder / "record.json")
    return record.exists()


def outcome_of(case, arm, folder):
    """What was selected of a grid, its front, and why candidates were stopped."""
    grid = folder / case / arm / "grid"
    runs = read_sources([str(grid)]).runs
    selection = select(runs)
    stages = {}
    for path in sorted(grid.glob("*/gate.json")):
        report = read_gate_report(path)
        if report.stopped is not None:
            stages.setdefault(report.stage, []).append(path.parent.name)
    group = selection.winner.group
    return {
        "evaluated": len(runs),
        "selected": setting_of(group.path),
        "validation_accuracy": group.accuracy,
        "test_accuracy": group.reported.accuracy,
        "footprint_bits": group.footprint_bits,
        "front": sorted(setting_of(row.group.path) for row in selection.front),
        "hypervolume": selection.hypervolume,
        "test_hypervolume": test_hypervolume(selection),
        "reward": selection.winner.reward,
        "stopped": stages,
    }


def test_hypervolume(selection):
    """Of the front that validation data chose, with accuracies on test data."""
    points = [(row.group.share, row.group.reported.accuracy) for row in selection.front]
    return hypervolume(points)


def times_of(case, folder):
    sums = {}
    for line in lines_of(folder / case / "times.jsonl"):
        nothing = {"wall": 0.0, "cpu": 0.0, "ptq_cpu": 0.0, "itq_cpu": 0.0}
        of_arm = sums.setdefault(line["arm"], nothing)
        of_arm["wall"] += line["wall"]
        of_arm["cpu"] += line["cpu"]
        of_arm[f"{line['name'][:3]}_cpu"] += line["cpu"]
    return sums


def compared(case, folder):
    """All figures of a case."""
    times = times_of(case, folder)
    found = {arm: {**outcome_of(case, arm, folder), **times[arm]} for arm in ARMS if arm in times}
    full = found["full"]
    for arm, values in found.items():
        values["faster_wall"] = full["wall"] / values["wall"]
        values["faster_cpu"] = full["cpu"] / values["cpu"]
        values["hypervolume_lost"] = 1 - values["hypervolume"] / full["hypervolume"]
        lost = 1 - values["test_hypervolume"] / full["test_hypervolume"]
        values["test_hypervolume_lost"] = lost
        values["same_model"] = values["selected"] == full["selected"]
        missing = [name for name in full["front"] if name not in values["front"]]
        values["missing_of_front"] = [] if arm == "full" else missing
    return found


def table(found):
    lines = [
        "| grid | in full | CPU time | faster | selected | validation / test | hypervolume lost | "
        "on test data |",
        "|---|---|---|---|---|---|---|---|",
    ]
    full = found["full"]
    for arm, one in found.items():
        lines.append(
            f"| {arm} | {one['evaluated']} of {full['evaluated']} | {one['cpu']:.0f} s | "
            f"{one['faster_cpu']:.2f}x | "
            f"{one['selected']}{'' if one['same_model'] else ' (another)'} | "
            f"{100 * one['validation_accuracy']:.2f}% / {100 * one['test_accuracy']:.2f}% | "
            f"{100 * one['hypervolume_lost']:.2f}% | {100 * one['test_hypervolume_lost']:.2f}% |"
        )
    return lines


def main():
    assert qspinn.app.run.train
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--data", help="data.root of the cases on the full MNIST")
    parser.add_argument("--folder", type=Path, default=Path("outputs/gate"))
    parser.add_argument("--arms", nargs="+", default=["full", "gate"], choices=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--reuse", action="store_true")
    parser.add_argument("--report", type=Path, help="a folder for gate.json and tables.md")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if arguments.report is None:
        warm_up(folder)
        for case in arguments.cases:
            run(case, arguments.arms, arguments.seeds, arguments.reuse, folder, arguments.data)
    found = {case: compared(case, folder) for case in arguments.cases}
    text = "\n".join(
        line for case, one in found.items() for line in (f"## {case}", "", *table(one), "")
    )
    print(text)
    if arguments.report is not None:
        assert all(math.isfinite(one["full"]["cpu"]) for one in found.values())
        values = {"machine": measuring.processor(), "cases": found}
        name = "gate" if len(arguments.seeds) == 1 else "gate_seeds"
        write_text(json.dumps(values, indent=2) + "\n", arguments.report / f"{name}.json")
        write_text(text, arguments.report / f"{name}_tables.md")


if __name__ == "__main__":
    main()
