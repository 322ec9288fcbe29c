"""Batch norm as a device holds it: folded into the weights before it.

At inference ``gamma (w x + b - mean) / sqrt(var + eps) + beta`` is
``(w s) x + (b - mean) s + beta`` with ``s = gamma / sqrt(var + eps)``
(Jacob et al., CVPR 2018, section 3.2).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from qspinn.fixed_point import Format, PerChannelFormat
from qspinn.plan import LayerInfo
from qspinn.plan.synapses import TRANSPOSED

# The largest weight of a channel that would vanish becomes this many steps: more than one, so
# that no rounding makes it 0. No channel's largest weight is more than so many ranges.
LEFT_STEPS = 1.5
# A channel that meets less than this part of what another one meets is silent.
SILENT = 1e-4
MOST_RANGES = 4.0


def fold_scale(norm: Any) -> Tensor:
    """The factor of each output channel, from the running statistics; ``[C]``."""
    scale = torch.rsqrt(norm.running_var + norm.eps)
    weight = getattr(norm, "weight", None)
    return scale if weight is None else scale * weight


def folded_weight(layer: Any, scale: Tensor) -> Tensor:
    """The layer's weight, each output channel times its factor; the weight's shape."""
    folded: Tensor = layer.weight * over_weights(layer, scale)
    return folded


def over_weights(layer: Any, values: Tensor) -> Tensor:
    """One value of each output channel ``[C]``, where its weights lie; broadcasts over them."""
    weight, groups = layer.weight, getattr(layer, "groups", 1)
    if not isinstance(layer, TRANSPOSED):
        return values.reshape(-1, *[1] * (weight.dim() - 1))
    factors = values.reshape(groups, 1, -1, *[1] * (weight.dim() - 2))
    inputs = weight.shape[0] // groups
    return factors.expand(-1, inputs, *factors.shape[2:]).flatten(0, 1)


@torch.no_grad()
def heard(layer: Any, norm: Any) -> Tensor:
    """Which output channels meet inputs at all; broadcasts over the layer's weight.

    A channel whose inputs are silent has no variance, so that its folded weights are enormous and
    of no effect: they must not take the range from the others. What a channel meets is the
    variance of its output by the sum of its squared weights. The running variance is freed from
    the 1 that it began with.
    """
    variance: Tensor = norm.running_var
    if norm.momentum is not None and norm.num_batches_tracked is not None:
        rest = (1.0 - norm.momentum) ** norm.num_batches_tracked.to(variance.dtype)
        known = (variance - rest).clamp(min=0.0) / (1.0 - rest)
        variance = torch.where(rest < 1.0, known, variance)
    squares = by_channel(layer, layer.weight.detach()).square().sum(1)
    met = torch.where(squares > 0, variance / squares, torch.zeros_like(squares))
    return over_weights(layer, met > SILENT * met.max())


def folded_bias(layer: Any, norm: Any, scale: Tensor) -> Tensor:
    """The bias of the folded layer; ``[C]``."""
    bias, mean = layer.bias, norm.running_mean
    folded: Tensor = (-mean if bias is None else bias - mean) * scale
    beta = getattr(norm, "bias", None)
    return folded if beta is None else folded + beta


def folded_parameters(
    layer: Any, norm: Any | None, unit: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Weight and bias that a device would hold, before quantisation.

    Args:
        layer: A synapse layer.
        norm: The batch norm that is folded into it.
        unit: What 1 stands for where its neurons have a unit of their own: ``[1]`` or ``[C]``.
    """
    weight, bias = layer.weight, layer.bias
    if norm is not None:
        scale = fold_scale(norm)
        weight, bias = folded_weight(layer, scale), folded_bias(layer, norm, scale)
    if unit is None:
        return weight, bias
    unit = unit.to(weight)
    divisor = unit if unit.numel() == 1 else over_weights(layer, unit)
    return weight / divisor, None if bias is None else bias / unit


def norm_of(module: nn.Module, layer: LayerInfo) -> nn.Module | None:
    """The batch norm that is folded into a layer."""
    return None if layer.norm is None else module.get_submodule(layer.norm)


def held_parameters(
    module: nn.Module, layer: LayerInfo, unit: Tensor | None = None
) -> dict[str, tuple[Tensor, Tensor | None]]:
    """Name -> what a device would hold of a layer, and which of it counts (``None``: all).

    Args:
        module: The network.
        layer: A synapse layer.
        unit: See :func:`folded_parameters`.
    """
    child, norm = module.get_submodule(layer.path), norm_of(module, layer)
    with torch.no_grad():
        weight, bias = folded_parameters(child, norm, unit)
    found = {"weight": (weight, None if norm is None else heard(child, norm))}
    return found if bias is None else {**found, "bias": (bias, None)}


def channel_extents(layer: Any) -> Tensor:
    """The largest magnitude among the weights of each output channel; ``[C]``."""
    return by_channel(layer, layer.weight.detach()).abs().amax(1)


def by_channel(layer: Any, weight: Tensor) -> Tensor:
    """The weights of each output channel in a row; ``[C, n]``.

    Args:
        layer: The layer.
        weight: Its weights, or others of their shape.
    """
    if not isinstance(layer, TRANSPOSED):
        return weight.flatten(1)
    grouped = weight.reshape(layer.groups, -1, *weight.shape[1:])
    return grouped.transpose(1, 2).flatten(0, 1).flatten(1)


def resolvable_scale(scale: Tensor, extents: Tensor, fmt: Format, rounding: str) -> Tensor:
    """The factors with which folded weights neither vanish on their grid nor outgrow it.

    A channel whose factor is so small that all its weights would become 0 (as where gamma begins
    at 0) computes with one that leaves some: else nothing would reach its norm, and gamma would
    get no gradient. One whose weights lie far beyond the format, which only formats that do not
    follow allow, computes with the largest factor that does not turn them into mere signs.

    Args:
        scale: Factor of each output channel ``[C]``.
        extents: Largest magnitude among its weights ``[C]``.
        fmt: Of the folded weight, for the tensor or per output channel.
        rounding: Of the weight.
    """
    step, reach = _step_and_reach(fmt, scale)
    none = extents == 0
    extents = torch.where(none, 1.0, extents)
    size = scale.abs()
    vanishing = 1.0 if rounding in ("truncate", "toward_zero") else 0.5
    size = torch.where(size * extents < vanishing * step, LEFT_STEPS * step / extents, size)
    size = torch.minimum(size, MOST_RANGES * reach / extents)
    size = torch.where(none, 1.0, size)
    return torch.where(scale < 0, -size, size)


def scale_of_signs(scale: Tensor, layer: Any, fmt: Format) -> Tensor:
    """The factors with which the weights of a layer come closest to signs times a step.

    Signs are the same whatever the factor is, but for the step that is chosen for it. Divided out
    of what signs compute, it would change the statistics of the norm, and so itself, batch after
    batch. With these factors, outputs have the size that those of the layer's own weights have.

    Args:
        scale: Factor of each output channel ``[C]``, of which the sign counts.
        layer: The layer.
        fmt: Of the folded weight, for the tensor or per output channel.
    """
    step, _ = _step_and_reach(fmt, scale)
    means = by_channel(layer, layer.weight.detach()).abs().mean(1)
    size = torch.where(means == 0, 1.0, step / means)
    return torch.where(scale < 0, -size, size)


def _step_and_reach(fmt: Format, like: Tensor) -> tuple[Tensor, Tensor]:
    formats = fmt.formats if isinstance(fmt, PerChannelFormat) else (fmt,)
    return (
        like.new_tensor([one.step for one in formats]),
        like.new_tensor([math.ldexp(1.0, one.integer_bits) for one in formats]),
    )


def per_channel(values: Tensor, layer: Any) -> Tensor:
    """``[C]`` reshaped to broadcast over the layer's output ``[*, C, spatial]``."""
    spatial = layer.weight.dim() - 2
    return values.reshape(-1, *[1] * spatial) if spatial > 0 else values
