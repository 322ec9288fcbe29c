"""The record of one run: a frozen, versioned, self-validating description of what was measured.

A run and a selection meet only through record files. This package needs nothing but the standard
library, so that reading records starts at once.
"""

from qspinn.records.fields import SCHEMA_VERSION, SCHEMES, STATUSES, work_metrics
from qspinn.records.files import read_regular
from qspinn.records.hashing import baseline_key, config_hash, setting_key
from qspinn.records.json_text import parse_json
from qspinn.records.outcomes import (
    GateReport,
    RunFailure,
    read_failure,
    read_gate_report,
    write_failure,
    write_gate_report,
)
from qspinn.records.printable import printable, printable_lines, shortened
from qspinn.records.reading import RecordReader, baseline_key_of, read_record, setting_key_of
from qspinn.records.run_record import MEASURED_ON, RunRecord, finite_or_none
from qspinn.records.store import (
    FAILURE_NAME,
    GATE_NAME,
    RECORD_NAME,
    comparable,
    find_outcomes,
    find_records,
    write_json,
    write_record,
)
from qspinn.records.validation import RecordError

__all__ = [
    "FAILURE_NAME",
    "GATE_NAME",
    "MEASURED_ON",
    "RECORD_NAME",
    "SCHEMA_VERSION",
    "SCHEMES",
    "STATUSES",
    "GateReport",
    "RecordError",
    "RecordReader",
    "RunFailure",
    "RunRecord",
    "baseline_key",
    "baseline_key_of",
    "comparable",
    "config_hash",
    "find_outcomes",
    "find_records",
    "finite_or_none",
    "parse_json",
    "printable",
    "printable_lines",
    "read_failure",
    "read_gate_report",
    "read_record",
    "read_regular",
    "setting_key",
    "setting_key_of",
    "shortened",
    "work_metrics",
    "write_failure",
    "write_gate_report",
    "write_json",
    "write_record",
]
