"""How single values look in tables, and printing that never cuts a column."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from qspinn.records import RECORD_NAME

__all__ = [
    "bits",
    "new_table",
    "percent",
    "points",
    "print_wide",
    "shown_path",
    "sorted_roles",
    "times",
    "words",
]

_ROLES = ("weight", "bias", "membrane", "threshold", "theta", "trace", "decay")
_ANY_WIDTH = 100_000


def percent(accuracy: float | None) -> str:
    """An accuracy in [0, 1] as percent; `-` where there is none."""
    return "-" if accuracy is None else f"{100 * accuracy:.2f}%"


def points(difference: float | None) -> str:
    """A difference of accuracies in points (hundredths), never `-0.00`."""
    return "-" if difference is None else f"{round(100 * difference, 2) + 0.0:.2f}"


def bits(count: float) -> str:
    """A number of bits with thousands separated; a mean is rounded to whole bits."""
    return f"{count:,.0f}"


def times(factor: float) -> str:
    """A reduction: `4.0x`."""
    return f"{factor:.1f}x"


def shown_path(path: str) -> str:
    """The folder of a run: every record file has the same name."""
    folder, file = os.path.split(path)
    return folder if folder and file == RECORD_NAME else path


def sorted_roles(roles: Iterable[str]) -> list[str]:
    """Roles in the order of the vocabulary, unknown ones at the end by name."""
    order = {role: index for index, role in enumerate(_ROLES)}
    return sorted(roles, key=lambda role: (order.get(role, len(order)), role))


def words(word_lengths: Mapping[str, Sequence[int]]) -> str:
    """Word lengths in short: `8` where all roles agree, else `weight 4, membrane 6/8`."""
    each = {tuple(lengths) for lengths in word_lengths.values()}
    if not each:
        return "-"
    if len(each) == 1:
        return "/".join(map(str, each.pop()))
    return ", ".join(
        f"{role} {'/'.join(map(str, word_lengths[role]))}" for role in sorted_roles(word_lengths)
    )


def new_table(title: str, left: Sequence[str], right: Sequence[str], *more: str) -> Table:
    """An empty table: columns aligned left, then right (numbers), then left again."""
    table = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    for name in more:
        table.add_column(name, no_wrap=True)
    return table


def print_wide(console: Console, table: Table) -> None:
    """Print a table as wide as it is: a narrow terminal wraps lines, but nothing is cut."""
    options = console.options.update(width=_ANY_WIDTH)
    needed = Measurement.get(console, options, table).maximum
    width = console.width
    console.width = max(width, needed)
    try:
        with console.capture() as capture:
            console.print(table)
    finally:
        console.width = width
    printed = capture.get()
    if not console.is_terminal:
        # A pipe has no use for the blanks that fill each line.
        printed = "".join(f"{line.rstrip()}\n" for line in printed.splitlines())
    console.file.write(printed)
    console.file.flush()
