"""The front as a picture. Imported by name only: matplotlib takes half a second."""

from __future__ import annotations

import io
import itertools
import math
import os
from collections import defaultdict
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qspinn.atomic import write_bytes
from qspinn.report.cells import picture_text
from qspinn.report.data import lowest_shown
from qspinn.selection import Group, Selection

COLOURS = {"none": "#555555", "ptq": "#0b6fb8", "itq": "#c8550e"}
CLOSE = 0.06  # of the axis: ticks at least so far apart
MARGIN = 0.05  # of the accuracies shown, above them
MOST_KINDS = 30
"""Of schemes and roundings with a mark of their own."""
MOST_NUMBERS = 40
"""Candidates on the front whose numbers are written beside them."""
OTHER_COLOUR = "#888888"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def draw_front(selection: Selection) -> Figure:
    """Draw what was compared: the front as a line with the numbers of the candidates on it.

    The winner is ringed, error bars are over seeds.

    Colours are schemes, marks are roundings; hollow marks are dominated or miss the target. The
    accuracies shown are those around the target: what lies far below is counted, not drawn.
    """
    figure = Figure(figsize=(9.0, 5.0), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    groups = [row.group for row in selection.compared]
    filled = {row.group.path for row in selection.front}
    roundings = sorted({group.record.rounding or "" for group in groups})
    markers = dict(zip(roundings, itertools.cycle(MARKERS), strict=False))
    kinds: dict[tuple[str, str], list[Group]] = defaultdict(list)
    for group in groups:
        kinds[_kind(group)].append(group)
    order = sorted(kinds, key=lambda kind: (list(COLOURS).index(kind[0]), kind[1]))
    for kind in order[:MOST_KINDS]:
        _points(axes, kinds[kind], filled, COLOURS[kind[0]], markers[kind[1]])
    rest = [group for kind in order[MOST_KINDS:] for group in kinds[kind]]
    if rest:
        label = f"{len(order) - MOST_KINDS:,} more roundings"
        _points(axes, rest, filled, OTHER_COLOUR, "x", label)
    front = sorted((row.group.footprint_bits, 100 * row.group.accuracy) for row in selection.front)
    if front:
        axes.plot(*zip(*front, strict=True), color="#222222", lw=1.2, label="Pareto front")
    _number(axes, selection)
    if selection.winner is not None:
        group = selection.winner.group
        place = (group.footprint_bits, 100 * group.accuracy)
        axes.plot(*place, "o", ms=16, mfc="none", mec="#b00020", mew=1.8, label="winner", ls="")
    _footprint_axis(axes, groups)
    _accuracy_axis(axes, selection)
    axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return figure


def _number(axes: Axes, selection: Selection) -> None:
    """Write the numbers of the candidates beside the points of the front, unless they are many."""
    for row in selection.front if len(selection.front) <= MOST_NUMBERS else ():
        group = row.group
        axes.annotate(
            f"{selection.names.numbers[group.path]}",
            (group.footprint_bits, 100 * group.accuracy),
            xytext=(-7, 6),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            fontweight="bold",
        )


def _footprint_axis(axes: Axes, groups: list[Group]) -> None:
    """Ticks where there are candidates; on top how many times smaller than in 32-bit they are."""
    axes.set_xscale("log", base=2)
    widest = max(group.footprint_bits for group in groups)
    span = math.log(widest / min(group.footprint_bits for group in groups))
    ticks: list[float] = []
    for bits in sorted({group.footprint_bits for group in groups}):
        if not ticks or math.log(bits / ticks[-1]) > CLOSE * span:
            ticks.append(bits)
    axes.set_xticks(ticks, [f"{bits:,.0f}" for bits in ticks], rotation=20)
    axes.minorticks_off()
    axes.set_xlabel("footprint (bits)")
    baselines = {group.baseline_footprint_bits for group in groups}
    if len(baselines) == 1:
        above = axes.secondary_xaxis("top")
        baseline = baselines.pop()
        above.set_xticks(ticks, [f"{baseline / bits:.1f}x" for bits in ticks])
        above.minorticks_off()
        above.set_xlabel("times smaller than in 32-bit")


def _accuracy_axis(axes: Axes, selection: Selection) -> None:
    axes.set_ylabel(f"{selection.chosen_by} accuracy (%)")
    groups = [row.group for row in selection.compared]
    baselines = {round(100 * (group.baseline_accuracy or 0.0), 9) for group in groups}
    if len(baselines) == 1 and (baseline := baselines.pop()) > 0:
        axes.axhline(baseline, color=COLOURS["none"], lw=1.0, ls="--", label="32-bit", zorder=0)
        if selection.target.max_drop is not None:
            least = baseline - 100 * selection.target.max_drop
            axes.axhline(least, color=COLOURS["none"], lw=1.0, ls=":", label="target", zorder=0)
    lowest = lowest_shown(selection)
    if lowest is not None:
        bottom = 100 * lowest
        top = 100 * max(group.accuracy + (group.accuracy_std or 0.0) for group in groups)
        axes.set_ylim(bottom, top + MARGIN * (top - bottom))
        hidden = sum(group.accuracy < lowest for group in groups)
        text = f"{hidden} of {len(groups)} lie below"
        axes.text(0.01, 0.02, text, transform=axes.transAxes, fontsize=8, color=COLOURS["none"])


def _kind(group: Group) -> tuple[str, str]:
    return group.record.scheme, group.record.rounding or ""


def _points(
    axes: Axes,
    groups: list[Group],
    filled: set[str],
    colour: str,
    marker: str,
    label: str | None = None,
) -> None:
    record = groups[0].record
    if label is None:
        is_float = record.scheme == "none"
        label = "none (32-bit)" if is_float else f"{record.scheme}, {record.rounding}"
    for is_filled in (True, False):
        chosen = [group for group in groups if (group.path in filled) is is_filled]
        if not chosen:
            continue
        axes.errorbar(
            [group.footprint_bits for group in chosen],
            [100 * group.accuracy for group in chosen],
            yerr=[100 * (group.accuracy_std or 0.0) for group in chosen],
            fmt=marker,
            ms=6,
            color=colour,
            mfc=colour if is_filled else "none",
            elinewidth=0.8,
            ls="",
            label=picture_text(label),
        )
        label = "_"  # one entry of the legend per scheme and rounding


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure as what the name ends with (`.png`, `.svg`, `.pdf`): all of it or nothing.

    Raises:
        ValueError: The name ends with something else.
    """
    kind = Path(path).suffix[1:].lower()
    if kind not in ("png", "svg", "pdf"):
        raise ValueError(f"{path}: a picture's name ends with .png, .svg or .pdf")
    content = io.BytesIO()
    figure.savefig(content, format=kind)
    return write_bytes(content.getvalue(), path)
