"""What ``python -m qspinn.explain`` does: one run in the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from qspinn.records import (
    FAILURE_NAME,
    RECORD_NAME,
    RecordError,
    RunRecord,
    find_records,
    printable_lines,
    read_failure,
    read_record,
    shortened,
)
from qspinn.report.explain import explained

USAGE = """\
Explain one run: what was quantised, what it costs, and how it behaves.

  python -m qspinn.explain run=outputs/2026-01-31/12-00-00

run=  the output folder of a run, or its record.json
"""
SHOWN = 5


def record_of(path: str) -> RunRecord:
    """Return the record that a file or folder holds.

    Raises:
        RecordError: There is none, or more than one, or it cannot be read.
    """
    if not os.path.isdir(path):
        return read_record(path)
    own = os.path.join(path, RECORD_NAME)
    if os.path.isfile(own):
        return read_record(own)
    found = list(find_records(path))
    if len(found) == 1:
        return read_record(found[0])
    if found:
        names = [str(one.parent) for one in found[:SHOWN]]
        rest = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise RecordError(
            f"{path} holds {len(found)} runs; write run= with one of {', '.join(names)}{rest}"
        )
    failure = os.path.join(path, FAILURE_NAME)
    if os.path.isfile(failure):
        failed = read_failure(failure)
        raise RecordError(f"{path}: the run failed with {failed.error}: {failed.message}")
    raise RecordError(f"{path} holds no {RECORD_NAME}: a run writes it when it has ended")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the run that the command line names.

    Exits with 2 on a wrong command line, and with 1 if there is no such run.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given in (["-h"], ["--help"]):
        print(USAGE, end="")
        return
    name, _, path = given[0].partition("=") if len(given) == 1 else ("", "", "")
    if name != "run" or not path:
        _exit(f"one argument is needed, got {' '.join(given) or 'none'}\n\n{USAGE}", 2)
    try:
        record = record_of(path)
    except (RecordError, OSError) as error:
        _exit(str(error), 1)
    print("\n".join(explained(record)))


def _exit(message: str, code: int) -> NoReturn:
    print(f"explain: {printable_lines(shortened(message))}".rstrip(), file=sys.stderr)
    raise SystemExit(code)
