"""The format of what a device stores, chosen on its values."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qspinn.fixed_point import FixedPointFormat, Format, PerChannelFormat
from qspinn.plan import ResolvedTensor
from qspinn.quantizers.choose_format import choose_channel_format, choose_format

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
    method, axis = settings.calibration or "mse", tensor.info.channel_axis
    length, rounding = tensor.word_length, tensor.rounding
    if settings.granularity == "channel" and axis is not None:
        rows = value.detach().movedim(axis, 0).reshape(value.shape[axis], -1)
        sample = sampled(rows, max(64, sample_size // len(rows)))
        held = current if isinstance(current, PerChannelFormat) else None
        fmt = choose_channel_format(
            sample, 0, length, method, rounding, signed=signed, current=held
        )
        return PerChannelFormat(length, fmt.fraction_bits, signed, axis)
    flat = value.detach().reshape(-1)
    if counts is not None and bool(counts.any()) and not bool(counts.all()):
        flat = flat[counts.expand_as(value).reshape(-1)]
    if flat.numel() > sample_size:
        flat = flat[evenly(flat, sample_size)]
    one = current if isinstance(current, FixedPointFormat) else None
    return choose_format(flat, length, method, rounding, signed=signed, current=one)


def sampled(rows: Tensor, most: int) -> Tensor:
    """At most ``most + 2`` values of each row of ``[R, n]``, evenly spaced, with its extremes."""
    if rows.shape[1] <= most:
        return rows
    low, high = torch.aminmax(rows, dim=1, keepdim=True)
    return torch.cat([rows[:, :: stride(rows.shape[1], most)], low, high], 1)


def evenly(values: Tensor, most: int) -> Tensor:
    """Places of at most ``most + 2`` of the values ``[n]``, evenly spaced, and of both extremes."""
    places = torch.arange(0, len(values), stride(len(values), most), device=values.device)
    return torch.cat([places, values.argmin().reshape(1), values.argmax().reshape(1)])


def stride(count: int, most: int) -> int:
    """The step through ``count`` values that meets no regular pattern of theirs."""
    step = -(-count // most)
    while math.gcd(step, count) != 1:
        step += 1
    return step


def check_finite(tensor: ResolvedTensor, finite: bool) -> None:
    """Refuses to choose a format for what is not finite."""
    if not finite:
        raise ValueError(
            f"{tensor.path}: holds values that are not finite; the network has diverged, so it "
            "cannot be quantised"
        )
