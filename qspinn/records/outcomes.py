"""What a run leaves besides a record: why it failed, and what the gate has seen of it.

Both are files of their own, which are never taken for a record.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from qspinn.records.fields import Check, accuracy_share, config_values, optional
from qspinn.records.files import read_regular
from qspinn.records.json_text import parse_json
from qspinn.records.store import write_json
from qspinn.records.validation import RecordError, fail, integer, mapping, number, plain, text

_VERSION = 1
"""Of the layout of both files."""


def _string(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise fail(name, value, "a string")
    return value


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
        _check(self, _FAILURE_CHECKS)


_FAILURE_CHECKS: dict[str, Check] = {
    "error": text,
    "created": text,
    "message": _string,
    "traceback": _string,
    "config": config_values,
}

GATE_STAGES = ("start", "drift", "samples", "training", "validation")
"""Before anything was computed; by its drift on a few samples; by its accuracy on a few samples;
while it was trained; by its accuracy on all validation data."""


@dataclass(frozen=True, kw_only=True)
class GateReport:
    """A candidate that the gate has watched.

    Attributes:
        stopped: Why it was not evaluated in full; None: it was.
        stage: When it was stopped, one of `GATE_STAGES`; None exactly where it was not.
        share: Its footprint over that of the 32-bit network, in (0, 1] mostly.
        validation_accuracy: On all validation data; None where it did not come to that.
        drift: Against the 32-bit network on a few samples; None: not measured.
        curve: Progress of its training, as a decimal number in (0, 1], to validation accuracy.
        settings: Of the gate.
        config_hash: Of its configuration, as in its record.
        baseline_key: Likewise.
        setting_key: Likewise.
        seed: Likewise.
        data_fingerprint: Likewise; None where it is not known.
        created: ISO 8601 date and time.
    """

    stopped: str | None
    stage: str | None
    share: float
    settings: dict[str, Any]
    config_hash: str
    baseline_key: str
    setting_key: str
    seed: int
    created: str
    validation_accuracy: float | None = None
    drift: dict[str, Any] | None = None
    curve: dict[str, float] = field(default_factory=dict)
    data_fingerprint: str | None = None

    def __post_init__(self) -> None:
        if self.stopped is not None:
            text("stopped", self.stopped)
            text("stage", self.stage, choices=GATE_STAGES)
        elif self.stage is not None:
            raise fail("stage", self.stage, "null, because it was not stopped")
        _check(self, _GATE_CHECKS)

    @property
    def points(self) -> dict[float, float]:
        """The curve with numbers for the progress."""
        return {float(progress): accuracy for progress, accuracy in self.curve.items()}


def _curve(name: str, value: Any) -> Any:
    for progress, accuracy in mapping(name, value).items():
        number(f"{name}.{progress}", accuracy, 0.0, 1.0)
        try:
            number(name, float(progress), 0.0, 1.0)
        except ValueError as error:
            raise fail(name, progress, "keys that are numbers in [0, 1]") from error
    return plain(name, value)


_GATE_CHECKS: dict[str, Check] = {
    "share": partial(number, low=0.0),
    "validation_accuracy": optional(accuracy_share),
    "curve": _curve,
    "settings": config_values,
    "drift": optional(config_values),
    **dict.fromkeys(("config_hash", "baseline_key", "setting_key", "created"), text),
    "seed": integer,
    "data_fingerprint": optional(text),
}


def _check(outcome: RunFailure | GateReport, checks: dict[str, Check]) -> None:
    for name, check in checks.items():
        object.__setattr__(outcome, name, check(name, getattr(outcome, name)))


def _write(outcome: RunFailure | GateReport, path: str | os.PathLike[str]) -> Path:
    """Write it atomically, and return the path of the file written, which is `path`."""
    return write_json({**vars(outcome), "schema_version": _VERSION}, path)


Outcome = TypeVar("Outcome", RunFailure, GateReport)


def _read(kind: type[Outcome], what: str, path: str | os.PathLike[str]) -> Outcome:
    """Read it.

    Raises:
        RecordError: The file cannot be read, or holds something else; the message names it.
    """
    names = {*(item.name for item in fields(kind)), "schema_version"}
    try:
        values = parse_json(read_regular(path).decode("utf-8-sig"))
        if not isinstance(values, dict):
            raise ValueError(f"expected an object, got {type(values).__name__}")
        if "schema_version" not in values:
            raise ValueError(f"field 'schema_version' is missing: this is no {what}")
        if missing := sorted(names - set(values)):
            raise ValueError(f"field {missing[0]!r} is missing")
        if unknown := sorted(set(values) - names):
            raise ValueError(f"unknown field {unknown[0]!r}; known: {', '.join(sorted(names))}")
        version = values.pop("schema_version")
        if type(version) is not int or version != _VERSION:
            raise ValueError(f"schema_version is not {_VERSION}")
        return kind(**values)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise RecordError(f"{path}: {error}") from error


write_failure = write_gate_report = _write
read_failure = partial(_read, RunFailure, "failure of a run")
read_gate_report = partial(_read, GateReport, "report of a gate")
