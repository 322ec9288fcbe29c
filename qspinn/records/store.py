"""Record files: written atomically, found below folders."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from qspinn.atomic import write_text
from qspinn.records.globs import Trouble, entries_of, is_folder, matches
from qspinn.records.run_record import RunRecord

RECORD_NAME = "record.json"
FAILURE_NAME = "failure.json"
GATE_NAME = "gate.json"
# What says how a run ended, in the order in which it counts.
_OUTCOMES = (RECORD_NAME, FAILURE_NAME, GATE_NAME)
_TIMES = ("seconds", "created")
# Folders of a run that hold no further runs.
_INSIDE = ("checkpoints", "wandb", ".hydra")


def write_json(value: Any, path: str | os.PathLike[str]) -> Path:
    """Write plain types as deterministic JSON, so that a reader sees all of it or the old file.

    Sorted keys, two spaces, no NaN, a final newline. The text goes to a temporary file in the
    same folder, is forced to the disk and then renamed over `path`. Folders are made.
    """
    return write_text(json.dumps(value, sort_keys=True, indent=2, allow_nan=False) + "\n", path)


def write_record(record: RunRecord, path: str | os.PathLike[str]) -> Path:
    """Write a record atomically; `path` is the file, or an existing folder to hold `record.json`.

    Returns:
        The path of the file written.
    """
    target = Path(path)
    return write_json(record.to_dict(), target / RECORD_NAME if target.is_dir() else target)


def comparable(record: RunRecord) -> dict[str, Any]:
    """The record without wall-clock seconds and time stamps: equal for two equal runs."""
    return {key: value for key, value in record.to_dict().items() if key not in _TIMES}


def find_records(
    roots: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
) -> Iterator[Path]:
    """Paths of record files, each once, in a fixed order.

    Args:
        roots: Folders (searched at any depth for `record.json`), record files, or globs of either
            (`outputs/2026-*`, `**` for any depth); one or several. Links to folders below a
            root are not followed.

    Raises:
        FileNotFoundError: A root is no file, no folder, and matches nothing as a glob.
    """
    for path in find_outcomes(roots):
        if os.path.basename(path) not in (FAILURE_NAME, GATE_NAME):
            yield Path(path)


def find_outcomes(
    roots: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    trouble: Trouble | None = None,
) -> Iterator[str]:
    """Like `find_records`, and `failure.json` or else `gate.json` of folders without a record.

    Args:
        roots: As above.
        trouble: Called with each folder that cannot be looked into, and why; None: it is passed
            over. One that has gone meanwhile is no trouble.
    """
    if isinstance(roots, (str, os.PathLike)):
        roots = [roots]
    seen: set[str] = set()
    for root in roots:
        for match in matches(os.fspath(root), trouble):
            real_root = os.path.realpath(match)
            for path, is_link in _below(match, trouble):
                # Below a folder only the file itself can be a link: asking for the real path of
                # each of many files is slow.
                real = os.path.realpath(path) if is_link else real_root + path[len(match) :]
                if real not in seen:
                    seen.add(real)
                    yield path


def _below(path: str, trouble: Trouble | None) -> Iterator[tuple[str, bool]]:
    """Files of outcomes in a folder and below it, however deep, and whether each is a link."""
    if not os.path.isdir(path):
        yield path, True
        return
    waiting = [path]
    while waiting:
        folder = waiting.pop()
        found = entries_of(folder, trouble)
        if found is None:
            continue
        files = {entry.name: entry for entry in found if entry.name in _OUTCOMES}
        files = {name: entry for name, entry in files.items() if not is_folder(entry, True)}
        outcome = next((files[name] for name in _OUTCOMES if name in files), None)
        if outcome is not None:
            yield outcome.path, outcome.is_symlink()
        skipped = _INSIDE if outcome is not None else ()
        names = sorted(
            entry.name for entry in found if entry.name not in skipped and is_folder(entry, False)
        )
        waiting += (os.path.join(folder, name) for name in reversed(names))
