"""The front as a picture. Imported by name only: matplotlib takes half a second."""

from __future__ import annotations

import io
import os
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qspinn.records import write_bytes
from qspinn.selection import Group, Selection

__all__ = ["draw_front", "save_figure"]

COLOURS = {"none": "#555555", "ptq": "#0b6fb8", "itq": "#c8550e"}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def draw_front(selection: Selection) -> Figure:
    """Draw what was compared: the front as a line, the winner ringed, error bars over seeds.

    Colours are schemes, marks are roundings; hollow marks are dominated or miss the target.
    """
    figure = Figure(figsize=(8.0, 5.0), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    groups = [row.group for row in selection.compared]
    filled = {row.group.path for row in selection.front}
    roundings = sorted({group.record.rounding or "" for group in groups})
    for scheme in COLOURS:
        for rounding in roundings:
            chosen = [g for g in groups if _kind(g) == (scheme, rounding)]
            marker = MARKERS[roundings.index(rounding) % len(MARKERS)]
            if chosen:
                _points(axes, chosen, filled, COLOURS[scheme], marker)
    front = sorted((row.group.footprint_bits, 100 * row.group.accuracy) for row in selection.front)
    if front:
        axes.plot(*zip(*front, strict=True), color="#222222", lw=1.2, label="Pareto front")
    if selection.winner is not None:
        group = selection.winner.group
        place = (group.footprint_bits, 100 * group.accuracy)
        axes.plot(*place, "o", ms=16, mfc="none", mec="#b00020", mew=1.8, label="winner", ls="")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("footprint (bits)")
    axes.set_ylabel("accuracy (%)")
    axes.set_title("Accuracy against footprint")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8, markerscale=0.7)
    return figure


def _kind(group: Group) -> tuple[str, str]:
    return group.record.scheme, group.record.rounding or ""


def _points(axes: Axes, groups: list[Group], filled: set[str], colour: str, marker: str) -> None:
    record = groups[0].record
    label = "none (32-bit)" if record.scheme == "none" else f"{record.scheme}, {record.rounding}"
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
            label=label,
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
