"""Clips of gestures, real and synthetic: their statistics, and a picture of them side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qspinn.data import Events, read_atis
from qspinn.data.arm_motions import GESTURES
from qspinn.data.gesture_recordings import LIGHTS, TRAIN_USERS, RecordingSettings, record

CLASSES = range(1, 11)
"""Of which there are real clips."""
MILLISECONDS = 1450
SHOWN = 5
"""Frames per clip in the picture."""
FRAME = 30_000
READOUT = 2
"""Microseconds within which further ON events of a pixel are repeated readouts of one."""
COLOURS = ("tab:blue", "tab:orange")
SIDES = ("real", "synthetic")

Clips = list[list[Events]]
"""Clips of each class."""


def read_clips(folder: Path) -> Clips:
    """The real ones."""
    return [[read_atis(folder / f"{number:02d}.bin", 128, 128)] for number in CLASSES]


def film_clips(recordings: int, difficulty: float) -> Clips:
    """As long ones of the simulator, of other users in changing lights."""
    settings = RecordingSettings(difficulty, MILLISECONDS, MILLISECONDS)
    lights = list(LIGHTS)
    clips: Clips = [[] for _ in CLASSES]
    for number in range(recordings):
        user = TRAIN_USERS[number % len(TRAIN_USERS)]
        recording = record(user, lights[number % len(lights)], settings)
        for gesture, start, stop in recording.labels.tolist():
            if gesture in CLASSES:
                part = recording.events.between(start, stop)
                clips[gesture - 1].append(
                    Events(part.t - start, part.x, part.y, part.p, part.height, part.width)
                )
    return clips


def intervals(events: Events) -> tuple[np.ndarray, np.ndarray]:
    """Microseconds between successive events of a pixel, and whether it is a repeated readout."""
    pixel = events.y.astype(np.int64) * events.width + events.x
    order = np.argsort(pixel, kind="stable")
    is_same = np.diff(pixel[order]) == 0
    gaps = np.diff(events.t[order])[is_same]
    return gaps, (gaps <= READOUT) & (events.p[order][1:][is_same] == 1)


def statistics(events: Events) -> dict[str, float]:
    """What is compared."""
    seconds = (events.t[-1] - events.t[0]) * 1e-6
    counts = count_image(events).ravel()
    gaps, is_repeated = intervals(events)
    spaced = gaps[~is_repeated] / 1e3
    active = counts[counts > 0]
    slices = np.bincount((events.t - events.t[0]) // 20_000)[:-1]
    return {
        "thousand events per second": len(events) / seconds / 1e3,
        "share of ON events": float(events.p.mean()),
        "share of repeated readouts": is_repeated.sum() / len(events),
        "pixels with an event": (counts > 0).mean(),
        "pixels with 5 or more": (counts >= 5).mean(),
        "pixels with 20 or more": (counts >= 20).mean(),
        "events of an active pixel: median": float(np.median(active)),
        "events of an active pixel: 90% quantile": float(np.percentile(active, 90)),
        "events of an active pixel: 99% quantile": float(np.percentile(active, 99)),
        "ms between events of a pixel: 10% quantile": float(np.percentile(spaced, 10)),
        "ms between events of a pixel: median": float(np.median(spaced)),
        "ms between events of a pixel: 90% quantile": float(np.percentile(spaced, 90)),
        "columns of events: standard deviation": float(events.x.std()),
        "rows of events: standard deviation": float(events.y.std()),
        "events in 20 ms: standard deviation / mean": float(slices.std() / slices.mean()),
    }


def table(real: Clips, synthetic: Clips) -> str:
    """Mean over the classes, and the lowest and highest class."""
    lines = ["| | real | synthetic |", "|---|---|---|"]
    sides = [[[statistics(clip) for clip in clips] for clips in side] for side in (real, synthetic)]
    for name in sides[0][0][0]:
        cells = []
        for side in sides:
            means = [float(np.mean([one[name] for one in clips])) for clips in side]
            cells.append(f"{np.mean(means):.3g} ({min(means):.3g} to {max(means):.3g})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(real: Clips, synthetic: Clips, path: Path) -> None:
    """Frames of a clip of each class, real ones on the left, and distributions below."""
    figure = plt.figure(figsize=(15, 16), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(14, 3))
    for half, clips, title in zip(above.subfigures(1, 2), (real, synthetic), SIDES, strict=True):
        half.suptitle(f"{title}: five times 30 ms (red ON, blue OFF), and all events")
        _draw_frames(half, [one[0] for one in clips])
    rates, counts, gaps = below.subplots(1, 3)
    _draw_rates(rates, real, synthetic)
    _draw_distributions(counts, gaps, real, synthetic)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=75)
    plt.close(figure)


def count_image(events: Events) -> np.ndarray:
    """Events of each pixel, ``[H, W]``."""
    return _image(events, np.ones(len(events)))


def _image(events: Events, weights: np.ndarray) -> np.ndarray:
    pixel = events.y.astype(np.int64) * events.width + events.x
    sums = np.bincount(pixel, weights, events.height * events.width)
    return sums.reshape(events.height, events.width)


def _draw_frames(figure: Figure, clips: Sequence[Events]) -> None:
    axes = figure.subplots(len(clips), SHOWN + 1)
    for number, clip, row in zip(CLASSES, clips, axes, strict=True):
        for column, axis in enumerate(row):
            axis.set(xticks=[], yticks=[])
            if column < SHOWN:
                start = 100_000 + column * 150_000
                part = clip.between(start, start + FRAME)
                axis.imshow(_image(part, 2.0 * part.p - 1), cmap="RdBu_r", vmin=-3, vmax=3)
            else:
                image = count_image(clip)
                axis.imshow(image, cmap="gray", vmin=0, vmax=np.percentile(image, 98))
        row[0].set_ylabel(GESTURES[number - 1].replace(" ", "\n"), fontsize=8)


def _draw_rates(axis: Axes, real: Clips, synthetic: Clips) -> None:
    for clips, colour, label in zip((real, synthetic), COLOURS, SIDES, strict=True):
        points = [
            (number, len(clip) / MILLISECONDS)
            for number, ones in zip(CLASSES, clips, strict=True)
            for clip in ones
        ]
        axis.plot(*np.array(points).T, "o" if label == "real" else ".", color=colour, label=label)
    axis.set(xlabel="class", ylabel="thousand events per second", xticks=list(CLASSES))
    axis.set_ylim(bottom=0)
    axis.legend()


def _draw_distributions(counts: Axes, gaps: Axes, real: Clips, synthetic: Clips) -> None:
    thresholds = np.arange(1, 300)
    edges = np.logspace(1, 6, 51)
    for clips, colour, label in zip((real, synthetic), COLOURS, SIDES, strict=True):
        everything = [clip for ones in clips for clip in ones]
        pixels = np.concatenate([count_image(clip).ravel() for clip in everything])
        counts.plot(thresholds, [(pixels >= least).mean() for least in thresholds], color=colour)
        spaced = np.concatenate([one[~repeated] for one, repeated in map(intervals, everything)])
        share, _ = np.histogram(spaced, edges)
        gaps.stairs(share / len(spaced), edges / 1e3, color=colour, label=label)
    counts.set(
        xscale="log", yscale="log", ylim=(1e-4, 1), xlabel="events in 1.45 s", ylabel="share of "
        "pixels with as many or more",
    )  # fmt: skip
    gaps.set(xscale="log", xlabel="ms between events of a pixel", ylabel="share of intervals")
