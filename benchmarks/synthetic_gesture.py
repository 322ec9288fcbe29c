"""Synthetic gestures beside real ones: pictures and statistics of events, and a linear readout.

    python benchmarks/synthetic_gesture.py --clips FOLDER

FOLDER holds clips 01.bin to 10.bin of DVS128 Gesture (class n in file n): 5 bytes per event: x, y,
then 1 bit polarity and 23 bits time in microseconds, big-endian.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from qspinn.data.arm_motions import GESTURES  # noqa: E402
from qspinn.data.events import Events  # noqa: E402
from qspinn.data.gesture_recordings import LIGHTS, RecordingSettings, record  # noqa: E402

CLIP_CLASSES = range(1, 11)
SHOWN = 5
"""Frames per clip in the picture."""
FRAME = 30_000
READOUT = 2
"""Microseconds within which further ON events of a pixel are repeated readouts of one."""


def main() -> None:
    """Measures, draws, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True, help="folder of 01.bin to 10.bin")
    parser.add_argument("--recordings", type=int, default=12, help="synthetic ones per class")
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results")
    arguments = parser.parse_args()
    real = [[read_clip(arguments.clips / f"{n:02d}.bin")] for n in CLIP_CLASSES]
    synthetic = film_clips(arguments.recordings)
    rows = statistics_table(real, synthetic)
    print(rows)
    draw(real, synthetic, arguments.results / "synthetic_gesture.png")


def read_clip(path: Path) -> Events:
    """A real clip in the order of its times."""
    rows = np.fromfile(path, np.uint8).reshape(-1, 5).astype(np.int64)
    t = ((rows[:, 2] & 0x7F) << 16) | (rows[:, 3] << 8) | rows[:, 4]
    order = np.argsort(t, kind="stable")
    x, y = (rows[order, column].astype(np.uint16) for column in (0, 1))
    p = (rows[order, 2] >> 7).astype(np.uint8)
    return Events(t[order], x, y, p, 128, 128)


def film_clips(recordings: int) -> list[list[Events]]:
    """Clips as long as the real ones, of training users, per class."""
    settings = RecordingSettings(shortest=1450, longest=1450)
    lights = list(LIGHTS)
    clips: list[list[Events]] = [[] for _ in CLIP_CLASSES]
    for number in range(recordings):
        recording = record(1 + number % 23, lights[number % len(lights)], settings)
        for gesture, start, stop in recording.labels:
            if gesture in CLIP_CLASSES:
                part = recording.events.between(int(start), int(stop))
                shifted = Events(part.t - start, part.x, part.y, part.p, part.height, part.width)
                clips[gesture - 1].append(shifted)
    return clips


def statistics(events: Events) -> dict[str, float]:
    """What is compared."""
    seconds = (events.t[-1] - events.t[0]) * 1e-6
    pixel = events.y.astype(np.int64) * events.width + events.x
    counts = np.bincount(pixel, minlength=events.height * events.width)
    order = np.argsort(pixel, kind="stable")
    is_same = np.diff(pixel[order]) == 0
    intervals = np.diff(events.t[order])[is_same]
    repeated = (intervals <= READOUT) & (events.p[order][1:][is_same] == 1)
    spaced = intervals[~repeated]
    active = counts[counts > 0]
    slices = np.bincount((events.t - events.t[0]) // 20_000)
    return {
        "events per second, thousands": len(events) / seconds / 1e3,
        "share of ON events": float(events.p.mean()),
        "share of repeated readouts": repeated.sum() / len(events),
        "share of pixels with an event": (counts > 0).mean(),
        "share of pixels with 5 or more": (counts >= 5).mean(),
        "share of pixels with 20 or more": (counts >= 20).mean(),
        "events per active pixel, median": float(np.median(active)),
        "events per active pixel, 90%": float(np.percentile(active, 90)),
        "events per active pixel, 99%": float(np.percentile(active, 99)),
        "interval in a pixel, 10% (ms)": float(np.percentile(spaced, 10)) / 1e3,
        "interval in a pixel, median (ms)": float(np.median(spaced)) / 1e3,
        "interval in a pixel, 90% (ms)": float(np.percentile(spaced, 90)) / 1e3,
        "spread of columns (pixels)": float(events.x.std()),
        "spread of rows (pixels)": float(events.y.std()),
        "events in 20 ms, deviation / mean": float(slices[:-1].std() / slices[:-1].mean()),
    }


def statistics_table(real: list[list[Events]], synthetic: list[list[Events]]) -> str:
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


def draw(real: list[list[Events]], synthetic: list[list[Events]], path: Path) -> None:
    """Frames of a clip of each class, real on the left."""
    columns = SHOWN + 1
    figure, axes = plt.subplots(
        len(CLIP_CLASSES), 2 * columns, figsize=(2 * columns * 1.3, len(CLIP_CLASSES) * 1.3)
    )
    for row, n in enumerate(CLIP_CLASSES):
        for side, clips in enumerate((real, synthetic)):
            clip = clips[row][0]
            for column in range(columns):
                axis = axes[row, side * columns + column]
                axis.set_xticks([])
                axis.set_yticks([])
                if column < SHOWN:
                    start = 100_000 + column * 150_000
                    image = signed_image(clip.between(start, start + FRAME))
                    axis.imshow(image, cmap="RdBu_r", vmin=-3, vmax=3)
                else:
                    image = count_image(clip)
                    axis.imshow(image, cmap="gray", vmin=0, vmax=np.percentile(image, 98))
        axes[row, 0].set_ylabel(f"{n} {GESTURES[n - 1]}", fontsize=6)
    figure.subplots_adjust(0.02, 0, 1, 0.97, 0.02, 0.02)
    figure.text(0.25, 0.98, "real (DVS128 Gesture)", ha="center")
    figure.text(0.75, 0.98, "synthetic", ha="center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def count_image(events: Events) -> np.ndarray:
    pixel = events.y.astype(np.int64) * events.width + events.x
    counts = np.bincount(pixel, minlength=events.height * events.width)
    return counts.reshape(events.height, events.width)


def signed_image(events: Events) -> np.ndarray:
    pixel = events.y.astype(np.int64) * events.width + events.x
    signs = np.bincount(pixel, 2.0 * events.p - 1.0, events.height * events.width)
    return signs.reshape(events.height, events.width)


if __name__ == "__main__":
    main()
