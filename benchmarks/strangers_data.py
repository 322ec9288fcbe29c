"""What the three networks are calibrated and tested on, made as their authors made it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import measuring  # noqa: F401  (the path, one thread)

import numpy as np
import numpy.typing as npt
import torch
from scipy.io import loadmat
from torch import Tensor

from qspinn.data.atis import read_atis
from qspinn.data.events import Events, downsample, integrate

NMNIST_STEPS = 310
GESTURE_BINS = 36
GESTURE_SHOWN = 4
NOISE_FILTER = 10_000
"""Microseconds."""


@dataclass(frozen=True)
class Part:
    """Samples ``[T, N, *]``, and their labels ``[N]`` or ``[T, N]``."""

    frames: Tensor
    labels: Tensor


def nmnist_files(root: Path, part: str) -> list[Path]:
    """The recordings of ``Train`` or ``Test``, by class and name."""
    return sorted((root / "N-MNIST-small" / part).glob("[0-9]/*.bin"))


def nmnist(files: list[Path]) -> Part:
    """Counts per polarity in frames of 1 ms, from time 0 on."""
    frames = [
        integrate(read_atis(file), NMNIST_STEPS, "time", 0, 1000 * NMNIST_STEPS) for file in files
    ]
    return Part(_stacked(frames), torch.tensor([int(file.parent.name) for file in files]))


def gestures(root: Path) -> Part:
    """The ten clips: events with a near neighbour, 32x32 pixels, 36 bins, shown four times.

    The author has 150 bins in about 6 seconds; the clips have their first 1.45 seconds.
    """
    frames = []
    for number in range(1, 11):
        events = read_atis(root / "dvs128_gesture_clips" / f"{number:02}.bin", 128, 128)
        kept = downsample(without_noise(events, NOISE_FILTER), 4)
        frames.append(np.concatenate([integrate(kept, GESTURE_BINS, "time")] * GESTURE_SHOWN))
    return Part(_stacked(frames), torch.arange(10))


def without_noise(events: Events, microseconds: int) -> Events:
    """The events with an earlier one in a pixel beside, above or below, not longer ago than that.

    As event-camera tools have it: the time that counts is that of the last event in each pixel, and
    at the beginning every pixel of the sensor had one at time 0.
    """
    never = -microseconds - 1
    latest = np.full((events.height + 2, events.width + 2), never, np.int64)
    latest[1:-1, 1:-1] = 0
    last = latest.tolist()  # the events come one by one, and lists are faster at that
    kept = []
    for t, x, y in zip(events.t.tolist(), events.x.tolist(), events.y.tolist(), strict=True):
        row, above, below = last[y + 1], last[y], last[y + 2]
        row[x + 1] = t
        nearest = max(row[x], row[x + 2], above[x + 1], below[x + 1])
        kept.append(nearest + microseconds > t)
    mask = np.array(kept, bool)
    columns = (events.t[mask], events.x[mask], events.y[mask], events.p[mask])
    return Events(*columns, events.height, events.width)


def ecg(root: Path, part: str) -> Part:
    """``train`` (618) or ``test`` (141) leads, 1301 steps, one of six waves at every step.

    Steps without a label (before the first wave of a lead is known, and after the last) count as
    wave 0, as the author's own evaluation has it.
    """
    held = loadmat(root / "strangers" / "ecg_qtdb" / f"QTDB_{part}.mat")
    x, y = held["x"].astype(np.float32), held["y"].argmax(-1)
    return Part(torch.from_numpy(x).transpose(0, 1), torch.from_numpy(y).T)


def _stacked(frames: list[npt.NDArray[np.int32]]) -> Tensor:
    return torch.from_numpy(np.stack(frames, 1).astype(np.float32))
