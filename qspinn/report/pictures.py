"""Pictures of what a network learned and of what it mistakes: matplotlib figures, and PNG files.

Imported by name only (`from qspinn.report.pictures import ...`): matplotlib takes half a second,
which tables do without.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from qspinn.atomic import write_bytes

DPI = 100
SIDE = 1200
"""Pixels to which small pictures of weights are enlarged, at most."""
MARGIN = 40
BAR_WIDTH = 20
BAR_SPACE = 120
MOST_NUMBERS = 30
"""Classes up to which a confusion matrix has its counts written into it."""


def tile_weights(weights: NDArray[np.floating], shape: Sequence[int]) -> NDArray[np.float64]:
    """The incoming weights of every neuron as a small picture, all of them on a grid.

    Neurons go from left to right and from top to bottom, in a square or one row less or column
    more. Channels of a neuron stand side by side.

    Args:
        weights: ``[inputs, neurons]``.
        shape: Of the input: ``(height, width)`` or ``(channels, height, width)``.

    Returns:
        ``[rows (height + 1) + 1, columns (channels width + 1) + 1]``: NaN on the lines between the
        tiles, and where there is no neuron.

    Raises:
        ValueError: Shapes that do not fit each other.
    """
    if len(shape) not in (2, 3) or weights.ndim != 2 or len(weights) != math.prod(shape):
        raise ValueError(
            f"weights {list(weights.shape)} and input shape {list(shape)}: expected "
            "[inputs, neurons] and [height, width] or [channels, height, width]"
        )
    height, width = shape[-2:]
    neurons = weights.shape[1]
    channels = weights.T.reshape(neurons, -1, height, width)
    tiles = channels.transpose(0, 2, 1, 3).reshape(neurons, height, -1)
    columns = math.ceil(math.sqrt(neurons))
    rows = math.ceil(neurons / columns)
    step_down, step_right = height + 1, tiles.shape[2] + 1
    grid = np.full((rows * step_down + 1, columns * step_right + 1), np.nan)
    for index, tile in enumerate(tiles):
        top = index // columns * step_down + 1
        left = index % columns * step_right + 1
        grid[top : top + step_down - 1, left : left + step_right - 1] = tile
    return grid


def draw_weights(weights: NDArray[np.floating], shape: Sequence[int], title: str) -> Figure:
    """A figure of :func:`tile_weights` whose every weight is a square of whole pixels.

    Black is 0 and the brightest colour is the largest weight.
    """
    grid = tile_weights(weights, shape)
    zoom = max(1, SIDE // max(grid.shape))
    height, width = (zoom * size for size in grid.shape)
    whole = (width + 2 * MARGIN + BAR_SPACE, height + 2 * MARGIN)
    figure = Figure(figsize=(whole[0] / DPI, whole[1] / DPI), dpi=DPI)
    axes = _axes(figure, MARGIN, MARGIN, width, height)
    axes.set_axis_off()
    axes.set_title(title)
    colours = matplotlib.colormaps["inferno"].with_extremes(bad="white")
    largest = float(weights.max(initial=0.0)) or 1.0
    image = axes.imshow(
        grid, cmap=colours, vmin=0.0, vmax=largest, interpolation="nearest", aspect="auto"
    )
    bar = _axes(figure, width + 2 * MARGIN, MARGIN, BAR_WIDTH, height)
    figure.colorbar(image, cax=bar, label="weight")
    return figure


def draw_confusion(matrix: NDArray[np.integer], title: str) -> Figure:
    """A figure of a confusion matrix: counts, coloured by their share of the row.

    Args:
        matrix: ``[C, C]``, rows are labels, columns the classes given.
        title: Stands above it, with the accuracy.

    Raises:
        ValueError: A matrix that is not square.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"confusion matrix {list(matrix.shape)}: expected [classes, classes]")
    classes, total = len(matrix), int(matrix.sum())
    side = max(5.0, 0.45 * min(classes, MOST_NUMBERS))
    figure = Figure(figsize=(side + 1.5, side + 1.0), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, interpolation="nearest")
    right = f"{100 * np.trace(matrix) / total:.2f}% of {total:,} right" if total else "no images"
    axes.set_title(f"{title}: {right}")
    axes.set_xlabel("class given")
    axes.set_ylabel("label")
    figure.colorbar(image, ax=axes, label="share of the label's images")
    if classes <= MOST_NUMBERS:
        axes.set_xticks(range(classes))
        axes.set_yticks(range(classes))
        for (row, column), count in np.ndenumerate(matrix):
            ink = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{count}", ha="center", va="center", color=ink, fontsize=8)
    return figure


def save_png(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure as a PNG file: all of it, or ``path`` holds what it held before."""
    content = io.BytesIO()
    figure.savefig(
        content,
        format="png",
        dpi=DPI,
        metadata={"Software": "qspinn"},
        pil_kwargs={"compress_level": 3},
    )
    return write_bytes(content.getvalue(), path)


def _axes(figure: Figure, left: int, bottom: int, width: int, height: int) -> Axes:
    """Axes at whole pixels, so that an image in them is not resampled."""
    across, up = figure.get_size_inches() * DPI
    return figure.add_axes((left / across, bottom / up, width / across, height / up))
