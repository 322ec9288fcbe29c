"""What each output of a linear or convolutional layer is summed from: its window of the input.

With windows as rows, every such layer is a matrix product, group by group.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from qspinn.plan.synapses import TRANSPOSED
from qspinn.quantizers.observer import stride


def windows(layer: Any, x: Tensor, most: int | None = None) -> Tensor:
    """The window of each output position, for every sample and time step in ``x``.

    Args:
        layer: A linear or convolutional layer, or a transposed convolution.
        x: Its input ``[*, C, spatial]`` (linear: ``[*, C]``).
        most: Of at most so many positions, evenly spaced over all of them; ``None``: of all.

    Returns:
        ``[positions, groups, K]``, in the type of ``x``. K is the fan-in; the output at a position
        is the product with the rows of :func:`rows_of`, plus the bias.
    """
    x = flat(layer, x)
    if isinstance(layer, nn.Linear):
        return x[_spread(len(x), most, x.device)].unsqueeze(1)
    dims = layer.weight.dim() - 2
    if isinstance(layer, TRANSPOSED):
        x, steps = _stuffed(layer, x, dims), (1,) * dims
    else:
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x = functional.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
        steps = layer.stride
    x = x.contiguous()
    kernel, dilation = layer.weight.shape[2:], layer.dilation
    sizes = [
        (size - gap * (side - 1) - 1) // step + 1
        for size, side, gap, step in zip(x.shape[2:], kernel, dilation, steps, strict=True)
    ]
    along = x.stride()[2:]
    places = [one * step for one, step in zip(along, steps, strict=True)]
    inside = [one * gap for one, gap in zip(along, dilation, strict=True)]
    # [N, outputs, C, kernel], of the same memory
    view = x.as_strided(
        (len(x), *sizes, x.shape[1], *kernel), (x.stride(0), *places, x.stride(1), *inside)
    )
    chosen = _spread(len(x) * math.prod(sizes), most, x.device)
    taken = view[torch.unravel_index(chosen, (len(x), *sizes))]
    return taken.reshape(len(chosen), layer.groups, -1)


def flat(layer: Any, x: Tensor) -> Tensor:
    """An input with samples and time steps in one axis; ``[N, C, spatial]``, linear ``[N, C]``."""
    return x.reshape(-1, *x.shape[x.dim() - max(1, layer.weight.dim() - 1) :])


def rows_of(layer: Any, weight: Tensor) -> Tensor:
    """A weight as the matrix that multiplies windows: ``[groups, channels per group, K]``."""
    if isinstance(layer, nn.Linear):
        return weight.unsqueeze(0)
    if not isinstance(layer, TRANSPOSED):
        return weight.reshape(layer.groups, len(weight) // layer.groups, -1)
    spatial = tuple(range(2, weight.dim()))
    grouped = weight.flip(spatial).reshape(layer.groups, -1, *weight.shape[1:])
    return grouped.transpose(1, 2).flatten(3).flatten(2)


def weight_of(layer: Any, rows: Tensor) -> Tensor:
    """The inverse of :func:`rows_of`."""
    if not isinstance(layer, TRANSPOSED):
        return rows.reshape(layer.weight.shape)
    inputs, outputs, *kernel = layer.weight.shape
    spatial = tuple(range(2, layer.weight.dim()))
    grouped = rows.reshape(layer.groups, outputs, inputs // layer.groups, *kernel)
    return grouped.transpose(1, 2).reshape(layer.weight.shape).flip(spatial)


def _stuffed(layer: Any, x: Tensor, dims: int) -> Tensor:
    """The input that an ordinary convolution with the flipped kernel takes in its place.

    Zeros between the values for the stride, and around them for the padding (Dumoulin & Visin,
    arXiv 1603.07285, section 4).
    """
    for axis, step in enumerate(layer.stride, start=2):
        wide = x.new_zeros(*x.shape[:axis], (x.shape[axis] - 1) * step + 1, *x.shape[axis + 1 :])
        index = [slice(None)] * x.dim()
        index[axis] = slice(None, None, step)
        wide[tuple(index)] = x
        x = wide
    edges: list[int] = []
    for axis in reversed(range(dims)):
        outside = layer.dilation[axis] * (layer.weight.shape[2 + axis] - 1) - layer.padding[axis]
        edges += [outside, outside + layer.output_padding[axis]]
    return functional.pad(x, edges)


def _spread(count: int, most: int | None, device: torch.device) -> Tensor:
    step = 1 if most is None else stride(count, most)
    return torch.arange(0, count, step, device=device)
