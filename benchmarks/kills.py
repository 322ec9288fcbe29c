"""Runs of train.py ended by signals at random moments: are their records those of unbroken runs?

    python benchmarks/kills.py                            # 50 times SIGKILL over five runs
    python benchmarks/kills.py --signal TERM --kills 20   # and the exit codes
    python benchmarks/kills.py --signal INT --kills 20
    python benchmarks/kills.py --kills 5 --only STDP      # one of the five

Each of five tiny runs is done once undisturbed. Then it is started in a new folder, ended after a
random part of the time that it took, started again, and so on; in the end it is left alone. A run
that had ended by itself, which the exit code 0 says, does not count as ended. Every record must
equal that of the undisturbed run, but for times and dates. What SIGTERM and SIGINT end must exit
with 143 and 130, and leave neither a traceback nor a failure.json. These two are sent when the
program handles signals, which it does as soon as Python itself has started.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from measuring import ROOT

from qspinn.records import comparable, find_outcomes, read_record

CONV = (
    "network.channels=[4,4,4]",
    "network.kernel_sizes=[5,3,3]",
    "network.population=2",
    "network.time_steps=2",
    "network.neuron.v_threshold=0.3",
    "data.batch_size=16",
    "trainer.limit_train_batches=20",
    "trainer.max_epochs=8",
    "quantization.calibration_batches=2",
)
STDP = (
    "experiment=unsupervised_quick",
    "network.neurons=9",
    "network.time_steps=30",
    "data.batch_size=50",
    "learning.labelling_images=150",
    "trainer.limit_train_batches=20",
    "trainer.limit_test_batches=1",
    "trainer.max_epochs=4",
)
ALONE = "baselines.dir=null"
STOCHASTIC = ("quantization.scheme=itq", "quantization.rounding=stochastic")
IN_A_ROW = 5


@dataclass
class Case:
    """Commands that run at the same time, each with its own arguments."""

    name: str
    commands: list[list[str]]
    seconds: float = 0.0
    ended: int = 0
    codes: dict[int, int] = field(default_factory=dict)
    equal: int = 0
    different: list[str] = field(default_factory=list)


def cases() -> list[Case]:
    """The five runs; {} stands for their folder."""
    single, sweep = "hydra.run.dir={}/run", "hydra.sweep.dir={}/sweep"
    grid = ["-m", *CONV, ALONE, "launcher=workers", "exploration.workers=2", sweep]
    waiting = [
        [
            *CONV,
            "baselines.dir={}/store",
            f"quantization.word_length={n}",
            f"hydra.run.dir={{}}/{n}",
        ]
        for n in (4, 5, 6)
    ]
    return [
        Case("PTQ", [[*CONV, ALONE, "quantization.scheme=ptq", single]]),
        Case("ITQ, stochastic", [[*CONV, ALONE, *STOCHASTIC, single]]),
        Case("STDP", [[*STDP, ALONE, *STOCHASTIC, single]]),
        Case("grid, 2 workers", [[*grid, "quantization.word_length=4,6", "seed=0,1"]]),
        Case("baseline, 2 waiting", waiting),
    ]


def start(case: Case, folder: Path) -> list[subprocess.Popen[bytes]]:
    """Start the commands of a case in a folder."""
    environment = {**os.environ, "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    processes = []
    for arguments in case.commands:
        filled = [argument.replace("{}", str(folder)) for argument in arguments]
        command = [sys.executable, "train.py", *filled, "progress=none", "trainer.accelerator=cpu"]
        with open(folder / "output.log", "ab") as log:
            processes.append(
                subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )
    return processes


def records(folder: Path) -> dict[str, object]:
    """The records of a folder by their places, without what differs between equal runs."""
    found = [Path(path) for path in find_outcomes(folder)]
    return {str(path.relative_to(folder)): comparable(read_record(path)) for path in found}


def end(case: Case, folder: Path, number: signal.Signals, chance: random.Random) -> bool:
    """Start the case and end all its commands at a random moment; whether any had not yet ended."""
    processes = start(case, folder)
    time.sleep(chance.random() * case.seconds)
    if number != signal.SIGKILL:
        for process in processes:
            wait_for_handler(process)
    for process in processes:
        process.send_signal(number)
    codes = [process.wait(timeout=300) for process in processes]
    for code in codes:
        case.codes[code] = case.codes.get(code, 0) + 1
    case.ended += any(codes)
    return any(codes)


def wait_for_handler(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process handles SIGTERM, or has ended, where Linux says so."""
    status, mask = Path(f"/proc/{process.pid}/status"), 1 << (signal.SIGTERM - 1)
    while process.poll() is None:
        try:
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except OSError:
            return
        if int(lines.get("SigCgt", "0"), 16) & mask:
            return
        time.sleep(0.01)


def left_behind(folder: Path) -> list[str]:
    """What no signal but SIGKILL may leave: errors."""
    found = [f"{path} was written" for path in folder.rglob("failure.json")]
    logs = [folder / "output.log", *folder.rglob("output.txt")]
    found += [
        f"{path} has a traceback"
        for path in logs
        if path.exists() and "Traceback" in path.read_text(encoding="utf-8", errors="replace")
    ]
    return found


def finish(case: Case, folder: Path, expected: dict[str, object]) -> None:
    """Start the case once more, leave it alone, and compare."""
    codes = [process.wait(timeout=600) for process in start(case, folder)]
    found = records(folder)
    for place, record in expected.items():
        if found.get(place) == record:
            case.equal += 1
        else:
            case.different.append(f"{folder / place} (exit codes {codes})")
    extra = set(found) - set(expected)
    case.different += [f"{folder / place} should not be there" for place in sorted(extra)]


def end_often(
    case: Case,
    folder: Path,
    expected: dict[str, object],
    most: int,
    number: signal.Signals,
    chance: random.Random,
) -> None:
    """End the case so many times; what had ended by itself does not count."""
    turn = 0
    while case.ended < most:
        place = folder.with_name(f"{folder.name}-{turn}")
        place.mkdir()
        for _ in range(min(IN_A_ROW, most - case.ended)):
            if not end(case, place, number, chance):
                case.seconds *= 0.9  # perhaps the machine is faster now
                break
        if number != signal.SIGKILL:
            case.different += left_behind(place)
        finish(case, place, expected)
        turn += 1
        print(f"{case.name}: ended {case.ended} times of {most}", flush=True)


def main() -> None:
    """Do it, print a table, and exit with 1 if a record differs or an exit code is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--signal", choices=("KILL", "TERM", "INT"), default="KILL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=[case.name for case in cases()], help="one of the runs")
    parser.add_argument("--folder", type=Path, help="kept; default: a temporary one")
    options = parser.parse_args()
    number = signal.Signals[f"SIG{options.signal}"]
    # A shell starts what runs in the background with SIGINT ignored, which children inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = Path(options.folder or tempfile.mkdtemp(prefix="kills-")).absolute()
    chance = random.Random(options.seed)
    chosen = [case for case in cases() if options.only in (None, case.name)]
    expected = {}
    for index, case in enumerate(chosen):
        for time_of in ("first", "whole"):  # the first one compiles what the others find compiled
            place = folder / f"{index}-{time_of}"
            place.mkdir(parents=True)
            began = time.monotonic()
            codes = [process.wait(timeout=600) for process in start(case, place)]
            case.seconds = time.monotonic() - began
            if any(codes):
                raise SystemExit(f"{case.name}: exit codes {codes}, see {place / 'output.log'}")
        expected[case.name] = records(place)
        print(f"{case.name}: {case.seconds:.0f} s, {len(expected[case.name])} records", flush=True)
    for index, case in enumerate(chosen):
        most = options.kills // len(chosen) + (index < options.kills % len(chosen))
        end_often(case, folder / str(index), expected[case.name], most, number, chance)
    report(chosen, options.signal)
    right = {"KILL": {-9, 0}, "TERM": {143, 0}, "INT": {130, 0}}[options.signal]
    wrong = [case for case in chosen if case.different or set(case.codes) - right]
    if options.folder is None and not wrong:
        shutil.rmtree(folder)
    raise SystemExit(1 if wrong else 0)


def report(chosen: list[Case], name: str) -> None:
    """Print the table."""
    print(f"\n| run | times ended by SIG{name} | exit codes | records equal | records different |")
    print("|---|---|---|---|---|")
    for case in chosen:
        codes = ", ".join(f"{code}: {count}" for code, count in sorted(case.codes.items()))
        print(f"| {case.name} | {case.ended} | {codes} | {case.equal} | {len(case.different)} |")
    for case in chosen:
        for line in case.different:
            print(f"different: {line}")


if __name__ == "__main__":
    main()
