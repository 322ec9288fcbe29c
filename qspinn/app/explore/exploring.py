"""Candidates, evaluated one after the other in this process or in several."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from qspinn.app.compose.completing import complete, to_plain
from qspinn.app.errors import is_whole, refused
from qspinn.app.explore.workers import Died, map_in_workers
from qspinn.app.folder.failures import ProcessDied, record_failure
from qspinn.app.folder.folder import RunFolder
from qspinn.app.folder.identity import check_fresh
from qspinn.app.folder.lock import holder_of
from qspinn.app.paths import start_folder, started_in
from qspinn.app.run.gate import CandidateStopped
from qspinn.app.run.train import train
from qspinn.records import RunRecord
from qspinn.report.cells import is_partly_quantized, quantized_shares


@dataclass(frozen=True)
class Candidate:
    """A run to be done.

    Attributes:
        config: What ``conf/train.yaml`` composes.
        folder: Its output folder.
        start: Where the command was started: another process knows only this.
        waits: Whether to wait for another launcher that is running it, or to leave it for later.
    """

    config: DictConfig
    folder: Path
    start: Path = field(default_factory=start_folder)
    waits: bool = field(default=True, compare=False)


@dataclass(frozen=True)
class Evaluation:
    """The outcome of a candidate.

    Attributes:
        candidate: The candidate.
        record: Its record; None where there is none.
        error: The error in ``failure.json``; None: it did not fail.
        seconds: Duration.
        stopped: Why the gate has stopped it; None: it did not.
    """

    candidate: Candidate
    record: RunRecord | None
    error: str | None
    seconds: float
    stopped: str | None = None

    def __str__(self) -> str:
        if self.record is not None:
            came = _accuracy(self.record)
        else:
            came = f"failed: {self.error}" if self.stopped is None else f"stopped: {self.stopped}"
        return f"{self.candidate.folder.name}  {came}  {self.seconds:.1f} s"


def check_workers(workers: object) -> int:
    """Return the number of processes, if it is valid."""
    if not is_whole(workers) or workers < 1:
        raise refused("exploration.workers", workers, "a number of processes, 1 or more")
    return workers


def explore(candidates: Sequence[Candidate], workers: int = 1) -> Iterator[Evaluation]:
    """Evaluate candidates, and yield the outcome of each as soon as it is done.

    All that a candidate prints goes to ``output.txt`` in its folder. One that fails leaves a
    ``failure.json`` there and stops nothing, not even if its process is killed. One that another
    launcher is running comes last, with what that launcher records.

    Args:
        candidates: Each with a folder of its own.
        workers: Processes. 1: all in this one, in order.

    Raises:
        WorkersCannotStart: No process starts its first candidate.
    """
    taken = []
    for candidate, result in _evaluated_by(
        [replace(candidate, waits=False) for candidate in candidates], workers
    ):
        if isinstance(result, Taken):
            taken.append(replace(candidate, waits=True))
        else:
            yield result
    for _, result in _evaluated_by(taken, workers):
        assert isinstance(result, Evaluation)
        yield result


def _evaluated_by(
    candidates: Sequence[Candidate], workers: int
) -> Iterator[tuple[Candidate, Evaluation | Taken]]:
    """Evaluate candidates in processes, and yield each with its outcome."""
    if workers == 1 or len(candidates) < 2:
        yield from ((candidate, evaluate(candidate)) for candidate in candidates)
        return
    for index, result in map_in_workers(evaluate, candidates, workers):
        candidate = candidates[index]
        if isinstance(result, Died):
            death = ProcessDied(str(result))
            record_failure(candidate.config, candidate.folder, death)
            result = Evaluation(candidate, None, str(death), 0.0)
        yield candidate, result


@dataclass(frozen=True)
class Taken:
    """A candidate that another launcher is running at this moment."""


def evaluate(candidate: Candidate) -> Evaluation | Taken:
    """Run one candidate; errors of the candidate are not raised."""
    if not candidate.waits and holder_of(candidate.folder) is not None:
        return Taken()
    started = time.monotonic()
    record = error = stopped = None
    with started_in(candidate.start):
        try:
            folder = RunFolder(candidate.folder)
            with folder.held(held_config(candidate.config)):
                record, error = _evaluated(candidate, folder)
        except CandidateStopped as stop:
            stopped = str(stop)
        except Exception as caught:
            error = record_failure(candidate.config, candidate.folder, caught).message
    return Evaluation(candidate, record, error, time.monotonic() - started, stopped)


def _evaluated(candidate: Candidate, folder: RunFolder) -> tuple[RunRecord | None, str | None]:
    """Run a candidate whose folder is locked; return its record, or its error."""
    folder.start_output()
    with (
        open(folder.output, "a", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        try:
            return train(candidate.config, candidate.folder), None
        except CandidateStopped:
            raise
        except Exception as caught:
            return None, record_failure(candidate.config, candidate.folder, caught).message


def held_config(config: DictConfig) -> dict[str, Any]:
    """Return the configuration by which the folder of a run is locked."""
    values = to_plain(complete(config))
    check_fresh(values["fresh"])
    return values


def report(evaluations: Iterable[Evaluation], count: int) -> list[Evaluation]:
    """Print a line for each of so many evaluations as it comes, and return them."""
    done = []
    for evaluation in evaluations:
        done.append(evaluation)
        print(f"[{len(done)}/{count}] {evaluation}", flush=True)
    return done


def _accuracy(record: RunRecord) -> str:
    data = "test" if record.validation_accuracy is None else "validation"
    measured = record.measured_on(data) or record
    partly = f" (quantised: {quantized_shares(record)} of parameters / states)"
    return (
        f"{data} accuracy {100 * measured.accuracy:.2f}%  {record.footprint_bits:,} bits"
        f"{partly if is_partly_quantized(record) else ''}"
    )
