"""What the gate leaves is read back, and never taken for a record."""

import json
import os

import pytest

from qspinn.records import (
    GateReport,
    RecordError,
    find_outcomes,
    find_records,
    read_gate_report,
    write_gate_report,
)

VALUES = {
    "stopped": "reaches 10.00% at most, and 89.00% are needed",
    "stage": "training",
    "share": 0.25,
    "validation_accuracy": None,
    "curve": {"0.1": 0.25, "0.333333": 0.5},
    "settings": {"chance": 2},
    "config_hash": "a" * 64,
    "baseline_key": "b" * 64,
    "setting_key": "c" * 64,
    "seed": 3,
    "data_fingerprint": None,
    "drift": {"agreement": 0.5, "layers": []},
    "created": "2026-01-01T00:00:00+00:00",
}


def test_it_is_read_back(tmp_path):
    report = GateReport(**VALUES)
    assert read_gate_report(write_gate_report(report, tmp_path / "gate.json")) == report
    assert report.points == {0.1: 0.25, 0.333333: 0.5}


def test_it_is_an_outcome_where_there_is_no_other(tmp_path):
    for names in (["gate.json"], ["gate.json", "record.json"], ["gate.json", "failure.json"]):
        folder = tmp_path / "+".join(names)
        folder.mkdir()
        for name in names:
            (folder / name).write_text("{}")
    found = [os.path.basename(path) for path in find_outcomes(tmp_path)]
    assert sorted(found) == ["failure.json", "gate.json", "record.json"]
    assert [path.name for path in find_records(tmp_path)] == ["record.json"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stage": "later"}, "field 'stage': got 'later'"),
        ({"stopped": None}, "field 'stage'.*null, because it was not stopped"),
        ({"share": -1}, "field 'share'"),
        ({"validation_accuracy": 1.5}, "field 'validation_accuracy'"),
        ({"curve": {"0.1": 2}}, "curve.0.1"),
        ({"curve": {"soon": 0.5}}, "keys that are numbers"),
        ({"curve": []}, "field 'curve'"),
        ({"seed": 0.5}, "field 'seed'"),
        ({"config_hash": ""}, "field 'config_hash'"),
        ({"data_fingerprint": 5}, "field 'data_fingerprint'"),
        ({"drift": 3}, "field 'drift'"),
        ({"settings": []}, "field 'settings'"),
        ({"schema_version": 9}, "schema_version is not 1"),
        ({"schema_version": True}, "schema_version is not 1"),
        ({"more": 1}, "unknown field 'more'"),
    ],
)
def test_what_cannot_be(tmp_path, change, said):
    path = tmp_path / "gate.json"
    path.write_text(json.dumps({"schema_version": 1, **VALUES, **change}))
    with pytest.raises(RecordError, match=f"gate.json: .*{said}"):
        read_gate_report(path)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "gate.json"
    with pytest.raises(RecordError, match="cannot be read"):
        read_gate_report(path)
    for text, said in (("[]", "expected an object"), ('{"stage": 1', "line 1")):
        path.write_text(text)
        with pytest.raises(RecordError, match=said):
            read_gate_report(path)
    values = {"schema_version": 1, **VALUES}
    del values["seed"]
    path.write_text(json.dumps(values))
    with pytest.raises(RecordError, match="field 'seed' is missing"):
        read_gate_report(path)
