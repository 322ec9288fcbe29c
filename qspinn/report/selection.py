"""A selection in the terminal: the front, what it dominates, what was dropped, the winner."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from qspinn.records import RECORD_NAME
from qspinn.report.cells import bits, new_table, percent, points, print_wide, times, words
from qspinn.selection import Dropped, Row, Run, Selection

__all__ = ["print_selection"]

_ABOUT = ("scheme", "rounding", "word length", "seed")
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
    mixed = len({_setting(run) for run in _runs(selection)}) > 1
    if selection.rows:
        dominated = [row for row in selection.rows if not row.on_front]
        front = selection.front
        title = f"Pareto front: {len(front)} of {_count(len(selection.rows), 'candidate')}"
        _print_rows(console, title, front, len(front), mixed)
        if dominated:
            _print_rows(console, f"Dominated: {len(dominated)}", dominated, show, mixed)
    if selection.dropped:
        _print_dropped(console, selection.dropped, show, mixed)
    for note in selection.notes:
        _line(console, f"Note: {note}.")
    if selection.winner is not None:
        _line(console, f"Winner: {selection.reason}", "bold")


def _line(console: Console, line: str, style: str = "") -> None:
    # soft_wrap: a terminal wraps, a pipe gets the line whole.
    console.print(Text(line, style), soft_wrap=True)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _runs(selection: Selection) -> list[Run]:
    return [row.run for row in selection.rows] + [item.run for item in selection.dropped]


def _setting(run: Run) -> tuple[str, str]:
    return run.record.data, run.record.network


def _name(path: str) -> str:
    """The run's folder: every record file has the same name."""
    folder, file = os.path.split(path)
    return folder if folder and file == RECORD_NAME else path


def _about(run: Run, mixed: bool) -> list[str]:
    record = run.record
    scheme = "none (32-bit)" if run.is_reference else record.scheme
    cells = [scheme, record.rounding or "-", words(record.word_lengths), str(record.seed)]
    return [*_setting(run), *cells] if mixed else cells


def _numbers(run: Run) -> list[str]:
    record = run.record
    size = [bits(record.footprint_bits), times(record.reduction)]
    return [percent(record.accuracy), points(record.drop), *size]


def _print_rows(
    console: Console, title: str, rows: Sequence[Row], show: int | None, mixed: bool
) -> None:
    shown = rows[:show]
    more = [] if all(row.on_front for row in rows) else ["dominated by"]
    left = ["run", *(("data", "network") if mixed else ()), *_ABOUT]
    table = new_table(title, left, [*_NUMBERS, "reward"], *more)
    for row in shown:
        cells = [_name(row.run.path), *_about(row.run, mixed), *_numbers(row.run)]
        cells.append(f"{row.reward:.4f}")
        if row.dominated_by is not None:
            cells.append(_name(row.dominated_by))
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
        cells = [_name(item.run.path), *_about(item.run, mixed), *_numbers(item.run)]
        table.add_row(*map(Text, cells), Text("; ".join(item.reasons)))
    print_wide(console, table)
    _hidden(console, len(dropped) - len(shown))


def _hidden(console: Console, number: int) -> None:
    if number:
        _line(console, f"... and {number:,} more (show=null shows all)")
