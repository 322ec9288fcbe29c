"""Runs as a CSV table: what select.py writes, and what it reads back."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from qspinn.atomic import write_text
from qspinn.records import (
    RecordError,
    RunRecord,
    baseline_key_of,
    config_hash,
    read_regular,
    setting_key_of,
)
from qspinn.selection import Row, Run, Selection

# Column to how its cells are read; None: by themselves.
_NEEDED: dict[str, type | None] = {
    **dict.fromkeys(("scheme", "rounding", "network", "data"), str),
    "seed": int,
    "accuracy": float,
    **dict.fromkeys(("footprint_bits", "baseline_footprint_bits"), int),
}
_OPTIONAL: dict[str, type | None] = {
    **dict.fromkeys(("path", "word_lengths")),
    "baseline_accuracy": float,
    "training_footprint_bits": int,
    **dict.fromkeys(("footprint_bits_by_role", "baseline_footprint_bits_by_role")),
    "status": str,
    **dict.fromkeys(("quantized_parameters", "parameters", "quantized_states", "states")),
    **dict.fromkeys(("setting_key", "baseline_key")),
    "data_fingerprint": str,
    "samples": int,
    **dict.fromkeys(("validation_accuracy", "validation_baseline_accuracy"), float),
    **dict.fromkeys(("validation_samples", "flash_bits", "ram_bits", "learning_ram_bits"), int),
    **dict.fromkeys(("agreement", "energy_nj", "model_bytes")),
}
NEEDED, OPTIONAL = tuple(_NEEDED), tuple(_OPTIONAL)
SHARES = ("quantized_parameters_share", "quantized_states_share")
RESULTS = (
    *SHARES,
    *("number", "name", "state", "mean_accuracy", "runs", "reward", "dominated_by", "reasons"),
)
"""What follows from other columns, and what a selection found; not read back."""
_COUNTS = {
    "parameters": ("quantized_parameters", "parameters"),
    "states": ("quantized_states", "states"),
}
"""Of the summary: the columns of quantised values and of all."""

_COUNT_NAMES = tuple(name for columns in _COUNTS.values() for name in columns)
_MADE = ("path", "model_bytes", *_COUNT_NAMES)
"""Columns that are no fields of a record."""
MOST_BYTES = 1 << 30
NO_LENGTH = "-"
_WHOLE = re.compile(r"-?[0-9]{1,20}")
# `nan` and `inf` are numbers; the record refuses them.
_REAL = re.compile(r"-?([0-9]{1,40}\.?[0-9]{0,999}|\.[0-9]{1,999})([eE][-+]?[0-9]{1,4})?|nan|-?inf")
# What would end the name of a role in a cell of pairs.
_SPECIAL = re.compile(r"[\s=%]")
_ALWAYS = ("scheme", "network", "data", "seed")
"""What the error of a record or a number names if a cell is empty."""


def write_table(selection: Selection, path: str | os.PathLike[str]) -> Path:
    """Write a row per run, candidates first, best first; see docs/selection.md for the columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["path", *NEEDED, *OPTIONAL[1:], *RESULTS], lineterminator="\n")
    writer.writeheader()
    names = selection.names
    for row in selection.compared:
        group = row.group
        results: dict[str, Any] = {
            "number": names.numbers[group.path],
            "name": names.names[group.path],
            "mean_accuracy": group.accuracy,
            "runs": len(group.runs),
        }
        if isinstance(row, Row):
            state = "front" if row.on_front else "dominated"
            results |= {"state": state, "reward": row.reward, "dominated_by": row.dominated_by}
        else:
            results |= {"state": "dropped", "reasons": "; ".join(row.reasons)}
        for run in group.runs:
            writer.writerow(_cells(run) | results)
    return write_text(text.getvalue(), path)


def _cells(run: Run) -> dict[str, Any]:
    record = run.record if run.reported is None else run.reported
    counts = {} if record.summary is None else _counts(record.summary)
    own = [name for name in (*NEEDED, *OPTIONAL) if name not in _MADE]
    plain = {name: getattr(record, name) for name in own}
    lengths = {
        role: "/".join(map(str, given)) or NO_LENGTH for role, given in record.word_lengths.items()
    }
    return (
        plain
        | counts
        | {
            "path": run.path,
            "word_lengths": _pairs(lengths),
            "footprint_bits_by_role": _pairs(record.footprint_bits_by_role),
            "baseline_footprint_bits_by_role": _pairs(record.baseline_footprint_bits_by_role),
            "setting_key": setting_key_of(record),
            "baseline_key": baseline_key_of(record),
            "quantized_parameters_share": record.parameters_share,
            "quantized_states_share": record.states_share,
            "model_bytes": (record.device_model or {}).get("file_bytes"),
        }
        # What chose may know its baseline from a twin.
        | (
            {}
            if run.reported is None
            else {"validation_baseline_accuracy": run.record.baseline_accuracy}
        )
    )


def _counts(summary: Mapping[str, Any]) -> dict[str, int]:
    return {
        column: summary[kind][key]
        for kind, columns in _COUNTS.items()
        for column, key in zip(columns, ("quantized", "total"), strict=True)
    }


def _pairs(values: Mapping[str, object]) -> str:
    return " ".join(f"{_SPECIAL.sub(_quoted, name)}={value}" for name, value in values.items())


def _quoted(found: re.Match[str]) -> str:
    return quote(found[0], safe="")


def read_table(path: str | os.PathLike[str]) -> Iterator[Run | str]:
    """Read a table of runs: a run per row, or a line that says why a row cannot be used.

    Raises:
        RecordError: The file cannot be read, or is no such table.
    """
    try:
        text = read_regular(path, MOST_BYTES).decode("utf-8-sig")
        rows = _rows(text)
        columns = _columns(path, next(rows, (0, []))[1])
        for line, cells in rows:
            place = f"{path}, line {line}"
            if not cells:
                continue
            if len(cells) != len(columns):
                yield f"{place}: {len(cells)} cells under {len(columns)} columns"
                continue
            given = {name: cell for name, cell in zip(columns, cells, strict=True) if cell}
            try:
                yield Run(given.get("path", place), _record(given))
            except RecordError as error:
                yield f"{place}: {error}"
    except OSError as error:
        reason = error.strerror or error
        raise RecordError(f"{path} cannot be read as a table: {reason}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise RecordError(f"{path} cannot be read as a table: {error}") from error


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Number of the line and cells of each row; a cell may be as long as the table."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        usual = csv.field_size_limit(MOST_BYTES)  # of the whole process, so not for longer
        try:
            cells = next(rows, None)
        finally:
            csv.field_size_limit(usual)
        if cells is None:
            return
        yield rows.line_num, cells


def _columns(path: str | os.PathLike[str], columns: Sequence[str]) -> Sequence[str]:
    known = (*NEEDED, *OPTIONAL, *RESULTS)
    missing = [name for name in NEEDED if name not in columns]
    unknown = [name for name in columns if name not in known]
    if missing or unknown or len(set(columns)) < len(columns):
        raise RecordError(
            f"{path}: no table of runs. Missing columns: {_listed(missing)}; unknown columns: "
            f"{_listed(unknown)}. Needed, each once: {_listed(NEEDED)}; optional: "
            f"{_listed(OPTIONAL)}"
        )
    return columns


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _record(given: Mapping[str, str]) -> RunRecord:
    values: dict[str, Any] = {
        name: given.get(name, "") if kind is str else _number(given, name, kind)
        for name, kind in (_NEEDED | _OPTIONAL).items()
        if kind is not None and (name in given or name in _ALWAYS)
    }
    for name in ("accuracy", "footprint_bits", "baseline_footprint_bits"):
        if name not in given:
            raise RecordError(f"column {name!r} is empty", name)
    for column, name in (("agreement", "fidelity"), ("energy_nj", "work")):
        if column in given:
            values[name] = {column: _number(given, column, float)}
    if "model_bytes" in given:
        values["device_model"] = {"file_bytes": _number(given, "model_bytes", int)}
    values.setdefault("training_footprint_bits", values["footprint_bits"])
    for total in ("footprint_bits", "baseline_footprint_bits"):
        name = f"{total}_by_role"
        values[name] = _table(given, name) or {"all": values[total]}
    lengths = _split(given, "word_lengths")
    values["word_lengths"] = {
        role: [_whole("word_lengths", part) for part in text.split("/") if part != NO_LENGTH]
        for role, text in lengths.items()
    }
    if any(name in given for name in _COUNT_NAMES):
        values["summary"] = {
            kind: {
                key: _number(given, column, int)
                for column, key in zip(columns, ("quantized", "total"), strict=True)
            }
            for kind, columns in _COUNTS.items()
        }
    # The table lacks the configuration: what distinguishes settings replaces it.
    setting = {name: given.get(name, "") for name in ("scheme", "rounding", "word_lengths")}
    values |= {
        "config": {},
        "config_hash": config_hash(setting),
        "setting_key": given.get("setting_key") or config_hash(setting),
        "baseline_key": given.get("baseline_key") or config_hash({"seed": values["seed"]}),
    }
    return RunRecord(**values)


def _number(given: Mapping[str, str], name: str, kind: type) -> Any:
    text = given.get(name, "")
    try:
        if not (_WHOLE if kind is int else _REAL).fullmatch(text):
            raise ValueError
        return kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise RecordError(f"column {name!r}: {text!r} is not {wanted}", name) from None


def _whole(name: str, text: str) -> int:
    return int(_number({name: text}, name, int))


def _split(given: Mapping[str, str], name: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in given.get(name, "").split()]
    if not all(role and sign and value for role, sign, value in pairs):
        message = f"column {name!r}; write role=value pairs such as weight=8 membrane=10"
        raise RecordError(message, name)
    values = {unquote(role): value for role, _, value in pairs}
    if len(values) < len(pairs):
        raise RecordError(f"column {name!r}: a role occurs twice", name)
    return values


def _table(given: Mapping[str, str], name: str) -> dict[str, int]:
    return {role: _whole(name, text) for role, text in _split(given, name).items()}
