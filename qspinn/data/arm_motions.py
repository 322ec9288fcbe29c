"""How the hands of a person move in the eleven gestures of DVS128 Gesture.

Source of the classes: A. Amir et al., "A Low Power, Fully Event-Based Gesture Recognition System",
CVPR 2017; what the hands do is modelled after recordings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qspinn.data.checks import check

FloatArray = npt.NDArray[np.float64]

GESTURES = (
    "hand clapping",
    "right hand wave",
    "left hand wave",
    "right arm clockwise",
    "right arm counter-clockwise",
    "left arm clockwise",
    "left arm counter-clockwise",
    "arm roll",
    "air drums",
    "air guitar",
    "other gestures",
)
"""Gesture number n of the data set is ``GESTURES[n - 1]``. Clockwise is how the person sees it; the
camera, which the person faces, sees the opposite, and the right arm on the left."""

RIGHT, LEFT = 0, 1
_TEMPO = (2.4, 2.2, 2.2, 1.1, 1.1, 1.1, 1.1, 1.7, 2.0, 2.6, 1.0)
"""Periods per second, typically, of each gesture."""
_WAVES = 3
"""Sine waves per coordinate of a hand that makes another gesture."""


@dataclass(frozen=True)
class Style:
    """The style of one performance of a gesture."""

    tempo: float  # periods per second
    phase: float  # where in its period the gesture begins, in radians
    amplitude: float  # size of the motion, 1 for the typical one
    sway: float  # irregularity of the tempo: amplitude of a slow phase shift, in radians
    # `[2, 3]`, metres by which the right and the left hand are elsewhere than typical: outward,
    # down, toward the camera.
    offset: FloatArray
    reverse: bool  # whether an arm roll turns backward
    # `[2, 3, 3, 3]`: of each hand and coordinate, three waves of an other gesture as frequency
    # (periods per `1 / tempo`), phase (radians) and weight.
    waves: FloatArray


def draw_style(gesture: int, spread: float, rng: np.random.Generator) -> Style:
    """Draws a style.

    Args:
        gesture: Number of the gesture, 1 to 11.
        spread: How much styles differ: 0 (only in phase) to 1 (tempo by up to 45%, size by up to
            35%, hands up to 12 cm elsewhere).
        rng: Where it comes from.
    """
    waves = np.empty((2, 3, _WAVES, 3))
    waves[..., 0] = rng.uniform(0.4, 2.0, (2, 3, _WAVES))
    waves[..., 1] = rng.uniform(0, 2 * np.pi, (2, 3, _WAVES))
    waves[..., 2] = rng.normal(0, 1, (2, 3, _WAVES))
    waves[..., 2] /= np.linalg.norm(waves[..., 2], axis=-1, keepdims=True)
    return Style(
        tempo=_TEMPO[gesture - 1] * (1 + 0.45 * spread * rng.uniform(-1, 1)),
        phase=rng.uniform(0, 2 * np.pi),
        amplitude=1 + 0.35 * spread * rng.uniform(-1, 1),
        sway=0.6 * spread * rng.uniform(),
        offset=0.12 * spread * rng.uniform(-1, 1, (2, 3)),
        reverse=bool(rng.random() < 0.5),
        waves=waves,
    )


def hand_paths(gesture: int, seconds: FloatArray, style: Style) -> FloatArray:
    """Where the wrists want to be.

    Args:
        gesture: Number of the gesture, 1 to 11.
        seconds: Times ``[K]``.
        style: How it is made.

    Returns:
        ``[2, K, 3]``, the right wrist and the left: metres outward from the person's midline (to
        that hand's side), down from the shoulders, toward the camera from the chest.

    Raises:
        ValueError: No such gesture.
    """
    check(1 <= gesture <= len(GESTURES), "gesture", gesture, f"1 to {len(GESTURES)}")
    angle = 2 * np.pi * style.tempo * seconds + style.phase
    angle = angle + style.sway * np.sin(0.5 * angle + style.phase)
    moved = _PATHS[gesture - 1](angle, style)
    return moved + style.offset[:, None, :]


def _hanging(angle: FloatArray) -> FloatArray:
    """An arm at rest, hardly moving along."""
    sway = 0.012 * np.sin(0.5 * angle)
    return _path(0.27 + sway, 0.50, 0.08 + sway)


def _path(outward: FloatArray, down: FloatArray | float, front: FloatArray | float) -> FloatArray:
    return np.stack(np.broadcast_arrays(outward, down, front), axis=-1)


def _one_arm(side: int, arm: FloatArray, angle: FloatArray) -> FloatArray:
    other = _hanging(angle)
    return np.stack([arm, other] if side == RIGHT else [other, arm])


def _clap(angle: FloatArray, style: Style) -> FloatArray:
    gap = 0.03 + 0.18 * style.amplitude * (0.5 + 0.5 * np.cos(angle))
    return np.stack([_path(gap, 0.26 - 0.4 * gap, 0.30)] * 2)


def _wave(side: int) -> Callable[[FloatArray, Style], FloatArray]:
    def path(angle: FloatArray, style: Style) -> FloatArray:
        lean = 0.25 + 0.6 * style.amplitude * np.sin(angle)
        arm = _path(0.27 + 0.27 * np.sin(lean), 0.20 - 0.27 * np.cos(lean), 0.25)
        return _one_arm(side, arm, angle)

    return path


def _circle(side: int, direction: int) -> Callable[[FloatArray, Style], FloatArray]:
    """An arm circle; direction 1: up, outward, down, inward."""

    def path(angle: FloatArray, style: Style) -> FloatArray:
        turned = direction * angle
        radius = 0.36 * style.amplitude
        arm = _path(
            0.28 + radius * np.sin(turned),
            0.02 - 1.1 * radius * np.cos(turned),
            0.30 - 0.08 * np.sin(turned),
        )
        return _one_arm(side, arm, angle)

    return path


def _roll(angle: FloatArray, style: Style) -> FloatArray:
    turned = -angle if style.reverse else angle
    radius = 0.14 * style.amplitude
    return np.stack(
        [
            _path(
                -0.02 + 0.03 * np.cos(turned + lag),
                0.24 + radius * np.sin(turned + lag),
                0.28 + radius * np.cos(turned + lag),
            )
            for lag in (0, np.pi)
        ]
    )


def _drums(angle: FloatArray, style: Style) -> FloatArray:
    def beat(lag: float) -> FloatArray:
        lifted = np.cos(0.5 * (angle + lag)) ** 2
        height = lifted**0.7
        return _path(0.16 + 0.08 * lifted, 0.40 - 0.36 * style.amplitude * height, 0.30)

    return np.stack([beat(0), beat(np.pi)])


def _guitar(angle: FloatArray, style: Style) -> FloatArray:
    strum = np.sin(angle)
    right = _path(
        0.06 + 0.05 * style.amplitude * strum, 0.40 + 0.14 * style.amplitude * strum, 0.24
    )
    left = _path(0.42 + 0.04 * np.sin(0.4 * angle), 0.16 + 0.02 * np.sin(0.7 * angle), 0.18)
    return np.stack([right, left])


def _other(angle: FloatArray, style: Style) -> FloatArray:
    center = np.array([0.26, 0.14, 0.26])
    extent = np.array([0.26, 0.34, 0.14]) * style.amplitude
    frequency, phase, weight = np.moveaxis(style.waves, -1, 0)
    swing = np.sin(frequency[..., None] * angle + phase[..., None]) * weight[..., None]
    return center + extent * np.moveaxis(swing.sum(2), 1, 2)


_PATHS: tuple[Callable[[FloatArray, Style], FloatArray], ...] = (
    _clap,
    _wave(RIGHT),
    _wave(LEFT),
    _circle(RIGHT, 1),
    _circle(RIGHT, -1),
    _circle(LEFT, -1),
    _circle(LEFT, 1),
    _roll,
    _drums,
    _guitar,
    _other,
)
