"""Films of a person's gestures: log intensities as a camera sees them, drawn with smooth edges."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from qspinn.data.arm_motions import FloatArray, Style
from qspinn.data.arm_scenes import SIZE, Scene, body_capsules

IntArray = npt.NDArray[np.int64]
Image = npt.NDArray[np.float32]

FINE_STEP = 1000
"""Microseconds between the moments at which positions are computed."""
LONGEST_FRAME = 5000
"""Microseconds between two frames at most, also where nothing moves."""
_FLICKER_FRAME = 2000
DARK = 0.02
"""What a pixel sees without light, as a share of white in a bright room."""


def render(
    scene: Scene,
    gesture: int,
    style: Style,
    duration: int,
    rng: np.random.Generator,
) -> tuple[Image, IntArray]:
    """Films a gesture.

    Frames are as far apart as nothing moves by more than a pixel from one to the next (adaptive
    sampling as in ESIM, Rebecq et al. 2018), and at most 5 ms (2 ms where the light flickers).

    Args:
        scene: Where.
        gesture: Number of the gesture, 1 to 11.
        style: How it is made.
        duration: Microseconds.
        rng: Where the wall's texture and the body's small motions come from.

    Returns:
        Natural logarithms of the intensities, ``float32`` ``[K, H, W]``, and the times of the
        frames, ``int64`` ``[K]``, from 0 to ``duration`` microseconds.
    """
    fine = np.append(np.arange(0, duration, FINE_STEP), duration).astype(np.int64)
    capsules = body_capsules(scene, gesture, style, fine.astype(np.float64) * 1e-6, rng)
    longest = _FLICKER_FRAME if scene.flicker else LONGEST_FRAME
    chosen = adaptive_frames(capsules, fine, longest)
    times = fine[chosen]
    images = draw(wall_image(scene, rng), capsules[chosen])
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
        if index - 1 > chosen[-1] and (
            moved + step > 1 or fine[index] - fine[chosen[-1]] > longest
        ):
            chosen.append(index - 1)
            moved = 0.0
        moved += step
    return np.array([*chosen, len(fine) - 1] if len(fine) > 1 else chosen, np.int64)


def wall_image(scene: Scene, rng: np.random.Generator) -> Image:
    """The wall behind the person, ``[H, W]``: smooth patches and some straight edges."""
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    texture = np.zeros((SIZE, SIZE))
    for _ in range(6):
        direction, length = rng.uniform(0, np.pi), rng.uniform(12, 60)
        along = x * np.cos(direction) + y * np.sin(direction)
        texture += np.sin(2 * np.pi * along / length + rng.uniform(0, 2 * np.pi)) / 6
    for _ in range(4):
        left, top = rng.uniform(-20, 110, 2)
        inside = (x > left) & (x < left + rng.uniform(10, 50))
        texture += 0.6 * rng.uniform(-1, 1) * (inside & (y > top) & (y < top + rng.uniform(10, 60)))
    return (scene.wall * np.exp(scene.clutter * texture)).astype(np.float32)


def draw(wall: Image, capsules: FloatArray) -> Image:
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
def _draw(images: Image, capsules: FloatArray) -> None:
    for k in range(len(capsules)):
        for s in range(capsules.shape[1]):
            _draw_capsule(images[k], capsules[k, s], 0.37 * s)


@numba.njit(cache=True)
def _draw_capsule(image: Image, capsule: FloatArray, shift: float) -> None:
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
