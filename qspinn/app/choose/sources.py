"""Where select.py takes runs from: folders, tables and W&B."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from os.path import basename, isdir

from qspinn.records import (
    FAILURE_NAME,
    GATE_NAME,
    RecordError,
    RecordReader,
    find_outcomes,
    printable,
    read_failure,
    read_gate_report,
    shortened,
)
from qspinn.selection import Run

WANDB = "wandb:"


@dataclass
class Sources:
    """What was found.

    Attributes:
        runs: Those that can be compared.
        skipped: A line for each record that cannot be used, with the reason.
        failed: A line for each run that ended with an error and left no record, with the error.
        stopped: A line for each run that the gate has stopped, with the reason.
    """

    runs: list[Run] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)


def read_sources(roots: Sequence[str]) -> Sources:
    """Read every record below the roots, of tables, and of W&B.

    Args:
        roots: Folders, record files or globs; names that end with `.csv`; and
            `wandb:entity/project` or `wandb:entity/project/sweep`.

    Raises:
        FileNotFoundError: A root is no file, no folder and matches nothing as a glob.
        RecordError: A table cannot be read.
        ConfigurationError: W&B cannot be reached.
    """
    found = Sources()
    _read_files([root for root in roots if not _is_special(root)], found)
    for root in filter(_is_special, roots):
        if root.startswith(WANDB):
            # Importing wandb takes a second: only where it is needed.
            from qspinn.app.tracking.source import read_wandb

            items = read_wandb(root[len(WANDB) :])
        else:
            from qspinn.report.table import read_table

            items = read_table(root)
        for item in items:
            if isinstance(item, Run):
                found.runs.append(Run(printable(item.path), item.record))
            else:
                found.skipped.append(_line(item))
    return found


def _is_special(root: str) -> bool:
    return root.startswith(WANDB) or (root.lower().endswith(".csv") and not isdir(root))


def _read_files(roots: Sequence[str], found: Sources) -> None:
    reader = RecordReader()

    def trouble(folder: str, error: OSError) -> None:
        found.skipped.append(_line(f"{folder}: cannot be looked into ({error.strerror or error})"))

    for path in find_outcomes(roots, trouble):
        try:
            if basename(path) == FAILURE_NAME:
                failure = read_failure(path)
                message = failure.message.strip().partition("\n")[0]
                found.failed.append(_line(f"{path}: {failure.error}: {message}"))
            elif basename(path) == GATE_NAME:
                report = read_gate_report(path)
                if report.stopped is not None:
                    found.stopped.append(_line(f"{path}: {report.stopped}"))
            else:
                found.runs.append(Run(printable(path), reader.read(path)))
        except RecordError as error:
            found.skipped.append(_line(str(error)))


def _line(text: str) -> str:
    return printable(shortened(text))
