"""The file of a run that failed."""

import json

import pytest

from qspinn.records import RecordError, RunFailure, find_records, read_failure, write_failure

FIELDS = {
    "error": "ValueError",
    "message": "no",
    "traceback": "Traceback ...",
    "config": {"seed": 1},
    "created": "2026-01-01T00:00:00+00:00",
}


def test_what_is_written_is_read_and_is_no_record(tmp_path):
    failure = RunFailure(**FIELDS)
    path = write_failure(failure, tmp_path / "failure.json")
    assert read_failure(path) == failure
    assert json.loads(path.read_text()) == {**FIELDS, "schema_version": 1}
    assert list(find_records(tmp_path)) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "failure.json"),
        ("{}", "schema_version"),
        (json.dumps({**FIELDS, "schema_version": 2}), "schema_version is not 1"),
        (json.dumps({**FIELDS, "schema_version": 1, "more": 1}), "more"),
        (json.dumps({**FIELDS, "schema_version": 1, "config": 5}), "config"),
        (json.dumps({**FIELDS, "schema_version": 1, "message": 5}), "message"),
    ],
)
def test_what_is_no_failure_is_refused(tmp_path, text, message):
    (tmp_path / "failure.json").write_text(text)
    with pytest.raises(RecordError, match=message):
        read_failure(tmp_path / "failure.json")
