"""To how many sums each input of a linear or convolutional layer is added, exactly."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from qspinn.plan.synapses import TRANSPOSED

__all__ = ["effective_operations", "fan_out"]


def effective_operations(layer: nn.Module, spikes: Tensor, output: Tensor) -> tuple[int, int]:
    """The synaptic operations of one call of a layer.

    Args:
        layer: Linear or convolutional, transposed too.
        spikes: Where its input is not 0, bool, in the shape of the input.
        output: What it put out.

    Returns:
        The operations of those inputs: each is added to as many sums as it reaches, at the border
        to fewer. And those that there would be if every input were not 0.
    """
    if isinstance(layer, nn.Linear):
        return int(spikes.sum()) * layer.out_features, spikes.numel() * layer.out_features
    reach = fan_out(layer, spikes.shape, output.shape)
    dimensions = reach.dim()
    places = spikes.flatten(0, -1 - dimensions).sum(0)  # of all samples, time steps and channels
    rows = spikes.numel() // math.prod(spikes.shape[-dimensions:])
    return int((places.to(reach) * reach).sum()), rows * int(reach.sum())


def fan_out(layer: Any, inputs: torch.Size, outputs: torch.Size) -> Tensor:
    """How many sums an input of a convolution is added to, at each place; int64 ``[*spatial]``.

    The taps of a kernel are a product over the axes, and so are the numbers of sums: an axis has as
    many as there are pairs of an output and a tap that meet the input there.

    Args:
        layer: A convolution.
        inputs: Shape of its input, ``[*, C, *spatial]``.
        outputs: Shape of its output.
    """
    dimensions = len(layer.kernel_size)
    groups = layer.groups
    reach = torch.tensor(layer.out_channels // groups)
    for axis in range(dimensions):
        size, out = (shape[axis - dimensions] for shape in (inputs, outputs))
        taps = torch.arange(layer.kernel_size[axis]) * layer.dilation[axis]
        if isinstance(layer, TRANSPOSED):
            starts = torch.arange(size) * layer.stride[axis] - int(layer.padding[axis])
            met = starts[:, None] + taps
            count = ((met >= 0) & (met < out)).sum(1)
        else:
            # torch keeps the padding of the last axis first, before and after.
            before = layer._reversed_padding_repeated_twice[2 * (dimensions - 1 - axis)]
            starts = torch.arange(out) * layer.stride[axis] - before
            met = (starts[:, None] + taps).flatten()
            count = torch.bincount(_real(met, size, layer.padding_mode), minlength=size)
        reach = reach[..., None] * count
    return reach


def _real(places: Tensor, size: int, padding_mode: str) -> Tensor:
    """The places of inputs that a padded axis repeats; without those that are padded with 0."""
    if padding_mode == "circular":
        return places % size
    if padding_mode == "replicate":
        return places.clamp(0, size - 1)
    if padding_mode == "reflect":
        period = max(1, 2 * (size - 1))
        folded = places % period
        return torch.minimum(folded, period - folded)
    return places[(places >= 0) & (places < size)]
