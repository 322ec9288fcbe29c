"""What each layer becomes when a plan is attached: a mixin over its class, and a quantizer."""

from __future__ import annotations

from spikingjelly.activation_based import base
from spikingjelly.activation_based import neuron as spiking
from torch import nn

from qspinn.fixed_point import TensorQuantizer
from qspinn.plan import LayerInfo, ResolvedPlan, ResolvedTensor
from qspinn.plan.float_class import float_class
from qspinn.plan.neurons import fires_exactly
from qspinn.plan.overrides import is_overridden
from qspinn.plan.roles import STATE_ROLES
from qspinn.quantizers.class_swap import Swapped
from qspinn.quantizers.folding import norm_of
from qspinn.quantizers.neuron import (
    FallbackNode,
    NeuronQuantizer,
    QuantizedFilter,
    QuantizedNode,
    QuantizedReadout,
    QuantizedSimpleNode,
)
from qspinn.quantizers.neuron_formats import (
    check_grids,
    check_shapes,
    check_still_known,
    highest_threshold,
)
from qspinn.quantizers.neuron_quantizer import NeuronUnit
from qspinn.quantizers.observer import Observer
from qspinn.quantizers.precision import charge_dtype, output_dtype, sum_dtype
from qspinn.quantizers.stored_format import quantizer_of
from qspinn.quantizers.synapse import FoldedBias, FoldedNorm, QuantizedSynapse, SynapseQuantizer

Observers = dict[str, Observer]
Swap = tuple[nn.Module, type[Swapped], object]
STEPPING = (QuantizedNode, QuantizedFilter, FallbackNode, QuantizedSimpleNode)


def set_clocks(swaps: list[Swap]) -> None:
    """Tells stochastic inputs by which neuron they know that a sequence begins."""
    stepping = (child for child, mixin, _ in swaps if issubclass(mixin, STEPPING))
    clock = next(stepping, None)
    for _, _, quantizer in swaps:
        if isinstance(quantizer, SynapseQuantizer) and quantizer.input is not None:
            quantizer.clock = clock if quantizer.input.rounding == "stochastic" else None


def submodule(module: nn.Module, layer: LayerInfo) -> nn.Module:
    """The layer that a plan knows by its path.

    Raises:
        ValueError: There is none, or it is of another class.
    """
    try:
        child = module.get_submodule(layer.path)
    except AttributeError:
        raise ValueError(
            f"attach: the module has no layer {layer.path!r}; resolve the plan against this module"
        ) from None
    name = float_class(child).__name__
    if name != layer.type_name:
        raise ValueError(
            f"attach: {layer.path} is a {name}, the plan was resolved against a "
            f"{layer.type_name}; resolve the plan against this module"
        )
    return child


def _quantizer(
    tensor: ResolvedTensor | None, observers: Observers | None
) -> TensorQuantizer | None:
    if tensor is None or (tensor.format is None and observers is not None):
        return None
    return quantizer_of(tensor)


def _observer(tensor: ResolvedTensor | None, observers: Observers | None) -> Observer | None:
    if tensor is None or tensor.format is not None or observers is None:
        return None
    return observers.setdefault(tensor.path, Observer())


def synapse_swaps(
    module: nn.Module,
    child: nn.Module,
    layer: LayerInfo,
    plan: ResolvedPlan,
    observers: Observers | None,
) -> list[Swap]:
    """The quantizer of a synapse layer, and what becomes of the batch norm folded into it."""
    norm = norm_of(module, layer)
    tensors = plan.of_layer(layer.path)
    counted = plan.unit_of(layer.path)
    unit = None if counted is None else counted[1].tensor
    quantizer = SynapseQuantizer(
        weight=_quantizer(tensors.get("weight"), observers),
        bias=_quantizer(tensors.get("bias"), observers),
        input=_quantizer(tensors.get("input"), observers),
        norm=norm,
        unit=unit,
        compute_dtype=sum_dtype(layer, plan),
        output_dtype=output_dtype(layer, plan),
        observer=_observer(tensors.get("input"), observers),
    )
    swaps: list[Swap] = [(child, QuantizedSynapse, quantizer)]
    if norm is not None:
        swaps.append((norm, FoldedNorm, FoldedBias(child, quantizer.bias, unit)))
    return swaps


def neuron_swap(
    child: nn.Module,
    layer: LayerInfo,
    tensors: dict[str, ResolvedTensor],
    plan: ResolvedPlan,
    observers: Observers | None,
) -> Swap:
    """The quantizer of a neuron layer."""
    assert layer.charge is not None
    check_still_known(child, layer)
    quantizer = NeuronQuantizer(
        charge=layer.charge,
        threshold=_quantizer(tensors.get("v_threshold"), observers),
        decay=_quantizer(tensors.get("decay"), observers),
        unit=_neuron_unit(layer, plan),
    )
    for name, tensor in tensors.items():
        if tensor.role not in STATE_ROLES:
            continue
        state = _quantizer(tensor, observers)
        if state is not None:
            quantizer.states[name] = state
        observer = _observer(tensor, observers)
        if observer is not None:
            quantizer.observers[name] = observer
    check_grids(layer, tensors)
    check_shapes(child, layer)
    quantizer.highest = highest_threshold(child, tensors)
    quantizer.own_start = is_overridden(child, "materialize_states")
    quantizer.snaps = layer.model.is_exact and not fires_exactly(child)
    if observers is None and quantizer.states:
        quantizer.compute_dtype = charge_dtype(child, layer, quantizer, plan)
    return child, _mixin_of(child, layer), quantizer


def _neuron_unit(layer: LayerInfo, plan: ResolvedPlan) -> NeuronUnit | None:
    """The unit that a layer of neurons counts in, as its step wants it."""
    found = plan.unit_of(layer.path)
    if found is None:
        return None
    scaled, unit = found
    if len(unit.scale) == 1:
        return NeuronUnit(unit.scale[0], unit.rest)
    return NeuronUnit(unit.tensor.reshape(-1, *[1] * (-scaled.axis - 1)), unit.rest)


def _mixin_of(child: nn.Module, layer: LayerInfo) -> type[Swapped]:
    if isinstance(child, spiking.NonSpikingBaseNode):
        return QuantizedReadout
    if isinstance(child, spiking.SimpleBaseNode):
        return QuantizedSimpleNode
    assert isinstance(child, base.MemoryModule)
    if layer.model.reads_out:
        return QuantizedFilter
    return QuantizedNode if layer.model.is_exact else FallbackNode
