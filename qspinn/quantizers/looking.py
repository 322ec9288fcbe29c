"""Where values pass in an attached network, and how they are looked at while it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from torch import nn

from qspinn.plan import Inventory, LayerInfo, ResolvedPlan, ResolvedTensor, TensorInfo
from qspinn.plan.roles import STATE_ROLES
from qspinn.quantizers.class_swap import attached_quantizer, is_swapped
from qspinn.quantizers.observer import Glimpse


def with_inputs(inventory: Inventory, paths: Sequence[str]) -> Inventory:
    """The inventory, with an input that is not binary of these synapse layers."""
    layers = tuple(
        replace(layer, tensors=(*layer.tensors, TensorInfo(layer.path, "input", "input", None)))
        if layer.path in paths and not has_input(layer)
        else layer
        for layer in inventory.layers
    )
    return replace(inventory, layers=layers)


def points(
    module: nn.Module, plan: ResolvedPlan, only_binary: bool = False
) -> Iterator[tuple[str, Callable[[Glimpse | None], None]]]:
    """Path of each value that passes and has no stated format, and what sets its observer.

    Args:
        module: With quantizers attached.
        plan: Theirs.
        only_binary: Whether to leave out all but the inputs that the plan takes for 0 or 1.
    """
    for layer in plan.inventory.layers:
        child = module.get_submodule(layer.path)
        if not is_swapped(child) or layer.kind == "declared":
            continue
        if only_binary and (layer.kind != "synapse" or has_input(layer)):
            continue
        quantizer = attached_quantizer(child)
        for name, path in passing(layer, plan):
            yield path, partial(quantizer.watch, name)


def passing(layer: LayerInfo, plan: ResolvedPlan) -> Iterator[tuple[str, str]]:
    """Name and path of what is to be looked at in a layer."""
    tensors = plan.of_layer(layer.path)
    if layer.kind == "synapse" and tensors:
        inputs = tensors.get("input")
        if (inputs is not None and is_open(inputs)) or not has_input(layer):
            yield "input", f"{layer.path}.input" if layer.path else "input"
    if layer.kind == "neuron":
        for name, tensor in tensors.items():
            if tensor.role in STATE_ROLES and is_open(tensor):
                yield name, tensor.path


def has_input(layer: LayerInfo) -> bool:
    """Whether the input of a synapse layer is known not to be binary."""
    return any(info.role == "input" for info in layer.tensors)


def is_open(tensor: ResolvedTensor) -> bool:
    """Whether the plan leaves its format open."""
    return tensor.settings.format is None
