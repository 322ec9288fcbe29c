"""Batch norm as a device holds it: folded into the weights before it.

At inference ``gamma (w x + b - mean) / sqrt(var + eps) + beta`` is
``(w s) x + (b - mean) s + beta`` with ``s = gamma / sqrt(var + eps)``
(Jacob et al., CVPR 2018, section 3.2).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qspinn.plan.synapses import TRANSPOSED


def fold_scale(norm: nn.Module) -> Tensor:
    """The factor of each output channel, from the running statistics; ``[C]``."""
    variance: Any = norm.running_var
    scale = torch.rsqrt(variance + norm.eps)
    weight = getattr(norm, "weight", None)
    return scale if weight is None else scale * weight


def folded_weight(layer: nn.Module, scale: Tensor) -> Tensor:
    """The layer's weight, each output channel times its factor; the weight's shape."""
    weight: Any = layer.weight
    if not isinstance(layer, TRANSPOSED):
        return weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
    channels: Any = layer
    groups = int(channels.groups)
    grouped = weight.reshape(groups, -1, *weight.shape[1:])
    factors = scale.reshape(groups, 1, -1, *[1] * (weight.dim() - 2))
    return (grouped * factors).reshape(weight.shape)


def folded_bias(layer: nn.Module, norm: nn.Module, scale: Tensor) -> Tensor:
    """The bias of the folded layer; ``[C]``."""
    bias: Any = layer.bias
    mean: Any = norm.running_mean
    folded: Tensor = (-mean if bias is None else bias - mean) * scale
    beta = getattr(norm, "bias", None)
    return folded if beta is None else folded + beta


def folded_parameters(layer: nn.Module, norm: nn.Module | None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias that a device would hold, before quantisation."""
    if norm is None:
        return layer.weight, layer.bias  # type: ignore[return-value]
    scale = fold_scale(norm)
    return folded_weight(layer, scale), folded_bias(layer, norm, scale)


def per_channel(values: Tensor, layer: nn.Module) -> Tensor:
    """``[C]`` reshaped to broadcast over the layer's output ``[*, C, spatial]``."""
    weight: Any = layer.weight
    spatial = weight.dim() - 2
    return values.reshape(-1, *[1] * spatial) if spatial > 0 else values
