"""A selection in the terminal: the front, what it dominates, what was dropped, the winner."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from qspinn.report.cells import (
    bits,
    new_table,
    percent,
    points,
    print_wide,
    shown_path,
    times,
    words,
)
from qspinn.selection import Dropped, Group, Row, Selection

__all__ = ["print_selection"]

_ABOUT = ("scheme", "rounding", "word length", "seeds")
_UP_TO = "accuracy times share of the 32-bit footprint saved"
_NUMBERS = ("accuracy", "drop (points)", "footprint (bits)", "reduction")


def print_selection(
    selection: Selection, console: Console | None = None, show: int | None = 20
) -> None:
    """Print a selection; plain text without escapes where output is piped.

    Args:
        selection: What to show.
        console: Where to; default: standard output.
        show: Most rows of dominated and of dropped runs; None for all. The front is always whole.
    """
    console = console or Console(highlight=False)
    _line(console, f"Target: {selection.target}")
    _line(console, f"Reward: {selection.reward}")
    mixed = len({_setting(group) for group in _groups(selection)}) > 1
    if selection.rows:
        dominated = [row for row in selection.rows if not row.on_front]
        front = selection.front
        title = f"Pareto front: {len(front)} of {_count(len(selection.rows), 'candidate')}"
        _print_rows(console, title, front, len(front), mixed)
        if dominated:
            _print_rows(console, f"Dominated: {len(dominated)}", dominated, show, mixed)
    if selection.dropped:
        _print_dropped(console, selection.dropped, show, mixed)
    if selection.rows:
        _line(console, f"Hypervolume of the front: {selection.hypervolume:.4f} (of 1: {_UP_TO})")
        _print_choices(console, selection)
    for note in selection.notes:
        _line(console, f"Note: {note}.")
    if selection.winner is not None:
        _line(console, f"Winner: {selection.reason}", "bold")


def _line(console: Console, line: str, style: str = "") -> None:
    # soft_wrap: a terminal wraps, a pipe gets the line whole.
    console.print(Text(line, style), soft_wrap=True)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _print_choices(console: Console, selection: Selection) -> None:
    """When the choice changes with the weight of the linear reward."""
    table = new_table(
        "Worth most, by the weight mu of accuracy - mu * footprint / baseline footprint",
        ["run"],
        ["from mu", "to mu", "accuracy", "footprint (bits)"],
    )
    for choice in selection.choices:
        group = selection.rows[choice.index].group
        high = "-" if math.isinf(choice.high) else f"{choice.high:.4g}"
        cells = [shown_path(group.path), f"{choice.low:.4g}", high, percent(group.accuracy)]
        table.add_row(*map(Text, cells), Text(bits(group.footprint_bits)))
    print_wide(console, table)


def _groups(selection: Selection) -> list[Group]:
    return [row.group for row in selection.compared]


def _setting(group: Group) -> tuple[str, str]:
    return group.record.data, group.record.network


def _about(group: Group, mixed: bool) -> list[str]:
    record = group.record
    scheme = "none (32-bit)" if group.is_reference else record.scheme
    seeds = ",".join(map(str, group.seeds)) if len(group.seeds) < 6 else f"{len(group.seeds)}"
    cells = [scheme, record.rounding or "-", words(record.word_lengths), seeds]
    return [*_setting(group), *cells] if mixed else cells


def _numbers(group: Group) -> list[str]:
    spread = "" if group.accuracy_std is None else f" ± {points(group.accuracy_std)}"
    size = [bits(group.footprint_bits), times(group.reduction)]
    return [percent(group.accuracy) + spread, points(group.drop), *size]


def _print_rows(
    console: Console, title: str, rows: Sequence[Row], show: int | None, mixed: bool
) -> None:
    shown = rows[:show]
    more = [] if all(row.on_front for row in rows) else ["dominated by"]
    left = ["run", *(("data", "network") if mixed else ()), *_ABOUT]
    table = new_table(title, left, [*_NUMBERS, "reward"], *more)
    for row in shown:
        cells = [shown_path(row.group.path), *_about(row.group, mixed), *_numbers(row.group)]
        cells.append(f"{row.reward:.4f}")
        if row.dominated_by is not None:
            cells.append(shown_path(row.dominated_by))
        table.add_row(*map(Text, cells))
    print_wide(console, table)
    _hidden(console, len(rows) - len(shown))


def _print_dropped(
    console: Console, dropped: Sequence[Dropped], show: int | None, mixed: bool
) -> None:
    shown = dropped[:show]
    left = ["run", *(("data", "network") if mixed else ()), *_ABOUT]
    table = new_table(f"Dropped: {len(dropped)}", left, _NUMBERS, "reason")
    for item in shown:
        cells = [shown_path(item.group.path), *_about(item.group, mixed), *_numbers(item.group)]
        table.add_row(*map(Text, cells), Text("; ".join(item.reasons)))
    print_wide(console, table)
    _hidden(console, len(dropped) - len(shown))


def _hidden(console: Console, number: int) -> None:
    if number:
        _line(console, f"... and {number:,} more (show=null shows all)")
