"""A selection in the width of a terminal: candidates are numbered, and named by what differs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qspinn.records import shortened
from qspinn.report.cells import accuracy_cell, points, shown_path, times
from qspinn.report.footprint import print_summary
from qspinn.selection import Dropped, Group, Row, Selection
from qspinn.selection.quantities import shown_energy, shown_memory
from qspinn.selection.verdict import verdict

MOST_FRONT = 20
"""Rows of the front that are shown where no number is asked for."""
NEAREST = 5
"""Of what misses the target, shown where nothing meets it."""
NAME_WIDTH = 22
"""Columns of the terminal that names get at least."""


@dataclass(frozen=True)
class _Column:
    """A column of numbers.

    Attributes:
        name: Its heading.
        width: What its cells take.
        cell: The cell of a candidate.
    """

    name: str
    width: int
    cell: Callable[[Row | Dropped], str]


def print_narrow(selection: Selection, console: Console, show: int) -> None:
    """Print a selection: the front, the verdict in words, and on request the rest.

    Args:
        selection: What to show.
        console: A terminal; nothing is wider than it.
        show: Most rows of dominated and of dropped candidates each. The front is whole up to
            20 rows, or as many as are asked for.
    """
    said = verdict(selection)
    _line(console, f"Target: {selection.target}")
    _line(console, f"Reward: {selection.reward}")
    if selection.names.common and len(selection.compared) > 1:
        _line(console, f"All quantised candidates: {selection.names.common}")
    dominated = [row for row in selection.rows if not row.on_front]
    if selection.rows:
        front = selection.front
        title = f"Pareto front: {len(front):,} of {len(selection.rows):,} that meet the target"
        _table(console, selection, title, front[: max(show, MOST_FRONT)])
        if dominated[:show]:
            _table(console, selection, "Dominated", dominated[:show])
    dropped = selection.dropped[: show if selection.rows else max(show, NEAREST)]
    if dropped:
        _table(console, selection, "Misses the target", dropped)
    _rest(console, selection, show, len(dominated), len(selection.dropped) - len(dropped))
    if selection.rows:
        _line(console, _choices(selection))
    for note in selection.notes:
        _line(console, f"Note: {note}.")
    if selection.winner is not None:
        group = selection.winner.group
        _line(console, f"Winner: {shown_path(group.path)}")
        if len(group.runs) > 1:
            _line(console, f"  and {len(group.runs) - 1} more with other seeds")
        print_summary(group.record, console)
    for sentence in said.details:
        _line(console, sentence)
    _line(console, said.headline, "bold")


def _table(
    console: Console, selection: Selection, title: str, rows: Sequence[Row | Dropped]
) -> None:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("candidate", overflow="fold")
    columns = _columns(selection, console.width)
    for column in columns:
        table.add_column(column.name, justify="right", no_wrap=True)
    last = _last_column(rows)
    if last is not None:
        table.add_column(last, overflow="fold")
    names = selection.names
    for row in rows:
        path = row.group.path
        cells = [str(names.numbers[path]), shortened(names.names[path]) or "-"]
        cells += [column.cell(row) for column in columns]
        if isinstance(row, Dropped):
            cells.append("; ".join(row.reasons))
        elif last is not None:
            cells.append(f"#{names.numbers[row.dominated_by]}" if row.dominated_by else "")
        style = "bold" if row is selection.winner else ""
        table.add_row(*(Text(cell, style) for cell in cells))
    console.print(table)


def _last_column(rows: Sequence[Row | Dropped]) -> str | None:
    if isinstance(rows[0], Dropped):
        return "why"
    return None if rows[0].on_front else "by"


def _columns(selection: Selection, width: int) -> list[_Column]:
    """The columns that matter most, as many as there is room for."""
    target, groups = selection.target, [row.group for row in selection.compared]
    std = any(group.accuracy_std is not None for group in groups)
    accuracy = _Column(
        f"{selection.chosen_by} %",
        19 + 7 * std,
        lambda row: accuracy_cell(row.group.accuracy, row.group.samples, row.group.accuracy_std),
    )
    drop = _Column("drop", 6, lambda row: points(row.group.drop))
    size = _Column("size", 8, lambda row: shown_memory(row.group.footprint_bits))
    reduction = _Column("smaller", 7, lambda row: times(row.group.reduction))
    memories = [_memory("flash", target.learning), _memory("RAM", target.learning)]
    energy = _Column("energy", 8, lambda row: _energy(row.group))
    alike = _Column("alike", 6, lambda row: _alike(row.group))
    reward = _Column("reward", 7, _reward)
    has_energy = any(group.energy_nj is not None for group in groups)
    has_memory = any(group.record.ram_bits is not None for group in groups)
    wanted = [accuracy, drop]
    wanted += memories if target.flash is not None or target.ram is not None else [size]
    wanted += [energy] if target.energy is not None else []
    wanted.append(reduction)
    needed = len(wanted)
    wanted += [reward]
    wanted += [alike] if any(group.agreement is not None for group in groups) else []
    wanted += [energy] if has_energy and energy not in wanted else []
    wanted += memories if has_memory and memories[0] not in wanted else []
    room = width - NAME_WIDTH - 4
    found: list[_Column] = []
    for index, column in enumerate(wanted):
        room -= column.width + 1
        if index >= needed and room < 0:
            break
        found.append(column)
    return found


def _memory(name: str, learning: bool) -> _Column:
    def cell(row: Row | Dropped) -> str:
        bits = row.group.memory(learning)[name.lower()]
        return "-" if bits is None else shown_memory(bits)

    return _Column(name, 8, cell)


def _energy(group: Group) -> str:
    return "-" if group.energy_nj is None else shown_energy(group.energy_nj)


def _alike(group: Group) -> str:
    return "-" if group.agreement is None else f"{100 * group.agreement:.1f}%"


def _reward(row: Row | Dropped) -> str:
    return f"{row.reward:.4f}" if isinstance(row, Row) else "-"


def _rest(console: Console, selection: Selection, show: int, dominated: int, dropped: int) -> None:
    """What is not shown, as numbers."""
    front = len(selection.front) - max(show, MOST_FRONT)
    counts = {
        "on the front": front,
        "dominated": dominated - show,
        "that miss the target": dropped,
    }
    parts = [f"{number:,} {what}" for what, number in counts.items() if number > 0]
    if parts:
        _line(console, f"... and {', '.join(parts)} (show=all lists all)")


def _choices(selection: Selection) -> str:
    """How the choice depends on the weight of the linear reward."""
    parts = []
    for choice in selection.choices:
        number = selection.names.numbers[selection.rows[choice.index].group.path]
        end = "above" if math.isinf(choice.high) else f"up to {choice.high:.3g}"
        parts.append(f"#{number} {end}")
    return f"Best by mu (accuracy - mu * share of the 32-bit footprint): {', '.join(parts)}."


def _line(console: Console, line: str, style: str = "") -> None:
    console.print(Text(shortened(line, 10_000), style, overflow="fold"))
