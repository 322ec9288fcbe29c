"""A selection as plain lines, a candidate in each, for other programs and for files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console

from qspinn.report.cells import (
    add_row,
    bits,
    is_partly_quantized,
    measured,
    new_table,
    percent,
    points,
    print_line,
    print_wide,
    quantized_shares,
    shown_path,
    times,
    words,
)
from qspinn.report.footprint import print_summary
from qspinn.selection import Dropped, Group, Row, Selection
from qspinn.selection.verdict import verdict

_ABOUT = ("scheme", "rounding", "word length", "seeds")
_UP_TO = "accuracy times share of the 32-bit footprint saved"
_NUMBERS = ("drop (points)", "footprint (bits)", "reduction")
_QUANTIZED = "quantised (parameters / states)"


class _More(NamedTuple):
    """Columns that a table has where they tell runs apart.

    Attributes:
        setting: Data and network.
        quantized: Which part is quantised.
        chosen_by: The data whose accuracies are shown.
    """

    setting: bool
    quantized: bool
    chosen_by: str


def print_rows(selection: Selection, console: Console, show: int) -> None:
    """Print a selection as wide as it is; the front is whole, of the rest ``show`` rows each."""
    said = verdict(selection)
    print_line(console, f"Target: {selection.target}")
    print_line(console, f"Reward: {selection.reward}")
    groups = _groups(selection)
    partly = any(is_partly_quantized(group.record) for group in groups)
    more = _More(len({_setting(group) for group in groups}) > 1, partly, selection.chosen_by)
    if selection.rows:
        dominated = [row for row in selection.rows if not row.on_front]
        front = selection.front
        title = f"Pareto front: {len(front)} of {_count(len(selection.rows), 'candidate')}"
        _print_rows(console, title, front, len(front), more)
        if dominated:
            _print_rows(console, f"Dominated: {len(dominated)}", dominated, show, more)
    if selection.dropped:
        _print_dropped(console, selection.dropped, show, more)
    if selection.rows:
        print_line(
            console, f"Hypervolume of the front: {selection.hypervolume:.4f} (of 1: {_UP_TO})"
        )
        _print_choices(console, selection)
    for note in selection.notes:
        print_line(console, f"Note: {note}.")
    for line in said.details[2 if selection.report else 1 :] if selection.rows else ():
        print_line(console, line)
    if selection.winner is not None:
        print_line(console, f"Winner: {selection.reason}", "bold")
        if selection.report:
            print_line(console, selection.report, "bold")
        print_summary(selection.winner.group.record, console)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _print_choices(console: Console, selection: Selection) -> None:
    """How the choice depends on the weight of the linear reward."""
    table = new_table(
        "Best, by the weight mu of accuracy - mu * footprint / baseline footprint",
        ["run"],
        ["from mu", "to mu", f"{selection.chosen_by} accuracy", "footprint (bits)"],
    )
    for choice in selection.choices:
        group = selection.rows[choice.index].group
        high = "-" if math.isinf(choice.high) else f"{choice.high:.4g}"
        cells = [f"{choice.low:.4g}", high, percent(group.accuracy), bits(group.footprint_bits)]
        add_row(table, [shown_path(group.path), *cells])
    print_wide(console, table)


def _groups(selection: Selection) -> list[Group]:
    return [row.group for row in selection.compared]


def _setting(group: Group) -> tuple[str, str]:
    return group.record.data, group.record.network


def _left(more: _More) -> list[str]:
    return ["run", *(("data", "network") if more.setting else ()), *_ABOUT]


def _right(more: _More) -> list[str]:
    return [f"{more.chosen_by} accuracy", *_NUMBERS, *([_QUANTIZED] if more.quantized else [])]


def _about(group: Group, more: _More) -> list[str]:
    record = group.record
    scheme = "none (32-bit)" if group.is_reference else record.scheme
    seeds = ",".join(map(str, group.seeds)) if len(group.seeds) < 6 else f"{len(group.seeds)}"
    cells = [scheme, record.rounding or "-", words(record.word_lengths), seeds]
    return [*_setting(group), *cells] if more.setting else cells


def _numbers(group: Group, more: _More) -> list[str]:
    size = [bits(group.footprint_bits), times(group.reduction)]
    if more.quantized:
        size.append("-" if group.is_reference else quantized_shares(group.record))
    accuracy = measured(group.accuracy, group.samples, group.accuracy_std)
    return [accuracy, points(group.drop), *size]


def _print_rows(console: Console, title: str, rows: Sequence[Row], show: int, more: _More) -> None:
    shown = rows[:show]
    last = [] if all(row.on_front for row in rows) else ["dominated by"]
    table = new_table(title, _left(more), [*_right(more), "reward"], *last)
    for row in shown:
        cells = [shown_path(row.group.path), *_about(row.group, more), *_numbers(row.group, more)]
        cells.append(f"{row.reward:.4f}")
        if row.dominated_by is not None:
            cells.append(shown_path(row.dominated_by))
        add_row(table, cells)
    print_wide(console, table)
    _hidden(console, len(rows) - len(shown))


def _print_dropped(console: Console, dropped: Sequence[Dropped], show: int, more: _More) -> None:
    shown = dropped[:show]
    table = new_table(f"Dropped: {len(dropped)}", _left(more), _right(more), "reason")
    for item in shown:
        group = item.group
        cells = [shown_path(group.path), *_about(group, more), *_numbers(group, more)]
        add_row(table, [*cells, "; ".join(item.reasons)])
    print_wide(console, table)
    _hidden(console, len(dropped) - len(shown))


def _hidden(console: Console, number: int) -> None:
    if number:
        print_line(console, f"... and {number:,} more (show=all shows all)")
