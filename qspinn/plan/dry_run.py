"""Finds out what a module is made of, from its layers and from one forward pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from spikingjelly.activation_based import base, neuron
from torch import Tensor, nn
from torch.nn.modules import loss as torch_loss
from torch.nn.parameter import is_lazy

from qspinn.plan.declared import declared_tensors, declares_tensors, layers_of
from qspinn.plan.float_class import float_class, shown
from qspinn.plan.inventory import Inventory, LayerInfo, TensorInfo
from qspinn.plan.neuron_info import (
    direct_tensors,
    is_recurrent,
    neuron_info,
    recurrent_info,
    sources_of,
)
from qspinn.plan.neurons import charge_of, why_not
from qspinn.plan.synapses import SYNAPSES, TRANSPOSED, changes_weight, is_foldable, is_synapse
from qspinn.plan.trace import Trace, trace_forward


def inspect(
    module: nn.Module,
    example_input: Tensor | None = None,
    run: Callable[[], object] | None = None,
) -> Inventory:
    """Lists the layers of ``module`` and the tensors that a device would hold.

    Args:
        module: Any module. It is left as it was: training flags, parameters and
            buffers; SpikingJelly's neuron states are reset.
        example_input: A batch as ``module`` takes it.
        run: Instead of ``example_input``, for modules that are not simply called:
            does one forward pass of ``module``. Not called where everything that
            has a role declares its tensors.

    Returns:
        The inventory. Without a forward pass, numbers of neurons are unknown, no
        batch norm is folded and every layer input may be non-binary.
    """
    if run is None and example_input is not None:
        given = example_input

        def run() -> object:
            return module(given)

    trace = None
    if run is not None and needs_forward_pass(module):
        trace = trace_forward(module, run)
    layers: list[LayerInfo] = []
    notes: list[str] = []
    folded = {} if trace is None else trace.folds(module)
    may_fold = trace is None and any(is_foldable(child) for _, child in layers_of(module))
    for path, child in layers_of(module):
        if path in folded.values():
            continue
        found = _layer_info(path, child, trace, folded)
        notes += _notes(path, child, trace)
        if found is not None:
            layers.append(_with_possible_bias(found) if may_fold else found)
    return Inventory(tuple(layers), tuple(notes))


def needs_forward_pass(module: nn.Module) -> bool:
    """Whether only a forward pass shows all that a plan must know of ``module``.

    It does not where everything that has a role declares its tensors, so that
    nothing is folded, no state has an unknown size and no input can be binary.
    """
    layers = [child for _, child in layers_of(module)]
    if not any(declares_tensors(child) for child in layers):
        return True
    return any(_shows_more_in_use(child) for child in layers if not declares_tensors(child))


def _shows_more_in_use(module: nn.Module) -> bool:
    if isinstance(module, SYNAPSES) or charge_of(module) is not None:
        return True
    unsized = any(info.shape is None for info in _uncovered_states("", module, None))
    return unsized or any(is_lazy(one) for one in module.parameters(recurse=False))


def _layer_info(
    path: str, module: nn.Module, trace: Trace | None, folded: dict[str, str]
) -> LayerInfo | None:
    if declares_tensors(module):
        return _declared_info(path, module, trace)
    if is_recurrent(module):
        return recurrent_info(path, module, trace)
    called = trace is None or path in trace.called
    if called and is_synapse(module):
        return _synapse_info(path, module, trace, folded.get(path))
    if called and charge_of(module) is not None:
        return neuron_info(path, module, trace, folded)
    return _other_info(path, module, trace)


def _notes(path: str, module: nn.Module, trace: Trace | None) -> list[str]:
    """What a user should know about how this layer is treated."""
    name = shown(path, module)
    if declares_tensors(module):
        return []
    charge = charge_of(module)
    reason = why_not(module)
    if reason is not None:
        return [f"{name} {reason}: stays 32-bit"]
    if isinstance(module, SYNAPSES) and changes_weight(module):
        return [f"{name} does not compute with the weight that it stores: stays 32-bit"]
    if not isinstance(module, SYNAPSES) and charge is None:
        return []
    if trace is not None and path not in trace.called:
        return [f"{name} was not called in the dry run: stays 32-bit"]
    if charge == "fallback":
        return [
            f"{name} has no exact integer formula here: its state is rounded after the float "
            "computation"
        ]
    return []


def _synapse_info(path: str, module: nn.Module, trace: Trace | None, norm: str | None) -> LayerInfo:
    weight: Tensor = module.weight  # type: ignore[assignment]
    if is_lazy(weight):
        raise ValueError(
            f"{shown(path, module)} has no shape yet; run the module on a batch once before it is "
            "inspected"
        )
    axis = 1 if isinstance(module, TRANSPOSED) else 0
    groups = int(getattr(module, "groups", 1))
    outputs = weight.shape[axis] * (groups if axis == 1 else 1)
    # A transposed layer with groups repeats axis 1 per group: no axis is the output channel.
    channel_axis = axis if axis == 0 or groups == 1 else None
    tensors = [TensorInfo(path, "weight", "weight", tuple(weight.shape), channel_axis)]
    bias: object = module.bias
    if bias is not None or norm is not None:
        tensors.append(TensorInfo(path, "bias", "bias", (outputs,), 0))
    if trace is None or not trace.binary_inputs[path]:
        tensors.append(TensorInfo(path, "input", "input", None))
    fan_in = math.prod(weight.shape) // outputs if axis == 0 else _transposed_fan_in(weight, groups)
    return LayerInfo(
        path, "synapse", float_class(module).__name__, tuple(tensors), norm=norm, fan_in=fan_in
    )


def _with_possible_bias(info: LayerInfo) -> LayerInfo:
    """Before the dry run, a batch norm somewhere may still give this layer a bias."""
    if info.kind != "synapse" or "bias" in info.roles():
        return info
    return replace(info, tensors=(*info.tensors, TensorInfo(info.path, "bias", "bias", None, 0)))


def _transposed_fan_in(weight: Tensor, groups: int) -> int:
    return weight.shape[0] // groups * math.prod(weight.shape[2:])


def _declared_info(path: str, module: nn.Module, trace: Trace | None) -> LayerInfo | None:
    tensors = tuple(declared.info for declared in declared_tensors(path, module))
    if not tensors:
        return None
    name = float_class(module).__name__
    return LayerInfo(path, "declared", name, tensors, sources=sources_of(path, trace))


def _other_info(path: str, module: nn.Module, trace: Trace | None) -> LayerInfo | None:
    if isinstance(module, torch_loss._Loss):
        return None
    tensors = [*_uncovered_states(path, module, trace), *direct_tensors(path, module)]
    if not tensors:
        return None
    name = float_class(module).__name__
    return LayerInfo(path, "other", name, tuple(tensors), sources=sources_of(path, trace))


def _uncovered_states(path: str, module: nn.Module, trace: Trace | None) -> list[TensorInfo]:
    """The states of a module that steps, but is no neuron that is known."""
    if not isinstance(module, base.MemoryModule | neuron.NonSpikingBaseNode):
        return []
    if trace is not None:
        shapes = trace.state_shapes.get(path, {})
        return [TensorInfo(path, name, None, shape) for name, shape in shapes.items()]
    if isinstance(module, neuron.NonSpikingBaseNode):
        return [TensorInfo(path, "v", None, None)]
    held = [name for name in module._memories if module._memories_rv[name] is not None]
    return [TensorInfo(path, name, None, None) for name in held]
