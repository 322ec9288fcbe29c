"""The small table at the end of a run: accuracy and footprint, 32-bit beside quantised."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from qspinn.records import MEASURED_ON, RunRecord
from qspinn.report.cells import (
    add_row,
    bits,
    measured,
    new_table,
    points,
    print_line,
    print_wide,
    times,
)
from qspinn.selection.naming import sorted_roles

MOST_LINES = 200
"""Of what stays in 32-bit: a layer or a reason each."""


def accuracy_rows(record: RunRecord) -> list[list[str]]:
    """Of each kind of data: its name, both accuracies (32-bit and quantised), and the change."""
    rows = []
    for data in MEASURED_ON:
        one = record.measured_on(data)
        if one is not None:
            drop = one.drop
            change = (
                "-" if drop is None else f"{'-' if drop > 0 else '+'}{points(abs(drop))} points"
            )
            known = one.baseline_accuracy, one.accuracy
            rows.append([data, *(measured(accuracy, one.samples) for accuracy in known), change])
    return rows


def footprint_rows(record: RunRecord) -> list[list[str]]:
    """Of each role, and in total: bits in 32-bit and quantised, the word lengths, the reduction."""
    before, after = record.baseline_footprint_bits_by_role, record.footprint_bits_by_role
    each = [
        (role, before.get(role, 0), after.get(role, 0), record.word_lengths.get(role, []))
        for role in sorted_roles(before.keys() | after.keys())
    ]
    each.append(("total", record.baseline_footprint_bits, record.footprint_bits, []))
    return [
        [role, bits(old), bits(new), "/".join(map(str, lengths)), times(old / new) if new else "-"]
        for role, old, new, lengths in each
    ]


def footprint_table(record: RunRecord) -> Table:
    """Accuracy and inference footprint in bits, per role and in total.

    A run with scheme `none` has the 32-bit column only.
    """
    is_float = record.scheme == "none"
    name = f"{record.scheme.upper()}, {record.rounding}"
    columns = ["32-bit"] if is_float else ["32-bit", name, "word length", "change"]
    table = new_table(f"{record.network} on {record.data}", [""], columns)
    for data, before, after, change in accuracy_rows(record):
        add_row(
            table, [f"{data} accuracy", *([after] if is_float else [before, after, "", change])]
        )
    for role, *cells in footprint_rows(record):
        if role == "total":
            table.add_section()
        add_row(table, [f"{role} (bits)", *(cells[:1] if is_float else cells)])
    return table


def print_footprint(record: RunRecord, console: Console | None = None) -> None:
    """Print `footprint_table(record)`, below it what is quantised and what is not, and the work.

    Plain text without escapes where output is piped.
    """
    console = console or Console(highlight=False)
    print_wide(console, footprint_table(record))
    print_summary(record, console)
    _print_lines(console, [] if record.work is None else record.work.get("lines", []))
    _print_lines(console, device_model_lines(record))


def device_model_lines(record: RunRecord) -> list[str]:
    """The file of the device model in a sentence, or why there is none; nothing if not known.

    A second sentence says why it cannot go on learning, where a network learns by itself.
    """
    found = record.device_model
    if found is None or not found.keys() & {"file", "refused"}:
        return []
    if "refused" in found:
        return [f"no device model was saved: {found['refused']}"]
    said = f"device model: {found['file']}"
    if "file_bytes" in found:
        said += f", {found['file_bytes']:,} bytes"
    if found.get("difference") is not None:
        return [f"{said}; DO NOT USE IT, it differs from the network: {found['difference']}"]
    if "verified_samples" in found:
        said += f", gives the network's exact outputs ({found['verified_samples']} samples)"
    refused = found.get("learning_refused")
    return [said, *([] if refused is None else [f"it cannot go on learning in C: {refused}"])]


def print_summary(record: RunRecord, console: Console) -> None:
    """Print what is quantised of a network; nothing for a 32-bit one."""
    if record.scheme != "none":
        _print_lines(console, record.summary_lines)


def _print_lines(console: Console, lines: Sequence[str]) -> None:
    for line in lines[:MOST_LINES]:
        print_line(console, f"  {line}")
    if len(lines) > MOST_LINES:
        print_line(console, f"  ... and {len(lines) - MOST_LINES:,} more in the record")
