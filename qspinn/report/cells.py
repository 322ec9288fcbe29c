"""Formatting of single values in tables, and printing without cutting columns."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from qspinn.records import RECORD_NAME, RunRecord, shortened
from qspinn.selection.intervals import shown_interval
from qspinn.selection.naming import sorted_roles

_ANY_WIDTH = 100_000
LONGEST_DRAWN = 80
LONGEST_LINE = 10_000


def percent(accuracy: float | None) -> str:
    """An accuracy in [0, 1] as percent; `-` where there is none."""
    return "-" if accuracy is None else f"{100 * accuracy:.2f}%"


def measured(accuracy: float | None, samples: int | None, std: float | None = None) -> str:
    """An accuracy as percent, with what is known of its precision: `97.20% ± 0.35 [95.6, 98.2]`.

    Args:
        accuracy: In [0, 1]; None: `-`.
        samples: That it was measured on, for its 95% confidence interval; None: not known.
        std: Standard deviation over seeds; None: of one run.
    """
    spread = "" if std is None else f" ± {points(std)}"
    return percent(accuracy) + spread + shown_interval(accuracy, samples)


def accuracy_cell(accuracy: float, samples: int | None, std: float | None) -> str:
    """The same in short, in percent: `97.20 ±0.35 [95.6, 98.2]`."""
    spread = "" if std is None else f" ±{points(std)}"
    return f"{100 * accuracy:.2f}{spread}{shown_interval(accuracy, samples)}"


def points(difference: float | None) -> str:
    """A difference of accuracies in points (hundredths), never `-0.00`."""
    return "-" if difference is None else f"{round(100 * difference, 2) + 0.0:.2f}"


def portion(share: float | None) -> str:
    """A share in [0, 1] as percent, never rounded up to all: `99.9%`; `-` where there is none."""
    if share is None:
        return "-"
    return "100%" if share == 1.0 else f"{math.floor(1000 * share) / 10:.1f}%"


def quantized_shares(record: RunRecord) -> str:
    """Which part of parameters and of states is quantised: `100% / 98.5%`; `-`: not known."""
    shares = (record.parameters_share, record.states_share)
    return "-" if None in shares else " / ".join(map(portion, shares))


def is_partly_quantized(record: RunRecord) -> bool:
    """Whether something of a quantised network is known to stay in 32-bit."""
    shares = (record.parameters_share, record.states_share)
    return record.scheme != "none" and None not in shares and shares != (1.0, 1.0)


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


def picture_text(text: str) -> str:
    """A name as Matplotlib draws it: a dollar sign would begin a formula."""
    return shortened(text, LONGEST_DRAWN).replace("$", r"\$")


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
    table = Table(title=_cell(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for name in left:
        table.add_column(_cell(name), no_wrap=True)
    for name in right:
        table.add_column(_cell(name), justify="right", no_wrap=True)
    for name in more:
        table.add_column(_cell(name), no_wrap=True)
    return table


def add_row(table: Table, cells: Iterable[str]) -> None:
    """Add a row of texts as they are: Rich would take brackets in names for its own marks."""
    table.add_row(*map(_cell, cells))


def _cell(text: str) -> Text:
    return Text(shortened(text))


def print_line(console: Console, line: str, style: str = "") -> None:
    """Print a line: a terminal wraps it, a pipe gets it whole."""
    console.print(Text(shortened(line, LONGEST_LINE), style), soft_wrap=True)


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
        # Without the blanks that fill each line.
        printed = "".join(f"{line.rstrip()}\n" for line in printed.splitlines())
    console.file.write(printed)
    console.file.flush()
