"""From what a network takes to the codes that a device takes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from qspinn.export.model import Codes, DeviceModel
from qspinn.fixed_point import Draws, quantize, to_integers

__all__ = ["encode"]


def encode(model: DeviceModel, x: Tensor, batch_axis: int = 0, key: int | None = None) -> Codes:
    """The codes of a batch.

    Args:
        model: The device model.
        x: What the network takes, such as ``[N, C, H, W]``, ``[N, T, C, H, W]`` or, with
            ``batch_axis=1``, ``[T, N, C, H, W]``.
        batch_axis: The axis of samples.
        key: Of the random bits, where the input is rounded stochastically.

    Returns:
        Frames ``[T, N, values]``, or images that stay ``[N, values]``.

    Raises:
        ValueError: Samples of another size, or a number that is no spike where spikes are taken.
    """
    samples = x.detach().cpu().movedim(batch_axis, 0)
    flat = samples.reshape(len(samples), -1)
    places, values = model.frame_places, model.operations[0].size
    if model.frame_stride:
        steps = flat.shape[1] // values
        if flat.shape[1] != steps * values or not steps:
            raise ValueError(
                f"x {list(x.shape)}: a sample has {flat.shape[1]} numbers, which are no frames of "
                f"{values}; give sequences with the time axis that the model was built with"
            )
        places = places[None] + model.frame_stride * np.arange(steps)[:, None]
    if places.size and int(places.max()) >= flat.shape[1]:
        raise ValueError(
            f"x {list(x.shape)}: a sample has {flat.shape[1]} numbers, fewer than the model takes; "
            "give inputs of the shape that the model was built with"
        )
    frames = flat[:, torch.as_tensor(places)]  # [N, T, values] or [N, values]
    if model.frame_stride:
        frames = frames.transpose(0, 1)
    return _coded(model, frames, key)


def _coded(model: DeviceModel, frames: Tensor, key: int | None) -> Codes:
    what = model.input
    if what.is_positive:
        return (frames > 0).numpy().astype(np.int64)
    if what.bounds is not None:
        frames = frames.clamp(*(float(bound) for bound in what.bounds))
    elif what.format.word_length == 1 and what.format.step == 1.0 and not what.format.signed:
        if not bool(((frames == 0) | (frames == 1)).all()):
            raise ValueError("x: the model takes spikes, 0 or 1, and was given other numbers")
        return frames.numpy().astype(np.int64)
    chance = Draws(key) if key is not None else None
    kept = quantize(frames, what.format, what.rounding, what.overflow, chance)
    return to_integers(kept, what.format).numpy().astype(np.int64)
