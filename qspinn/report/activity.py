"""Figures of what neurons do: spike rasters and histograms of potentials, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from numpy.typing import NDArray

from qspinn.report.cells import picture_text
from qspinn.report.pictures import DPI

MOST_LAYERS = 10
MOST_NEURONS = 120
MOST_BINS = 400
FLOAT_BINS = 80
COLOURS = ("0.45", "#c1502e", "#2a6f97")

Runs = Mapping[str, Mapping[str, "LayerActivity"]]
"""Name of a run, such as ``32-bit`` -> layer path -> what it did."""
MARGINS = (0.72, 0.15, 0.48, 0.66, 0.25, 0.5)
"""Inches left, right, below, above all axes; between columns, and between rows."""


@dataclass(frozen=True)
class LayerActivity:
    """What one layer of neurons did.

    Attributes:
        spikes: ``[T, N, *]``, 0 or 1 (or any output).
        potentials: ``[T, N, *]``, after each step.
        threshold: At which neurons fire.
    """

    spikes: NDArray[np.floating]
    potentials: NDArray[np.floating]
    threshold: float


def shown_neurons(count: int) -> NDArray[np.int64]:
    """Which of a layer's neurons a raster shows: all, or 120 evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, MOST_NEURONS)).round().astype(np.int64))


def draw_rasters(runs: Runs, title: str) -> Figure:
    """Spikes of the first sample: a row per layer, a column per run, dark where a neuron fires.

    Time goes to the right, neurons go down. The mean rate over all samples stands above each.
    """
    layers = _shown_layers(runs)
    figure, grid = _axes_grid(len(layers), len(runs), 1.7, 3.6)
    figure.suptitle(title)
    for column, (name, activity) in enumerate(runs.items()):
        for row, layer in enumerate(layers):
            axes = grid[row][column]
            spikes = activity[layer].spikes
            first = spikes[:, 0].reshape(len(spikes), -1)
            shown = first[:, shown_neurons(first.shape[1])].T
            axes.imshow(
                shown, cmap="Greys", vmin=0.0, vmax=1.0, aspect="auto", interpolation="nearest"
            )
            rate = f"{name}: {100 * float(spikes.mean()):.1f}% fire per step"
            axes.set_title(rate, fontsize=8)
            axes.set_yticks([])
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.tick_params(labelsize=7)
            if column == 0:
                axes.set_ylabel(f"{picture_text(layer)}\n{first.shape[1]:,} neurons", fontsize=7)
    for axes in grid[-1]:
        axes.set_xlabel("time step", fontsize=8)
    return figure


def grid_bins(values: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    """Edges of bins for potentials of several runs, the last of which may lie on a grid.

    Where the last run's values are whole steps apart, and not too many of them, each step gets a
    bin of its own, in the middle of it; else there are 80 bins.

    Args:
        values: Any shape each; all finite.

    Returns:
        Ascending ``[bins + 1]``.
    """
    low = min(float(one.min()) for one in values)
    high = max(float(one.max()) for one in values)
    distinct = np.unique(values[-1].astype(np.float64))
    step = float(np.diff(distinct).min()) if len(distinct) > 1 else 0.0
    if step > 0.0 and (high - low) / step <= MOST_BINS:
        origin = distinct[0]
        steps = (distinct - origin) / step
        if np.allclose(steps, np.round(steps), rtol=0.0, atol=1e-3):
            first, last = (np.floor((end - origin) / step + 0.5) for end in (low, high))
            edges: NDArray[np.float64] = origin + (np.arange(first, last + 2) - 0.5) * step
            return edges
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, FLOAT_BINS + 1)


def draw_potentials(runs: Runs, title: str) -> Figure:
    """Histograms of the potentials that neurons keep between steps: a row per layer.

    Shares of all neurons, samples and steps, on a logarithmic scale, in the bins of
    :func:`grid_bins`; the runs lie over each other. A dashed line is the threshold. Values that are
    not finite are left out, and counted in the title of the layer.

    Args:
        runs: Of the same layers; a quantised run last.
        title: Stands above all.
    """
    layers = _shown_layers(runs)
    figure, grid = _axes_grid(len(layers), 1, 1.9, 6.4)
    figure.suptitle(title)
    for row, layer in enumerate(layers):
        _draw_potentials_of(grid[row][0], layer, {n: run[layer] for n, run in runs.items()})
    grid[0][0].legend(fontsize=8)
    grid[-1][0].set_xlabel("membrane potential after a step", fontsize=8)
    return figure


def _draw_potentials_of(axes: Axes, layer: str, runs: Mapping[str, LayerActivity]) -> None:
    values = {name: run.potentials.reshape(-1) for name, run in runs.items()}
    finite = {name: one[np.isfinite(one)] for name, one in values.items()}
    lost = sum(len(values[name]) - len(finite[name]) for name in values)
    lost_text = f": {lost:,} values are not finite" if lost else ""
    axes.set_title(f"{picture_text(layer)}{lost_text}", fontsize=8)
    axes.set_ylabel("share", fontsize=8)
    axes.set_yscale("log")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.tick_params(labelsize=7)
    some = [one for one in finite.values() if len(one)]
    if not some:
        return
    edges = grid_bins(some)
    for index, (name, one) in enumerate(finite.items()):
        shares = np.histogram(one, edges)[0] / max(len(values[name]), 1)
        colour = COLOURS[index % len(COLOURS)]
        axes.stairs(shares, edges, color=colour, fill=index > 0, alpha=0.6 if index else 1.0)
        axes.stairs(shares, edges, color=colour, label=name)
    axes.axvline(next(iter(runs.values())).threshold, color="black", lw=0.8, ls="--")


def _shown_layers(runs: Runs) -> list[str]:
    """The layers of all runs: the first and the last ones, where there are too many."""
    layers = [*next(iter(runs.values()))]
    if len(layers) <= MOST_LAYERS:
        return layers
    half = MOST_LAYERS // 2
    return layers[:half] + layers[-half:]


def _axes_grid(rows: int, columns: int, height: float, width: float) -> tuple[Figure, list]:
    """Axes with margins of fixed sizes: to have them found takes longer than all the rest."""
    across, up = width * columns + 0.6, height * rows + 0.7
    figure = Figure(figsize=(across, up), dpi=DPI)
    left, right, bottom, top, beside, above = MARGINS
    inner = (up - bottom - top - above * (rows - 1)) / rows
    margins = {
        "left": left / across,
        "right": 1 - right / across,
        "bottom": bottom / up,
        "top": 1 - top / up,
        "hspace": above / inner,
        "wspace": beside / ((across - left - right - beside * (columns - 1)) / columns),
    }
    return figure, figure.subplots(rows, columns, squeeze=False, gridspec_kw=margins).tolist()
