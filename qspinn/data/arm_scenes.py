"""Films of a person who faces the camera and moves both arms, drawn with smooth edges."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from qspinn.data.arm_motions import FloatArray, Style, hand_paths

IntArray = npt.NDArray[np.int64]

DISTANCE = 2.0
"""Metres from the camera to the person's chest."""
FINE_STEP = 1000
"""Microseconds between the moments at which positions are computed."""
LONGEST_FRAME = 5000
"""Microseconds between two frames at most, also where nothing moves."""
_FLICKER_FRAME = 2000
_FINGERS = (-0.30, -0.10, 0.10, 0.30)
"""Directions of the fingers of an open hand, in radians from the forearm's."""
_OPEN = {1, 2, 3, 4, 5, 6, 7, 11}
"""Gestures that are made with open hands."""


@dataclass(frozen=True)
class Person:
    """A subject: sizes in metres, brightness as a share of the light that is thrown back.

    Args:
        upper_arm: Shoulder to elbow.
        forearm: Elbow to wrist.
        hand: Wrist to finger tips.
        shoulders: Midline to shoulder.
        girth: Thickness of body and limbs, 1 for the typical one.
        skin: Brightness of the skin.
        hair: Brightness of the hair.
    """

    upper_arm: float
    forearm: float
    hand: float
    shoulders: float
    girth: float
    skin: float
    hair: float


@dataclass(frozen=True)
class Scene:
    """What a recording was made of: where the person stands, clothes, wall and light.

    Args:
        person: Who.
        scale: Pixels per metre at the person's chest.
        x: Column of the middle of the shoulders, in pixels.
        y: Row of it.
        shirt: Brightness of the shirt.
        sleeves: Share of the arm below the shoulder that the shirt covers, 0 to 1 (down to the
            wrist).
        folds: Strength of the texture on shirt and skin, 0 to 1.
        wall: Brightness of the wall.
        clutter: Strength of the wall's texture, 0 to 1.
        light: Brightness of the light, 1 for a bright room.
        flicker: Share by which the light goes up and down a hundred times per second.
    """

    person: Person
    scale: float
    x: float
    y: float
    shirt: float
    sleeves: float
    folds: float
    wall: float
    clutter: float
    light: float
    flicker: float


DARK = 0.02
"""What a pixel sees without light, as a share of white in a bright room."""


def render(
    scene: Scene,
    gesture: int,
    style: Style,
    duration: int,
    size: int,
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.float32], IntArray]:
    """Films a gesture.

    Frames are as far apart as nothing moves by more than a pixel from one to the next (adaptive
    sampling as in ESIM, Rebecq et al. 2018), and at most 5 ms (2 ms where the light flickers).

    Args:
        scene: Where.
        gesture: Number of the gesture, 1 to 11.
        style: How it is made.
        duration: Microseconds.
        size: Pixels H = W of the image.
        rng: Where the wall's texture and the body's small motions come from.

    Returns:
        Natural logarithms of the intensities, ``float32`` ``[K, H, W]``, and the times of the
        frames, ``int64`` ``[K]``, from 0 to ``duration`` microseconds.
    """
    fine = np.append(np.arange(0, duration, FINE_STEP), duration).astype(np.int64)
    capsules = body_capsules(scene, gesture, style, fine * 1e-6, rng)
    capsules[..., :6] *= size / 128
    longest = _FLICKER_FRAME if scene.flicker else LONGEST_FRAME
    chosen = adaptive_frames(capsules, fine, longest)
    times = fine[chosen]
    images = draw(wall_image(scene, size, rng), capsules[chosen])
    flicker = 1 + scene.flicker * np.sin(2 * np.pi * 100 * times * 1e-6)
    images *= (scene.light * flicker).astype(np.float32)[:, None, None]
    images += np.float32(DARK)
    return np.log(images, out=images), times


def adaptive_frames(capsules: FloatArray, fine: IntArray, longest: int) -> IntArray:
    """Indices of the moments to draw, the first and the last among them.

    Args:
        capsules: ``[F, S, 8]`` at all moments.
        fine: Times ``[F]`` in microseconds.
        longest: Microseconds between two frames at most.

    Returns:
        ``int64`` ``[K]``, ascending. No end of a capsule moves by more than one pixel between two
        of them, unless they are neighbours.
    """
    ends = capsules[:, :, [0, 1, 3, 4]].reshape(len(fine), -1, 2)
    steps = np.linalg.norm(np.diff(ends, axis=0), axis=-1).max(1)
    chosen = [0]
    moved = 0.0
    for index, step in enumerate(steps, start=1):
        if index - 1 > chosen[-1] and (moved + step > 1 or fine[index] - fine[chosen[-1]] > longest):
            chosen.append(index - 1)
            moved = 0.0
        moved += step
    return np.array([*chosen, len(fine) - 1] if len(fine) > 1 else chosen, np.int64)


def body_capsules(
    scene: Scene, gesture: int, style: Style, seconds: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """The person's parts as tapered capsules in the image of 128x128 pixels, far ones first.

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


def wall_image(scene: Scene, size: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """The wall behind the person, ``[H, W]``: smooth patches and some straight edges."""
    y, x = np.mgrid[0:size, 0:size] * (128 / size)
    texture = np.zeros((size, size))
    for _ in range(6):
        direction, length = rng.uniform(0, np.pi), rng.uniform(12, 60)
        along = x * np.cos(direction) + y * np.sin(direction)
        texture += np.sin(2 * np.pi * along / length + rng.uniform(0, 2 * np.pi)) / 6
    for _ in range(4):
        left, top = rng.uniform(-20, 110, 2)
        inside = (x > left) & (x < left + rng.uniform(10, 50))
        texture += 0.6 * rng.uniform(-1, 1) * (inside & (y > top) & (y < top + rng.uniform(10, 60)))
    return (scene.wall * np.exp(scene.clutter * texture)).astype(np.float32)


def draw(
    wall: npt.NDArray[np.float32], capsules: FloatArray
) -> npt.NDArray[np.float32]:
    """Draws the capsules of each frame over the wall, in their order.

    Args:
        wall: ``[H, W]``.
        capsules: ``[K, S, 8]``, see :func:`body_capsules`.

    Returns:
        Images ``[K, H, W]``.
    """
    images = np.repeat(wall[None], len(capsules), axis=0)
    _draw(images, np.ascontiguousarray(capsules))
    return images


@numba.njit(cache=True)
def _draw(images: npt.NDArray[np.float32], capsules: FloatArray) -> None:
    for k in range(len(capsules)):
        for s in range(capsules.shape[1]):
            _draw_capsule(images[k], capsules[k, s], 0.37 * s)


@numba.njit(cache=True)
def _draw_capsule(image: npt.NDArray[np.float32], capsule: FloatArray, shift: float) -> None:
    """Lambert-like shading from the middle to the rim, folds, and an edge one pixel wide."""
    height, width = image.shape
    x0, y0, r0, x1, y1, r1, brightness, folds = capsule
    left, right = max(int(min(x0 - r0, x1 - r1)) - 1, 0), int(max(x0 + r0, x1 + r1)) + 2
    top, bottom = max(int(min(y0 - r0, y1 - r1)) - 1, 0), int(max(y0 + r0, y1 + r1)) + 2
    dx, dy = x1 - x0, y1 - y0
    scale = 1.0 / max(dx * dx + dy * dy, 1e-9)
    for i in range(top, min(bottom, height)):
        for j in range(left, min(right, width)):
            along = ((j - x0) * dx + (i - y0) * dy) * scale
            along = min(max(along, 0.0), 1.0)
            ox, oy = j - x0 - along * dx, i - y0 - along * dy
            radius = r0 + along * (r1 - r0)
            square = ox * ox + oy * oy
            if square >= (radius + 0.5) * (radius + 0.5):
                continue
            distance = np.sqrt(square)
            across = distance / radius
            value = brightness * (1.0 - 0.25 * across * across)
            side = across if ox * dy > oy * dx else -across
            value *= 1.0 + folds * _ripple(1.5 * along + 0.35 * side + shift)
            cover = min(radius - distance + 0.5, 1.0)
            image[i, j] += np.float32(cover * (value - image[i, j]))


@numba.njit(cache=True, inline="always")
def _ripple(position: float) -> float:
    """A wave of parabolas between -1 and 1 with period 1: close to a sine, and much cheaper."""
    rest = position - np.floor(position) - 0.5
    return 16.0 * rest * (0.5 - abs(rest)) if rest != 0.0 else 0.0


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
            shift + np.array(a[:3]), a[3] * girth, shift + np.array(b[:3]), b[3] * girth,
            brightness, scene.folds * 0.5,
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
