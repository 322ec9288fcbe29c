"""Changes of a plan in use while the network trains with it."""

from __future__ import annotations

import logging

from lightning import LightningModule

from qspinn.plan import QuantizationPlan, ResolvedPlan, resolve
from qspinn.quantizers.declared import declared_formats
from qspinn.quantizers.following import Following
from qspinn.quantizers.looking import with_inputs

log = logging.getLogger(__name__)


def with_new_inputs(
    plan: QuantizationPlan, resolved: ResolvedPlan, following: Following
) -> ResolvedPlan:
    """The plan in use, with formats for inputs that looked binary in the trial, and are not."""
    layers = following.not_binary
    if not layers:
        return resolved
    log.warning(
        "InTrainingQuantization: the input of %s was 0 or 1 in the first batch but is not any "
        "more: from now on it has a format, as the plan says of the role input",
        ", ".join(layers),
    )
    formats = {tensor.path: tensor.format for tensor in resolved.tensors if tensor.format}
    extended = resolve(plan, with_inputs(resolved.inventory, layers)).with_formats(formats)
    return following.with_input_formats(extended)


def has_declared(resolved: ResolvedPlan) -> bool:
    """Whether any module of the plan in use declares its tensors."""
    return any(layer.kind == "declared" for layer in resolved.inventory.layers)


def with_declared_anew(
    plan: QuantizationPlan, resolved: ResolvedPlan, module: LightningModule
) -> ResolvedPlan:
    """The plan in use, with formats for modules that declare their tensors, as these are now.

    Args:
        plan: What is quantised, and how.
        resolved: The plan in use.
        module: Without quantizers.

    Raises:
        ValueError: Invalid formats.
    """
    opened = resolve(plan, resolved.inventory)
    for layer in resolved.inventory.layers:
        if layer.kind == "declared":
            child, tensors = module.get_submodule(layer.path), opened.of_layer(layer.path)
            resolved = resolved.with_formats(declared_formats(child, layer.path, tensors, True))
    return resolved
