"""How the cost of the network grows with neurons, time steps and images, with straight lines."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from stdp_ours import CHUNK, NEURONS, STEPS, WARMUP, Trained, network, scaled
from torch import Tensor

SIZES = {
    "neurons": (100, 200, 400, 800, 1600, 3200, 6400),
    "time steps": (50, 100, 150, 200, 250, 300, 350, 400, 450, 500),
    "images": (500, 1000, 2000, 3000, 4000),
}
MEASURED = 128  # images, where their number is not what is varied
MODES = {"training": True, "inference": False}
COLORS = {"training": "#c1502e", "inference": "#2a6f97"}


def measure(images: Tensor, rounds: int) -> dict[str, Any]:
    """Axis -> mode -> sizes, median seconds, and the line through them."""
    return {axis: _along(axis, sizes, images, rounds) for axis, sizes in SIZES.items()}


def _along(axis: str, sizes: Sequence[int], images: Tensor, rounds: int) -> dict[str, Any]:
    """Processor seconds at each size; all sizes take turns: a slow moment hits all of them."""
    prepared = []
    for size in sizes:
        neurons = size if axis == "neurons" else NEURONS
        steps = size if axis == "time steps" else STEPS
        count = size if axis == "images" else MEASURED
        places = np.arange(count) % len(images)
        trained = Trained(network(neurons=neurons, steps=steps), scaled(images[:WARMUP]))
        prepared.append((trained, scaled(images[places]), count))
    times: dict[str, list[list[float]]] = {mode: [[] for _ in sizes] for mode in MODES}
    for number in range(rounds):
        start = time.perf_counter()
        for place, (trained, shown, count) in enumerate(prepared):
            for mode, learning in MODES.items():
                taken = trained.seconds(shown, learning, CHUNK)["cpu_seconds"]
                # One image, except where the number of images is what is varied.
                times[mode][place].append(taken * count if axis == "images" else taken)
        print(f"{axis}, round {number + 1}: {time.perf_counter() - start:.0f} s", flush=True)
    return {mode: fit(sizes, [statistics.median(t) for t in times[mode]]) for mode in MODES}


def fit(sizes: Sequence[int], seconds: Sequence[float]) -> dict[str, Any]:
    """The straight line with the smallest squared relative errors."""
    x, y = np.array(sizes, float), np.array(seconds)
    slope, intercept = np.polyfit(x, y, 1, w=1 / y)
    line = intercept + slope * x
    return {
        "sizes": list(sizes),
        "seconds": list(seconds),
        "slope": float(slope),
        "intercept": float(intercept),
        "r_squared": float(1 - ((y - line) ** 2).sum() / ((y - y.mean()) ** 2).sum()),
        "largest_error": float(np.abs(y / line - 1).max()),
    }


def table(costs: dict[str, Any]) -> str:
    """The lines in Markdown."""
    rows = [
        "| seconds against | | line | R² | largest deviation |",
        "|---|---|---|---|---|",
    ]
    for axis, modes in costs.items():
        for mode, one in modes.items():
            sizes = f"{one['sizes'][0]} to {one['sizes'][-1]}"
            rows.append(
                f"| {axis}, {sizes} | {mode} | {1e3 * one['intercept']:.3f} ms + "
                f"{1e6 * one['slope']:.3f} µs × {axis} | {one['r_squared']:.4f} | "
                f"{100 * one['largest_error']:.0f}% |"
            )
    return "\n".join(rows)


def draw(costs: dict[str, Any], epochs: Sequence[dict[str, Any]], path: Path) -> None:
    """The three costs, and memory over an epoch where one was measured."""
    figure, panels = plt.subplots(2, 2, figsize=(10, 7.4), layout="constrained")
    for axes, (axis, modes) in zip(panels.flat, costs.items(), strict=False):
        of_images = axis == "images"
        for mode, one in modes.items():
            x, y = np.array(one["sizes"]), np.array(one["seconds"])
            unit = 1 if of_images else 1e3
            line = one["intercept"] + one["slope"] * x
            axes.plot(x, unit * line, color=COLORS[mode], lw=1, alpha=0.6)
            axes.plot(x, unit * y, "o", color=COLORS[mode], ms=5, label=mode)
        axes.set_xlabel(axis)
        axes.set_ylabel("seconds" if of_images else "ms per image")
        axes.set_xlim(0)
        axes.set_ylim(0)
        axes.grid(alpha=0.3)
        fixed = {"neurons": f"T={STEPS}", "time steps": f"N={NEURONS}"}
        axes.set_title(fixed.get(axis, f"N={NEURONS}, T={STEPS}"), fontsize=10)
        axes.legend(loc="upper left")
    _draw_memory(panels.flat[3], epochs)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _draw_memory(axes: Any, epochs: Sequence[dict[str, Any]]) -> None:
    if not epochs:
        axes.set_axis_off()
        return
    for one in epochs:
        shown = CHUNK * (1 + np.arange(len(one["peak_mib"])))
        label = f"{one['variant']}, {one['parallel']} side by side"
        axes.plot(shown, one["peak_mib"], lw=1.5, label=label)
    axes.set_xlabel("images of an epoch")
    axes.set_ylabel("peak memory of the process (MiB)")
    axes.set_title(f"training, N={NEURONS}, T={STEPS}", fontsize=10)
    axes.set_xlim(0)
    axes.set_ylim(0, 1.15 * max(max(one["peak_mib"]) for one in epochs))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
