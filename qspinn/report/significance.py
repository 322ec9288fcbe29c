"""Significance in the terminal and as a picture: accuracy against word length per role."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from rich.console import Console

from qspinn.report.cells import add_row, new_table, picture_text, points, print_wide
from qspinn.selection import Significance

MARKERS = "osD^v<>ph*"


def print_significance(
    found: Sequence[Significance], max_drop: float, console: Console | None = None
) -> None:
    """Print what each role loses at each word length, in points of accuracy.

    Args:
        found: The most significant first.
        max_drop: The target that ``smallest`` holds.
        console: Where to; default: standard output.
    """
    console = console or Console(highlight=False)
    lengths = sorted({point.word_length for one in found for point in one.points})
    title = "Accuracy lost, in points, with one role alone in fixed point"
    smallest = f"smallest within {points(max_drop)}"
    table = new_table(title, ["role"], ["values", *(f"{n} bits" for n in lengths), smallest])
    for one in found:
        drops = {point.word_length: points(point.drop) for point in one.points}
        held = "none" if one.smallest is None else f"{one.smallest} bits"
        row = [one.name, f"{one.values:,}", *(drops.get(length, "-") for length in lengths), held]
        add_row(table, row)
    print_wide(console, table)


def draw_significance(
    found: Sequence[Significance], max_drop: float, title: str, chosen_by: str = "test"
) -> Figure:
    """Draw accuracy against word length, a line per role, and the target.

    Args:
        found: The most significant first, at least one.
        max_drop: The target.
        title: Over the picture.
        chosen_by: The data of the accuracies, ``validation`` or ``test``.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    lengths = sorted({point.word_length for one in found for point in one.points})
    for index, one in enumerate(found):
        axes.errorbar(
            [point.word_length for point in one.points],
            [100 * point.accuracy for point in one.points],
            yerr=[100 * point.deviation for point in one.points],
            marker=MARKERS[index % len(MARKERS)],
            markersize=5,
            capsize=2,
            label=picture_text(f"{one.name} ({one.values:,})" if one.values else one.name),
        )
    baseline = found[0].points[-1].accuracy + found[0].points[-1].drop
    axes.axhline(100 * baseline, color="black", linewidth=1, label="32-bit")
    target = 100 * (baseline - max_drop)
    axes.axhline(target, color="black", linewidth=1, linestyle=":", label="target")
    axes.set_xticks(lengths)
    axes.set_xlabel("word length of the role (bits), the rest in 32-bit")
    axes.set_ylabel(f"{chosen_by} accuracy (%)")
    axes.set_title(picture_text(title))
    axes.grid(alpha=0.3)
    axes.legend(title="role (values held)", fontsize=8)
    return figure
