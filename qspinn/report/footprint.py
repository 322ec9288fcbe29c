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
    sorted_roles,
    times,
)

__all__ = ["device_model_lines", "footprint_table", "print_footprint", "print_summary"]

MOST_LINES = 200
"""Of what stays in 32-bit: a layer or a reason each."""


def footprint_table(record: RunRecord) -> Table:
    """Accuracy and inference footprint in bits, per role and in total.

    A run with scheme `none` has the 32-bit column only.
    """
    quantized = record.scheme != "none"
    title = f"{record.network} on {record.data}"
    if not quantized:
        table = new_table(title, [""], ["32-bit"])
        for label, one in _measured(record):
            add_row(table, [label, measured(one.accuracy, one.samples)])
        _add_footprint(table, record, quantized)
        return table
    name = f"{record.scheme.upper()}, {record.rounding}"
    table = new_table(title, [""], ["32-bit", name, "word length", "change"])
    for label, one in _measured(record):
        drop = one.drop
        change = "-" if drop is None else f"{'-' if drop > 0 else '+'}{points(abs(drop))} points"
        known = one.baseline_accuracy, one.accuracy
        accuracies = [measured(accuracy, one.samples) for accuracy in known]
        add_row(table, [label, *accuracies, "", change])
    _add_footprint(table, record, quantized)
    return table


def _measured(record: RunRecord) -> list[tuple[str, RunRecord]]:
    """Label and accuracies of each kind of data: what chooses, and what is reported."""
    found = {f"{data} accuracy": record.measured_on(data) for data in MEASURED_ON}
    return [(label, one) for label, one in found.items() if one is not None]


def _add_footprint(table: Table, record: RunRecord, quantized: bool) -> None:
    before, after = record.baseline_footprint_bits_by_role, record.footprint_bits_by_role
    rows = [
        (role, before.get(role, 0), after.get(role, 0), record.word_lengths.get(role, []))
        for role in sorted_roles(before.keys() | after.keys())
    ]
    rows.append(("total", record.baseline_footprint_bits, record.footprint_bits, []))
    for name, old, new, lengths in rows:
        if name == "total":
            table.add_section()
        label = f"{name} (bits)"
        if quantized:
            length = "/".join(map(str, lengths))
            change = times(old / new) if new else "-"
            add_row(table, [label, bits(old), bits(new), length, change])
        else:
            add_row(table, [label, bits(old)])


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
    """The file of the device model in a sentence, or why there is none; nothing if not known."""
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
    count = found.get("verified_samples")
    return [
        said if count is None else f"{said}, gives the network's exact outputs ({count} samples)"
    ]


def print_summary(record: RunRecord, console: Console) -> None:
    """Print what is quantised of a network; nothing for a 32-bit one."""
    if record.scheme != "none":
        _print_lines(console, record.summary_lines)


def _print_lines(console: Console, lines: Sequence[str]) -> None:
    for line in lines[:MOST_LINES]:
        print_line(console, f"  {line}")
    if len(lines) > MOST_LINES:
        print_line(console, f"  ... and {len(lines) - MOST_LINES:,} more in the record")
