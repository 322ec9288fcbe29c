"""The summary by which W&B compares runs, from a record."""

from __future__ import annotations

import json
from typing import Any

from qspinn.records import RunRecord, work_metrics
from qspinn.selection import LinearReward
from qspinn.selection.naming import title_of

RECORD_KEY = "qspinn_record"
"""Name in a run's summary of the whole record as JSON, which select.py reads."""

_AS_IN_RECORD = (
    *("accuracy", "baseline_accuracy", "drop", "reduction", "agreement", "energy_nj"),
    *("validation_accuracy", "validation_baseline_accuracy", "scheme", "rounding"),
    *("footprint_bits", "baseline_footprint_bits", "training_footprint_bits"),
    *("flash_bits", "ram_bits", "learning_ram_bits"),
)
LONGEST_TAG = 64  # W&B refuses longer ones


def tags_of(record: RunRecord) -> list[str]:
    """Tags to filter W&B's table of runs by."""
    lengths = {bits for given in record.word_lengths.values() for bits in given}
    bits = f"{lengths.pop()}-bit" if len(lengths) == 1 else "mixed precision"
    about = [] if record.rounding is None else [record.rounding, bits]
    tags = [record.scheme, *about, record.network, record.data]
    return [tag[:LONGEST_TAG] for tag in tags if tag]


def summary_of(record: RunRecord) -> dict[str, Any]:
    """Numbers and strings of a run, including the record itself."""
    reward = LinearReward()
    choosing = record.measured_on("validation")
    values = {name: getattr(record, name) for name in _AS_IN_RECORD} | {
        "validation_drop": None if choosing is None else choosing.drop,
        "chosen_by": "test" if choosing is None else "validation",
        "quantized_parameters_share": record.parameters_share,
        "quantized_states_share": record.states_share,
        "quantized": "\n".join(record.summary_lines) or None,
        "reward": reward(record if choosing is None else choosing),
        "reward_formula": str(reward),
        "candidate": title_of(record),
        "work": None if record.work is None else "\n".join(record.work.get("lines", [])) or None,
        **work_metrics(record.work),
        RECORD_KEY: json.dumps(record.to_dict(), sort_keys=True, separators=(",", ":")),
    }
    for role, lengths in record.word_lengths.items():
        if lengths:
            values[f"word_length/{role}"] = max(lengths)  # of several tensors the longest
    for role, bits in record.footprint_bits_by_role.items():
        if bits:
            values[f"footprint_bits/{role}"] = bits
    return {name: value for name, value in values.items() if value is not None}
