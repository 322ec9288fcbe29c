"""The numbers that a layer's weights and biases may become, as its plan has them."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from qspinn.fixed_point import Format, PerChannelFormat, quantize
from qspinn.quantizers.repair.rounding import ToGrid


def nearest_in(fmt: Format | None) -> ToGrid:
    """A function from values to the nearest numbers of a format; ``None`` leaves them as they are.

    It takes one value of each output channel, ``[groups, channels per group]``, in float64.
    """
    if fmt is None:
        return lambda values: values
    if not isinstance(fmt, PerChannelFormat):
        return lambda values: quantize(values, fmt, "nearest", "saturate")
    # Of each output channel, or of each in a group (transposed convolutions).
    along = replace(fmt, axis=1)
    channels = len(fmt.fraction_bits)

    def nearest(values: Tensor) -> Tensor:
        return quantize(values.reshape(-1, channels), along, "nearest", "saturate").reshape(
            values.shape
        )

    return nearest
