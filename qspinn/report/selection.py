"""A selection for people: in the terminal's width, or a line per candidate where it is piped."""

from __future__ import annotations

import sys

from rich.console import Console

from qspinn.report.narrow import print_narrow
from qspinn.report.piped import print_rows
from qspinn.selection import Selection

SHOW_ALL = sys.maxsize
"""As `show`: every row."""

MOST_PIPED = 20


def print_selection(
    selection: Selection, console: Console | None = None, show: int | None = None
) -> None:
    """Print a selection; plain text without escapes where output is piped.

    Args:
        selection: What to show.
        console: Where to; default: standard output.
        show: Most rows of dominated and of dropped candidates each; None: none of them in a
            terminal, and 20 in a pipe.
    """
    console = console or Console(highlight=False)
    if console.is_terminal:
        print_narrow(selection, console, show or 0)
    else:
        print_rows(selection, console, MOST_PIPED if show is None else show)
