"""Values that a device holds in place of rounded parameters, in a module's quantizers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor, nn

from qspinn.fixed_point import TensorQuantizer, to_integers
from qspinn.plan import ResolvedPlan
from qspinn.quantizers.class_swap import attached_quantizer
from qspinn.quantizers.neuron_quantizer import NeuronQuantizer
from qspinn.quantizers.synapse import SynapseQuantizer


def repaired_values(module: nn.Module) -> dict[str, Tensor]:
    """Tensor path -> what a device holds of it in place of the rounded parameter."""
    found = {}
    for child in module.modules():
        for quantizer in _stored(attached_quantizer(child)):
            if quantizer.repaired is not None:
                found[quantizer.path] = quantizer.repaired
    return found


def give_repaired(
    plan: ResolvedPlan,
    swaps: Iterable[tuple[nn.Module, type, object]],
    values: Mapping[str, Tensor],
) -> None:
    """Hands repaired values to the quantizers that are about to be attached.

    Raises:
        ValueError: A path without a quantizer, or values that are not of its format or shape.
    """
    shapes = {t.path: t.info.shape for t in plan.tensors if t.role in ("weight", "bias")}
    left = dict(values)
    for _, _, of_layer in swaps:
        for quantizer in _stored(of_layer):
            value = left.pop(quantizer.path, None)
            if value is None:
                continue
            shape = shapes.get(quantizer.path)
            if shape is not None and tuple(value.shape) != shape:
                raise ValueError(
                    f"attach: {quantizer.path}: the repaired value has the shape "
                    f"{tuple(value.shape)}, not {shape}"
                )
            to_integers(value, quantizer.format)  # refuses what lies on no number of the format
            quantizer.repaired = value
    if left:
        raise ValueError(
            f"attach: {next(iter(left))}: was repaired, but the plan does not quantise it; repair "
            "with this plan"
        )


def _stored(of_layer: object) -> Iterator[TensorQuantizer]:
    """The quantizers of what a layer stores, and may hold repaired."""
    if isinstance(of_layer, SynapseQuantizer):
        held = [of_layer.weight, of_layer.bias]
    elif isinstance(of_layer, NeuronQuantizer):
        held = [of_layer.threshold]
    else:
        held = []
    yield from (quantizer for quantizer in held if quantizer is not None)
