"""Synthetic recordings of gestures: who makes them, in which light, filmed by which camera."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from qspinn.data.arm_film import render
from qspinn.data.arm_motions import GESTURES, draw_style
from qspinn.data.arm_scenes import Person, Scene
from qspinn.data.checks import check
from qspinn.data.event_camera import CameraSettings, film
from qspinn.data.events import Events

TRAIN_USERS, TEST_USERS = range(1, 24), range(24, 30)
"""The users whom DVS128 Gesture trains on and tests on."""
MARGIN = 20_000
"""Microseconds of a gesture before and after what its label names."""


@dataclass(frozen=True)
class Light:
    """The light of a recording."""

    level: float  # brightness, 1 for a bright room
    flicker: float  # share by which it goes up and down a hundred times per second
    noise: float  # noise events of the camera as a multiple of those in bright light


LIGHTS = {
    "fluorescent": Light(0.7, 0.04, 1.0),
    "fluorescent_led": Light(1.0, 0.02, 0.8),
    "lab": Light(0.5, 0.0, 1.5),
    "led": Light(0.8, 0.0, 1.0),
    "natural": Light(1.2, 0.0, 0.6),
}
"""The lights of DVS128 Gesture by their names there."""

CAMERA = CameraSettings(
    on_threshold=0.17,
    off_threshold=0.13,
    mismatch=0.03,
    refractory=300,
    noise_rate=0.15,
    hot_share=0.001,
    hot_rate=20.0,
    leak_rate=0.03,
    repeats=0.25,
)
"""Calibrated against real clips by ``benchmarks/synthetic_gesture.py``."""


@dataclass(frozen=True)
class RecordingSettings:
    """What makes a set of recordings easy or hard, short or long.

    Args:
        difficulty: 0 (everybody stands at the same place and moves alike) to 1 (large differences
            in place, size, tempo, amplitude and contrast, more noise).
        shortest: Milliseconds of the shortest gesture.
        longest: Milliseconds of the longest.
        camera: The camera.
        seed: Of everything random; the same seed makes the same files.

    Raises:
        ValueError: A value out of its range.
    """

    difficulty: float = 0.5
    shortest: int = 600
    longest: int = 1000
    camera: CameraSettings = field(default=CAMERA)
    seed: int = 0

    def __post_init__(self) -> None:
        check(0 <= self.difficulty <= 1, "difficulty", self.difficulty, "0 (easy) to 1 (hard)")
        if not 1 <= self.shortest <= self.longest <= 100_000:
            raise ValueError(
                f"shortest={self.shortest}, longest={self.longest}; write milliseconds, 1 or more, "
                "the shortest at most the longest"
            )
        check(self.seed >= 0, "seed", self.seed, "0 or more")


@dataclass(frozen=True, eq=False)
class Recording:
    """What one file of DVS128 Gesture holds: eleven gestures, one after the other.

    Args:
        events: All events.
        labels: ``int64`` ``[11, 3]``: number of the gesture (1 to 11), when it starts and when it
            ends, in microseconds.
    """

    events: Events
    labels: npt.NDArray[np.int64]


def draw_person(rng: np.random.Generator) -> Person:
    """Draws a subject."""
    height = rng.uniform(0.9, 1.1)
    return Person(
        upper_arm=0.29 * height * rng.uniform(0.95, 1.05),
        forearm=0.26 * height * rng.uniform(0.95, 1.05),
        hand=0.18 * height * rng.uniform(0.92, 1.08),
        shoulders=0.19 * height * rng.uniform(0.92, 1.08),
        girth=rng.uniform(0.9, 1.25),
        skin=rng.uniform(0.5, 0.8),
        hair=rng.uniform(0.08, 0.3),
    )


def draw_scene(person: Person, light: Light, difficulty: float, rng: np.random.Generator) -> Scene:
    """Draws where and in what a subject is recorded."""
    wall = rng.uniform(0.26, 0.34) * (1 - 0.1 * difficulty)
    return Scene(
        person=person,
        scale=80 * (1 + 0.3 * difficulty * rng.uniform(-1, 1)),
        x=65 + 22 * difficulty * rng.uniform(-1, 1),
        y=70 + 16 * difficulty * rng.uniform(-1, 1),
        shirt=wall * np.exp(rng.uniform(-0.9, 0.5)),
        sleeves=1.0 if rng.random() < 0.4 else 0.3,
        folds=rng.uniform(0.1, 0.3),
        wall=wall,
        clutter=0.15 + 0.3 * difficulty * rng.uniform(),
        light=light.level,
        flicker=light.flicker,
    )


def record(user: int, light: str, settings: RecordingSettings) -> Recording:
    """Films a user's eleven gestures in a light.

    Args:
        user: Number of the user, 1 to 29; a user has the same body in all lights.
        light: One of :data:`LIGHTS`.
        settings: The set of recordings to which this one belongs.

    Returns:
        The recording; it follows from the arguments alone.
    """
    key = (user, 1 + list(LIGHTS).index(light))
    person = draw_person(_generator(settings, user))
    scene = draw_scene(person, LIGHTS[light], settings.difficulty, _generator(settings, *key))
    noise = settings.camera.noise_rate * LIGHTS[light].noise * (0.5 + settings.difficulty)
    camera = replace(settings.camera, noise_rate=noise)
    clips, labels = [], []
    now = 0
    for gesture in range(1, len(GESTURES) + 1):
        rng = _generator(settings, *key, gesture)
        length = int(rng.integers(1000 * settings.shortest, 1000 * settings.longest, endpoint=True))
        style = draw_style(gesture, settings.difficulty, rng)
        images, times = render(scene, gesture, style, length + 2 * MARGIN, rng)
        clips.append((now, film(images, times, camera, rng)))
        labels.append((gesture, now + MARGIN, now + MARGIN + length))
        now += length + 2 * MARGIN + 1
    return Recording(_joined(clips), np.array(labels, np.int64))


def _generator(settings: RecordingSettings, *key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([settings.seed, *key])))


def _joined(clips: list[tuple[int, Events]]) -> Events:
    """One recording of clips ``(start in microseconds, events)``."""
    t = np.concatenate([start + clip.t for start, clip in clips])
    parts = [[getattr(clip, name) for _, clip in clips] for name in "xyp"]
    x, y, p = (np.concatenate(part) for part in parts)
    return replace(clips[0][1], t=t, x=x, y=y, p=p)
