"""The format of what a device stores, chosen on its values."""

from __future__ import annotations

import torch
from torch import Tensor

from qspinn.fixed_point import Format
from qspinn.plan import ResolvedTensor
from qspinn.quantizers.choose_format import choose_channel_format, choose_format


def stored_format(tensor: ResolvedTensor, value: Tensor, *, signed: bool = True) -> Format:
    """The format that suits ``value`` best, as the tensor's settings say.

    Raises:
        ValueError: Values that are not finite.
    """
    check_finite(tensor, bool(torch.isfinite(value).all()))
    settings = tensor.settings
    method, axis = settings.calibration or "mse", tensor.info.channel_axis
    length, rounding = tensor.word_length, tensor.rounding
    if settings.granularity == "channel" and axis is not None:
        return choose_channel_format(value, axis, length, method, rounding, signed=signed)
    return choose_format(value, length, method, rounding, signed=signed)


def check_finite(tensor: ResolvedTensor, finite: bool) -> None:
    """Refuses to choose a format for what is not finite."""
    if not finite:
        raise ValueError(
            f"{tensor.path}: holds values that are not finite; the network has diverged, so it "
            "cannot be quantised"
        )
