"""What a run that failed leaves behind: a file of its own, which is never taken for a record."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from qspinn.records.files import read_regular
from qspinn.records.json_text import parse_json
from qspinn.records.store import write_json
from qspinn.records.validation import RecordError, fail, mapping, plain, text

FAILURE_SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class RunFailure:
    """A run that ended with an error.

    Attributes:
        error: Class of the error.
        message: What it said.
        traceback: Where it came from; empty where there is none (a process that was killed).
        config: The resolved configuration, as far as it could be resolved.
        created: ISO 8601 date and time.
    """

    error: str
    message: str
    traceback: str
    config: dict[str, Any]
    created: str

    def __post_init__(self) -> None:
        text("error", self.error)
        text("created", self.created)
        for name in ("message", "traceback"):
            if not isinstance(getattr(self, name), str):
                raise fail(name, getattr(self, name), "a string")
        object.__setattr__(self, "config", plain("config", mapping("config", self.config)))


_NAMES = {*(item.name for item in fields(RunFailure)), "schema_version"}


def write_failure(failure: RunFailure, path: str | os.PathLike[str]) -> Path:
    """Write a failure atomically; `path` is the file.

    Returns:
        The path of the file written.
    """
    return write_json({**vars(failure), "schema_version": FAILURE_SCHEMA_VERSION}, path)


def read_failure(path: str | os.PathLike[str]) -> RunFailure:
    """Read a failure.

    Raises:
        RecordError: The file cannot be read, or holds no failure; the message names it.
    """
    try:
        values = parse_json(read_regular(path).decode("utf-8-sig"))
        if not isinstance(values, dict):
            raise ValueError(f"expected an object, got {type(values).__name__}")
        if "schema_version" not in values:
            raise ValueError("field 'schema_version' is missing: this is no failure of a run")
        if missing := sorted(_NAMES - set(values)):
            raise ValueError(f"field {missing[0]!r} is missing")
        if unknown := sorted(set(values) - _NAMES):
            raise ValueError(f"unknown field {unknown[0]!r}; known: {', '.join(sorted(_NAMES))}")
        version = values.pop("schema_version")
        if type(version) is not int or version != FAILURE_SCHEMA_VERSION:
            raise ValueError(f"schema_version is not {FAILURE_SCHEMA_VERSION}")
        return RunFailure(**values)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise RecordError(f"{path}: {error}") from error
