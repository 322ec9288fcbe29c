"""Record files: written atomically, read with errors that name the file, found below folders."""

from __future__ import annotations

import glob
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from qspinn.records.run_record import RunRecord
from qspinn.records.validation import RecordError

__all__ = [
    "RECORD_NAME",
    "comparable",
    "find_records",
    "read_record",
    "write_json",
    "write_record",
]

RECORD_NAME = "record.json"
_TIMES = ("seconds", "created")


def write_json(value: Any, path: str | os.PathLike[str]) -> Path:
    """Write plain types as deterministic JSON, so that a reader sees all of it or the old file.

    Sorted keys, two spaces, no NaN, a final newline. The text goes to a temporary file in the
    same folder, is forced to the disk and then renamed over `path`. Folders are made.
    """
    target = Path(path)
    encoded = json.dumps(value, sort_keys=True, indent=2, allow_nan=False) + "\n"
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "x", encoding="utf-8", newline="\n") as file:
            file.write(encoded)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return target


def write_record(record: RunRecord, path: str | os.PathLike[str]) -> Path:
    """Write a record atomically; `path` is the file, or an existing folder to hold `record.json`.

    Returns:
        The path of the file written.
    """
    target = Path(path)
    return write_json(record.to_dict(), target / RECORD_NAME if target.is_dir() else target)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON: a record holds finite numbers only")


def read_record(path: str | os.PathLike[str]) -> RunRecord:
    """Read and check one record file.

    Raises:
        RecordError: The file is missing, unreadable, not JSON (half-written), of another schema
            version, or holds a wrong value. The message names the file, the field and the value.
    """
    try:
        raw = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise RecordError(f"{path}: no such file") from error
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror})") from error
    if not raw.strip():
        raise RecordError(f"{path}: the file is empty")
    try:
        values = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: corrupt or half-written JSON ({error})") from error
    try:
        return RunRecord.from_dict(values)
    except RecordError as error:
        raise RecordError(f"{path}: {error}", error.field) from error


def comparable(record: RunRecord) -> dict[str, Any]:
    """The record without wall-clock seconds and time stamps: equal for two equal runs."""
    return {key: value for key, value in record.to_dict().items() if key not in _TIMES}


def find_records(
    roots: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
) -> Iterator[Path]:
    """Paths of record files, each once, in a fixed order.

    Args:
        roots: Folders (searched at any depth for `record.json`), record files, or globs of either
            (`outputs/2026-*`, `**` for any depth); one or several.

    Raises:
        FileNotFoundError: A root is no file, no folder, and matches nothing as a glob.
    """
    if isinstance(roots, (str, os.PathLike)):
        roots = [roots]
    seen: set[str] = set()
    for root in roots:
        for match in _matches(os.fspath(root)):
            for path in _below(match):
                real = os.path.realpath(path)
                if real not in seen:
                    seen.add(real)
                    yield Path(path)


def _matches(root: str) -> list[str]:
    if os.path.exists(root):
        return [root]
    matches = sorted(glob.glob(root, recursive=True))
    if not matches:
        raise FileNotFoundError(f"{root!r} is no file, no folder and matches nothing as a glob")
    return matches


def _below(path: str) -> Iterator[str]:
    if not os.path.isdir(path):
        yield path
        return
    for folder, subfolders, files in os.walk(path):
        subfolders.sort()
        if RECORD_NAME in files:
            yield os.path.join(folder, RECORD_NAME)
