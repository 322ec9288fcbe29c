"""How far the values reach that a device stores, and whether they still reach as far."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from qspinn.plan import LayerInfo, ResolvedPlan, ResolvedTensor
from qspinn.quantizers.folding import channel_extents, fold_scale, folded_bias, norm_of
from qspinn.quantizers.looking import is_open

# Two magnitudes are near each other up to this factor.
MOVED = 2.0**0.5


def moved_extents(
    module: nn.Module, plan: ResolvedPlan, before: dict[str, list[float]]
) -> dict[str, list[float]]:
    """Path -> largest magnitudes of what is stored, where they are not near those ``before``.

    A device is waited for once.
    """
    found: dict[str, Tensor] = {}
    for layer in plan.inventory.layers:
        if layer.kind == "synapse":
            found |= extents_of(module, layer, plan.of_layer(layer.path))
    if not found:
        return {}
    values: Iterator[float] = iter(
        torch.cat([one.reshape(-1).double() for one in found.values()]).tolist()
    )
    now = {path: [next(values) for _ in range(one.numel())] for path, one in found.items()}
    return {path: one for path, one in now.items() if not are_near(one, before.get(path))}


def are_near(values: list[float], before: list[float] | None) -> bool:
    """Whether no magnitude has clearly grown or shrunk."""
    if before is None or len(values) != len(before):
        return False
    return all(old / MOVED <= new <= old * MOVED for new, old in zip(values, before, strict=True))


@torch.no_grad()
def extents_of(
    module: nn.Module, layer: LayerInfo, tensors: dict[str, ResolvedTensor]
) -> dict[str, Tensor]:
    """Path -> largest magnitude of a weight and a bias, of each channel where these differ."""
    child: Any = module.get_submodule(layer.path)
    norm = norm_of(module, layer)
    found: dict[str, Tensor] = {}
    scale = None if norm is None else fold_scale(norm)
    weight, bias = tensors.get("weight"), tensors.get("bias")
    if weight is not None and is_open(weight):
        extents = channel_extents(child)
        found[weight.path] = extents if scale is None else extents * scale.abs()
    if bias is not None and is_open(bias):
        if norm is None or scale is None:
            found[bias.path] = child.bias.detach().abs()
        else:
            found[bias.path] = folded_bias(child, norm, scale).abs()
    for tensor in (weight, bias):
        if tensor is None or tensor.path not in found:
            continue
        if tensor.settings.granularity != "channel" or tensor.info.channel_axis is None:
            found[tensor.path] = found[tensor.path].amax().reshape(1)
    return found
