"""Synthetic gestures: compared with real ones, and how hard they are to tell apart.

    python benchmarks/synthetic_gesture.py --clips FOLDER

FOLDER holds real clips 01.bin to 10.bin of DVS128 Gesture, class n in file n, in the format of
N-MNIST (5 bytes per event). What spiking networks reach on them is measured by gestures.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from measuring import RESULTS, ROOT

import numpy as np
import synthetic_gesture_clips as clips
import torch

from qspinn.atomic import write_text
from qspinn.data import SyntheticGesture

PENALTIES = 10.0 ** np.arange(0, 8)


def main() -> None:
    """Measures, draws, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, required=True, help="folder of 01.bin to 10.bin")
    parser.add_argument("--recordings", type=int, default=12, help="synthetic ones to compare")
    parser.add_argument("--root", type=Path, default=ROOT / "data")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    data = SyntheticGesture(arguments.root, val_subjects=0, cache=arguments.root / "cache")
    real = clips.read_clips(arguments.clips)
    synthetic = clips.film_clips(arguments.recordings, data.recording_settings.difficulty)
    clips.draw(real, synthetic, arguments.results / "synthetic_gesture.png")
    data.prepare_data()
    data.setup()
    text = report(data, clips.table(real, synthetic), arguments.recordings)
    path = arguments.results / "synthetic_gesture.md"
    write_text(text, path)
    print(f"{text}\nwrote {path}")


def readout_accuracies(data: SyntheticGesture) -> dict[str, float]:
    """Test accuracies of linear readouts (ridge regression on one-hot labels)."""
    (train, labels), (test, truth) = (
        (part.fetch(torch.arange(len(part))).numpy(), part.labels.numpy())
        for part in (data.train_dataset, data.test_dataset)
    )
    return {
        name: ridge_accuracy(features(train), labels, features(test), truth)
        for name, features in {
            "summed frames": lambda frames: frames.sum(1),
            "logarithms of summed frames": lambda frames: np.log1p(frames.sum(1)),
            "all frames": lambda frames: frames,
        }.items()
    }


def ridge_accuracy(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray
) -> float:
    """With standardised features, and the penalty that is best on the test set: an upper bound."""
    train, test = (features.reshape(len(features), -1) for features in (train, test))
    mean, deviation = train.mean(0), train.std(0) + 1e-3
    train, test = (train - mean) / deviation, (test - mean) / deviation
    targets = np.eye(labels.max() + 1)[labels]
    targets -= targets.mean(0)
    values, vectors = np.linalg.eigh((train @ train.T).astype(np.float64))
    scores = test @ train.T @ vectors
    return max(
        float(((scores / (values + penalty) @ vectors.T @ targets).argmax(1) == truth).mean())
        for penalty in PENALTIES
    )


def report(data: SyntheticGesture, comparison: str, recordings: int) -> str:
    """The page."""
    train, test = len(data.train_dataset), len(data.test_dataset)
    frames, side = data.time_steps, data.input_shape[-1]
    rows = [("chance", f"{1 / data.num_classes:.1%}")]
    rows += [(f"linear, {name}", f"{100 * value:.1f}%") for name, value in
             readout_accuracies(data).items()]  # fmt: skip
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"""# Synthetic gestures

**Everything here is synthetic, except the clips that are called real.** `data=synthetic_gesture`
simulates recordings in the format of DVS128 Gesture; accuracies on it say nothing about accuracies
on DVS128 Gesture.

Made by `python benchmarks/synthetic_gesture.py --clips FOLDER`.

## Beside real clips

![real and synthetic clips, frames and distributions](synthetic_gesture.png)

Real: one clip of 1.45 s from each of ten classes of DVS128 Gesture (the simulator was calibrated
on these only; the class of each clip was inferred from its content). Synthetic: clips of the same
length from {recordings} recordings. Mean over the ten classes (lowest class to highest).
Intervals exclude repeated readouts: further ON events of a pixel within {clips.READOUT} us.
Not simulated: the OFF event that a real pixel often sends 0.1 to 1 ms after a burst of ON events.
Therefore the shortest intervals are longer than real ones, and intervals vary less overall.

{comparison}

## How hard they are

Default settings: {train} training and {test} test samples of different subjects, {frames}
frames of 2 polarities and {side}x{side} pixels. One test sample is {100 / test:.1f} points.

| readout | test accuracy |
|---|---|
{lines}

The linear readouts are ridge regressions on standardised counts, each with the penalty that is
best on the test set, so that the figures are upper bounds. They cannot distinguish the direction of
the arm circles: clockwise and counter-clockwise produce the same events at the same places in a
different order. Spiking networks can: [gestures.md](gestures.md).
"""


if __name__ == "__main__":
    main()
