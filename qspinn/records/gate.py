"""What the gate has seen of a candidate: how its training went, and why it was stopped, if it was.

A file of its own beside the record, or instead of it; it is never taken for a record.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from qspinn.records.files import read_regular
from qspinn.records.json_text import parse_json
from qspinn.records.store import write_json
from qspinn.records.validation import RecordError, fail, integer, mapping, number, plain, text

GATE_SCHEMA_VERSION = 1

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
        number("share", self.share, 0.0)
        if self.validation_accuracy is not None:
            number("validation_accuracy", self.validation_accuracy, 0.0, 1.0)
        for progress, accuracy in mapping("curve", self.curve).items():
            number(f"curve.{progress}", accuracy, 0.0, 1.0)
            try:
                number("curve", float(progress), 0.0, 1.0)
            except ValueError as error:
                raise fail("curve", progress, "keys that are numbers in [0, 1]") from error
        object.__setattr__(self, "settings", plain("settings", mapping("settings", self.settings)))
        object.__setattr__(self, "curve", plain("curve", self.curve))
        if self.drift is not None:
            object.__setattr__(self, "drift", plain("drift", mapping("drift", self.drift)))
        for name in ("config_hash", "baseline_key", "setting_key", "created"):
            text(name, getattr(self, name))
        integer("seed", self.seed)
        if self.data_fingerprint is not None:
            text("data_fingerprint", self.data_fingerprint)

    @property
    def points(self) -> dict[float, float]:
        """The curve with numbers for the progress."""
        return {float(progress): accuracy for progress, accuracy in self.curve.items()}


_NAMES = {*(item.name for item in fields(GateReport)), "schema_version"}


def write_gate_report(report: GateReport, path: str | os.PathLike[str]) -> Path:
    """Write a report atomically; `path` is the file.

    Returns:
        The path of the file written.
    """
    return write_json({**vars(report), "schema_version": GATE_SCHEMA_VERSION}, path)


def read_gate_report(path: str | os.PathLike[str]) -> GateReport:
    """Read a report.

    Raises:
        RecordError: The file cannot be read, or holds no report; the message names it.
    """
    try:
        values = parse_json(read_regular(path).decode("utf-8-sig"))
        if not isinstance(values, dict):
            raise ValueError(f"expected an object, got {type(values).__name__}")
        if values.pop("schema_version", None) != GATE_SCHEMA_VERSION:
            raise ValueError(f"schema_version is not {GATE_SCHEMA_VERSION}")
        if unknown := sorted(set(values) - _NAMES):
            raise ValueError(f"unknown field {unknown[0]!r}")
        if missing := sorted(_NAMES - set(values) - {"schema_version"}):
            raise ValueError(f"field {missing[0]!r} is missing")
        return GateReport(**values)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise RecordError(f"{path}: {error}") from error
