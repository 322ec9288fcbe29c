"""Clips of event frames, as animated GIF files."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qspinn.atomic import write_bytes

LEVELS = 16
"""Shades of a polarity; 16 x 16 make the 256 colours of a GIF."""
ON_INK = (0.80, 0.10, 0.15)
OFF_INK = (0.10, 0.30, 0.80)
SIDE = 256
"""Pixels to which the shorter side of a small frame is enlarged, at least."""
LINE = LEVELS * LEVELS - 1
"""Code of the lines between clips: as if there were many events of both polarities."""


def palette() -> NDArray[np.uint8]:
    """The colour of every code ``16 on + off``, ``uint8`` ``[256, 3]``.

    Nothing is white, ON (brighter) is red, OFF (darker) is blue, both are dark.
    """
    shade = np.arange(LEVELS) / (LEVELS - 1)
    on = shade[:, None, None] * (1.0 - np.array(ON_INK))
    off = shade[None, :, None] * (1.0 - np.array(OFF_INK))
    colours = np.clip(1.0 - on - off, 0.0, 1.0)
    return np.rint(255 * colours).astype(np.uint8).reshape(-1, 3)


def clip_codes(frames: NDArray[np.floating]) -> NDArray[np.uint8]:
    """What each pixel of a clip shows, as codes of :func:`palette`.

    Shades are in proportion to counts; the darkest is the 99th percentile of the counts above 0 and
    all above it. A pixel with any event is never white.

    Args:
        frames: ``[T, 2, H, W]``, 0 or more; channel 0 OFF, channel 1 ON.

    Returns:
        ``uint8`` ``[T, H, W]``.

    Raises:
        ValueError: Another shape.
    """
    if frames.ndim != 4 or frames.shape[1] != 2:
        raise ValueError(f"event frames {list(frames.shape)}: expected [T, 2, H, W]")
    counts = np.maximum(np.asarray(frames, dtype=np.float64), 0.0)
    some = counts[counts > 0]
    full = float(np.percentile(some, 99)) if some.size else 1.0
    levels = np.ceil(np.minimum(counts / full, 1.0) * (LEVELS - 1)).astype(np.uint8)
    return levels[:, 1] * np.uint8(LEVELS) + levels[:, 0]


def save_clip(
    clips: Sequence[NDArray[np.floating]],
    path: str | os.PathLike[str],
    milliseconds: int = 120,
) -> Path:
    """Write clips side by side as one endless GIF.

    All of it is written, or ``path`` holds what it held before.

    Args:
        clips: Frames ``[T, 2, H, W]`` each, of one shape.
        path: The file.
        milliseconds: For which a frame is shown.

    Raises:
        ValueError: No clip, or clips of different shapes.
    """
    shapes = {clip.shape for clip in clips}
    if len(shapes) != 1:
        raise ValueError(f"clips of shapes {sorted(shapes)}; write one or more of the same shape")
    codes = [clip_codes(clip) for clip in clips]
    zoom = max(1, -(-SIDE // min(codes[0].shape[1:])))
    line = np.full((*codes[0].shape[:2], 1), LINE, np.uint8)
    beside = [part for code in codes for part in (line, code)][1:]
    row = np.concatenate(beside, axis=2).repeat(zoom, 1).repeat(zoom, 2)
    images = []
    for picture in row:
        image = Image.fromarray(picture)
        image.putpalette(palette().tobytes())
        images.append(image)
    content = io.BytesIO()
    images[0].save(
        content,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=milliseconds,
        loop=0,
        optimize=False,
        comment=b"qspinn",
    )
    return write_bytes(content.getvalue(), path)
