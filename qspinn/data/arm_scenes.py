"""A person who faces the camera and moves both arms: where each part is in the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qspinn.data.arm_motions import FloatArray, Style, hand_paths

SIZE = 128
"""Rows and columns of the image, in pixels."""
DISTANCE = 2.0
"""Metres from the camera to the person's chest."""
_FINGERS = (-0.30, -0.10, 0.10, 0.30)
"""Directions of the fingers of an open hand, in radians from the forearm's."""
_OPEN = {1, 2, 3, 4, 5, 6, 7, 11}
"""Gestures that are made with open hands."""


@dataclass(frozen=True)
class Person:
    """A subject: sizes in metres, brightness as a share of the light that is thrown back."""

    upper_arm: float  # shoulder to elbow
    forearm: float  # elbow to wrist
    hand: float  # wrist to finger tips
    shoulders: float  # midline to shoulder
    girth: float  # thickness of body and limbs, 1 for the typical one
    skin: float  # brightness of the skin
    hair: float  # brightness of the hair


@dataclass(frozen=True)
class Scene:
    """What a recording was made of: where the person stands, clothes, wall and light."""

    person: Person  # who
    scale: float  # pixels per metre at the person's chest
    x: float  # column of the middle of the shoulders, in pixels
    y: float  # row of it
    shirt: float  # brightness of the shirt
    # Share of the arm below the shoulder that the shirt covers, 0 to 1 (down to the wrist).
    sleeves: float
    folds: float  # strength of the texture on shirt and skin, 0 to 1
    wall: float  # brightness of the wall
    clutter: float  # strength of the wall's texture, 0 to 1
    light: float  # brightness of the light, 1 for a bright room
    flicker: float  # share by which the light goes up and down a hundred times per second


def body_capsules(
    scene: Scene, gesture: int, style: Style, seconds: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """The person's parts as tapered capsules in the image, far ones first.

    Args:
        scene: Where.
        gesture: Number of the gesture, 1 to 11.
        style: How it is made.
        seconds: Times ``[F]``.
        rng: Where the body's small motions come from.

    Returns:
        ``[F, S, 8]``: column, row and radius at one end, the same at the other end (pixels),
        brightness (0 to 1), and strength of its texture (0 to 1).
    """
    person = scene.person
    wrists = hand_paths(gesture, seconds, style)
    sway = _body_sway(style, seconds, rng)
    parts = _trunk(scene, sway)
    arms = []
    for side, sign in enumerate((-1.0, 1.0)):
        shoulder = np.stack([sign * person.shoulders + sway[:, 0], sway[:, 1], sway[:, 2]], -1)
        wrist = wrists[side] * np.array([sign, 1.0, 1.0])
        arms.append(_arm(scene, shoulder, wrist, sign, gesture in _OPEN))
    projected = _project(scene, np.stack(parts, 1))
    right, left = (_project(scene, np.stack(arm, 1)) for arm in arms)
    depth = [wrists[side][:, 2] for side in (0, 1)]
    right_is_near = (depth[0] > depth[1])[:, None, None]
    far, near = np.where(right_is_near, left, right), np.where(right_is_near, right, left)
    return np.concatenate([projected, far, near], axis=1)


def elbow(
    shoulder: FloatArray, wrist: FloatArray, upper: float, fore: float, pole: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The elbow of an arm whose ends are given, and the wrist drawn in to where the arm reaches.

    Args:
        shoulder: ``[F, 3]``.
        wrist: ``[F, 3]``, where the wrist wants to be.
        upper: Length of the upper arm.
        fore: Length of the forearm.
        pole: ``[3]``, the direction in which the elbow bends.

    Returns:
        Elbow and wrist, ``[F, 3]`` each, at exact distances.
    """
    reach = wrist - shoulder
    wanted = np.linalg.norm(reach, axis=-1, keepdims=True)
    direction = reach / np.maximum(wanted, 1e-9)
    distance = np.clip(wanted, 1.02 * abs(upper - fore) + 1e-6, 0.995 * (upper + fore))
    along = (upper**2 - fore**2 + distance**2) / (2 * distance)
    beside = pole - (direction @ pole)[:, None] * direction
    beside /= np.maximum(np.linalg.norm(beside, axis=-1, keepdims=True), 1e-9)
    height = np.sqrt(np.maximum(upper**2 - along**2, 0))
    return shoulder + along * direction + height * beside, shoulder + distance * direction


def _body_sway(style: Style, seconds: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Small motions of the whole body, metres ``[F, 3]``, along with the gesture and slower."""
    angle = 2 * np.pi * style.tempo * seconds + style.phase
    phase = rng.uniform(0, 2 * np.pi, (2, 3))
    quick = 0.006 * np.sin(angle[:, None] + phase[0])
    return quick + 0.014 * np.sin(0.3 * angle[:, None] + phase[1])


def _trunk(scene: Scene, sway: FloatArray) -> list[FloatArray]:
    """Hips to hair: capsules ``[F, 10]``, two ends of 3 coordinates and a radius, two numbers."""
    person, girth = scene.person, scene.person.girth
    head = sway * 0.8

    def part(
        shift: FloatArray, a: tuple[float, ...], b: tuple[float, ...], brightness: float
    ) -> FloatArray:
        return _capsule(
            shift + np.array(a[:3]),
            a[3] * girth,
            shift + np.array(b[:3]),
            b[3] * girth,
            brightness,
            scene.folds * 0.5,
        )

    w = person.shoulders
    return [
        part(sway, (0, 0.18, 0, 0.155), (0, 0.75, 0, 0.145), scene.shirt),
        part(sway, (-w + 0.05, 0.06, 0, 0.07), (w - 0.05, 0.06, 0, 0.07), scene.shirt),
        part(sway, (0, 0.0, 0.01, 0.05), (0, -0.12, 0.02, 0.045), person.skin),
        part(head, (0, -0.26, 0.0, 0.098), (0, -0.18, 0.0, 0.085), person.hair),
        part(head, (0, -0.22, 0.06, 0.084), (0, -0.14, 0.06, 0.066), person.skin),
    ]  # fmt: skip


def _arm(
    scene: Scene, shoulder: FloatArray, wrist: FloatArray, sign: float, is_open: bool
) -> list[FloatArray]:
    """Upper arm, forearm and hand."""
    person, girth = scene.person, scene.person.girth
    pole = np.array([sign * 0.75, 0.65, -0.25])
    joint, wrist = elbow(shoulder, wrist, person.upper_arm, person.forearm, pole)
    sleeve = scene.shirt if scene.sleeves >= 0.9 else person.skin
    upper_end = shoulder + (joint - shoulder) * min(2 * scene.sleeves, 1.0)
    axis = (wrist - joint) / person.forearm
    parts = [
        _capsule(shoulder, 0.058 * girth, joint, 0.045 * girth, person.skin, scene.folds),
        _capsule(shoulder, 0.066 * girth, upper_end, 0.052 * girth, scene.shirt, scene.folds),
        _capsule(joint, 0.045 * girth, wrist, 0.030 * girth, sleeve, scene.folds),
    ]
    palm = wrist + axis * 0.5 * person.hand
    parts.append(_capsule(wrist, 0.034 * girth, palm, 0.042 * girth, person.skin, scene.folds))
    normal = np.array([0.0, 0.0, 1.0])
    across = np.cross(axis, normal)
    across /= np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-6)
    for angle in _FINGERS:
        spread = angle if is_open else 0.4 * angle
        length = (0.55 if is_open else 0.22) * person.hand
        root = palm + across * 0.11 * angle
        tip = root + (np.cos(spread) * axis + np.sin(spread) * across) * length
        parts.append(_capsule(root, 0.013 * girth, tip, 0.011 * girth, person.skin, 0.0))
    return parts


def _capsule(
    a: FloatArray, a_radius: float, b: FloatArray, b_radius: float, brightness: float, folds: float
) -> FloatArray:
    """``[F, 10]``: 3 coordinates and radius of either end, brightness, texture."""
    ones = np.ones((len(a), 1))
    return np.hstack([a, a_radius * ones, b, b_radius * ones, brightness * ones, folds * ones])


def _project(scene: Scene, capsules: FloatArray) -> FloatArray:
    """From metres ``[F, S, 10]`` to pixels ``[F, S, 8]``, nearer things larger."""
    result = np.empty((*capsules.shape[:2], 8))
    for end in (0, 1):
        x, y, z, radius = np.moveaxis(capsules[..., 4 * end : 4 * end + 4], -1, 0)
        zoom = scene.scale * DISTANCE / (DISTANCE - z)
        result[..., 3 * end] = scene.x + zoom * x
        result[..., 3 * end + 1] = scene.y + zoom * y
        result[..., 3 * end + 2] = zoom * radius
    result[..., 6:] = capsules[..., 8:]
    return result
