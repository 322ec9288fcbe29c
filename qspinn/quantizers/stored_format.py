"""The format of what a device stores, chosen on its values."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qspinn.fixed_point import FixedPointFormat, Format, PerChannelFormat, TensorQuantizer
from qspinn.plan import ResolvedTensor
from qspinn.quantizers.choose_format import choose_channel_format, choose_format
from qspinn.quantizers.observer import stride

# Beyond so many values, a format is chosen on an evenly spaced sample with both extremes in it.
SAMPLE_SIZE = 65536


def stored_format(
    tensor: ResolvedTensor,
    value: Tensor,
    *,
    signed: bool = True,
    current: Format | None = None,
    sample_size: int = SAMPLE_SIZE,
    counts: Tensor | None = None,
) -> Format:
    """The format that suits ``value`` best, as the tensor's settings say.

    Args:
        tensor: What is stored.
        value: Its value.
        signed: Whether the format has a sign bit.
        current: The format in use, which stays where it is nearly as good.
        sample_size: How many values it is chosen on, at most.
        counts: Which values count, broadcasts over ``value``; ``None``, or none: all do.

    Raises:
        ValueError: Values that are not finite.
    """
    check_finite(tensor, bool(torch.isfinite(value).all()))
    settings = tensor.settings
    method = settings.calibration or "mse"
    axis = tensor.info.channel_axis if settings.granularity == "channel" else None
    length, rounding, symmetric = tensor.word_length, tensor.rounding, tensor.is_symmetric
    if axis is not None:
        rows = value.detach().movedim(axis, 0).reshape(value.shape[axis], -1)
    else:
        rows = value.detach().reshape(1, -1)
        if counts is not None and bool(counts.any()) and not bool(counts.all()):
            rows = rows[:, counts.expand_as(value).reshape(-1)]
    sample = sampled(rows, max(64, sample_size // len(rows)))
    if axis is not None:
        held = current if isinstance(current, PerChannelFormat) else None
        fmt = choose_channel_format(
            sample, 0, length, method, rounding, signed=signed, symmetric=symmetric, current=held
        )
        return replace(fmt, axis=axis)
    one = current if isinstance(current, FixedPointFormat) else None
    return choose_format(
        sample, length, method, rounding, signed=signed, symmetric=symmetric, current=one
    )


def sampled(rows: Tensor, most: int) -> Tensor:
    """At most ``most + 2`` values of each row of ``[R, n]``, evenly spaced, with its extremes."""
    if rows.shape[1] <= most:
        return rows
    low, high = torch.aminmax(rows, dim=1, keepdim=True)
    return torch.cat([rows[:, :: stride(rows.shape[1], most)], low, high], 1)


def check_finite(tensor: ResolvedTensor, finite: bool) -> None:
    """Refuses to choose a format for what is not finite."""
    if not finite:
        raise ValueError(
            f"{tensor.path}: holds values that are not finite; the network has diverged, so it "
            "cannot be quantised"
        )


def quantizer_of(tensor: ResolvedTensor) -> TensorQuantizer:
    """The quantizer of a calibrated tensor.

    Raises:
        ValueError: It has no format yet.
    """
    if tensor.format is None:
        raise ValueError(
            f"{tensor.path}: has {tensor.word_length} bits but no format yet; call "
            "qspinn.quantizers.calibrate, or give the rule a format"
        )
    # Tied layers share what is stored, and so the one draw that it was rounded with.
    path = tensor.info.tied_to or tensor.path
    return TensorQuantizer(path, tensor.format, tensor.rounding, tensor.overflow)
