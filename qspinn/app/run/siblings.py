"""The results of other candidates of a grid, in the folders beside one."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from qspinn.records import (
    GATE_NAME,
    RECORD_NAME,
    GateReport,
    RecordError,
    RecordReader,
    RunRecord,
    baseline_key_of,
    read_gate_report,
    setting_key_of,
)
from qspinn.selection.pareto import Point
from qspinn.selection.search.gating import Curve

_READER = RecordReader()
_READ: dict[str, tuple[tuple[int, int], RunRecord | GateReport | None]] = {}
"""Path to (modification time, size) of a file and its content."""


@dataclass
class Siblings:
    """Candidates with the same 32-bit network, and what is known of settings with other seeds.

    Attributes:
        points: (share of the 32-bit footprint, validation accuracy) of those with a record.
        trainings: Share and curve of those that learned in fixed point.
        stopped: Setting key to seed and reason, of candidates with other seeds that were stopped.
        passed: Setting key to seed, of those that were evaluated in full.
    """

    points: list[Point] = field(default_factory=list)
    trainings: list[tuple[float, Curve]] = field(default_factory=list)
    stopped: dict[str, tuple[int, str]] = field(default_factory=dict)
    passed: dict[str, int] = field(default_factory=dict)


def read_siblings(folder: Path, key: str, fingerprint: str | None) -> Siblings:
    """Read what lies in the folders beside that of a candidate; unreadable files are skipped.

    What counts has the same baseline key, and the same fingerprint of its data.
    """
    found = Siblings()
    try:
        with os.scandir(folder.parent) as entries:
            places = sorted(entry.path for entry in entries if entry.is_dir())
    except OSError:
        return found
    for place in places:
        if os.path.basename(place) == folder.name:
            continue
        record, report = _read(place, RECORD_NAME), _read(place, GATE_NAME)
        if isinstance(record, RunRecord) and _is_alike(record, key, fingerprint):
            assert record.validation_accuracy is not None
            found.points.append((record.share, record.validation_accuracy))
        if isinstance(record, RunRecord) and _is_evaluated(record, fingerprint):
            found.passed.setdefault(setting_key_of(record), record.seed)
        if isinstance(report, GateReport) and report.data_fingerprint == fingerprint:
            if report.baseline_key == key and report.curve:
                found.trainings.append((report.share, report.points))
            if report.stopped is not None and record is None:
                found.stopped.setdefault(report.setting_key, (report.seed, report.stopped))
    return found


def _is_alike(record: RunRecord, key: str, fingerprint: str | None) -> bool:
    return _is_evaluated(record, fingerprint) and baseline_key_of(record) == key


def _is_evaluated(record: RunRecord, fingerprint: str | None) -> bool:
    return (
        record.status == "completed"
        and record.scheme != "none"
        and record.validation_accuracy is not None
        and record.data_fingerprint == fingerprint
    )


def _read(place: str, name: str) -> RunRecord | GateReport | None:
    path = os.path.join(place, name)
    try:
        state = os.stat(path)
    except OSError:
        return None
    changes = state.st_mtime_ns, state.st_size
    if path not in _READ or _READ[path][0] != changes:
        try:
            held = _READER.read(path) if name == RECORD_NAME else read_gate_report(path)
        except RecordError:
            held = None
        _READ[path] = changes, held
    return _READ[path][1]
