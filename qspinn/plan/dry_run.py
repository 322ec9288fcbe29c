"""Finds out what a module is made of, from its layers and from one forward pass."""

from __future__ import annotations

import math
from dataclasses import replace

from spikingjelly.activation_based import base
from torch import Tensor, nn
from torch.nn.modules import loss as torch_loss
from torch.nn.parameter import is_lazy

from qspinn.plan.calling import Inputs, Run, call
from qspinn.plan.compiled import check_not_compiled
from qspinn.plan.declared import declared_tensors, declares_tensors, layers_of
from qspinn.plan.float_class import float_class, shown
from qspinn.plan.inventory import Inventory, LayerInfo, TensorInfo
from qspinn.plan.kind_check import check_module
from qspinn.plan.neuron_info import (
    begins_at_rest,
    direct_tensors,
    is_recurrent,
    neuron_info,
    recurrent_info,
    sources_of,
)
from qspinn.plan.neurons import charge_of, is_unknown_neuron
from qspinn.plan.notes import notes_of, reason_of
from qspinn.plan.recurrent import recurrent_states
from qspinn.plan.spikingjelly_internals import memories, reset_values
from qspinn.plan.synapses import (
    SYNAPSES,
    TRANSPOSED,
    is_foldable,
    is_synapse,
)
from qspinn.plan.trace import Trace, trace_forward


def inspect(
    module: nn.Module,
    example_input: Inputs | None = None,
    run: Run | None = None,
) -> Inventory:
    """Lists the layers of ``module`` and the tensors that a device would hold.

    Args:
        module: Any module. It is left as it was: training flags, parameters and
            buffers; SpikingJelly's neuron states are reset.
        example_input: A batch as ``module`` takes it: a tensor, a tuple of positional
            arguments, or a dictionary of keyword arguments.
        run: Instead of ``example_input``, for modules that are not simply called:
            does one forward pass of ``module``. It is called up to three times, with
            parts of the batch handed to the network, and not at all where everything
            that has a role declares its tensors.

    Returns:
        The inventory. Without a forward pass, numbers of neurons are unknown, no
        batch norm is folded and every layer input may be non-binary.
    """
    check_module(module, "inspect")
    check_not_compiled(module, "inspect")
    if run is None and example_input is not None:
        given = example_input

        def run() -> object:
            return call(module, given)

    trace = None
    if run is not None and needs_forward_pass(module):
        trace = trace_forward(module, run)
    layers: list[LayerInfo] = []
    folded = {} if trace is None else trace.folds(module)
    may_fold = trace is None and any(is_foldable(child) for _, child in layers_of(module))
    for path, child in layers_of(module):
        if path in folded.values():
            continue
        found = _layer_info(path, child, trace, folded)
        if found is not None and found.current_from is not None and trace is not None:
            axis = trace.channels_behind(module, path, folded) if begins_at_rest(child) else None
            found = replace(found, channel_axis=axis)
        if found is not None:
            layers.append(_with_possible_bias(found) if may_fold else found)
    return _inventory(module, _with_ties(module, layers), trace, folded)


def _inventory(
    module: nn.Module, layers: list[LayerInfo], trace: Trace | None, folded: dict[str, str]
) -> Inventory:
    if trace is None:
        return Inventory(tuple(layers), tuple(notes_of(module, layers, None, {})))
    norms = set(folded.values())
    off_grid = {
        what: tuple(sorted(where - norms))
        for what, where in sorted(trace.seen.off_grid.items())
        if where - norms
    }
    return Inventory(
        tuple(layers),
        tuple(notes_of(module, layers, trace, off_grid)),
        off_grid,
        tuple(sorted(trace.seen.narrowed - norms)),
        _has_neurons(module, layers),
    )


def _has_neurons(module: nn.Module, layers: list[LayerInfo]) -> bool:
    """Whether anything in the module spikes, or keeps a state from step to step."""
    if any(info.for_state for layer in layers for info in layer.tensors):
        return True
    return any(
        declares_tensors(child) or charge_of(child) is not None or is_unknown_neuron(child)
        for child in module.modules()
    )


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
    called = trace is None or trace.called(path)
    if called and is_synapse(module):
        return _synapse_info(path, module, trace, folded.get(path))
    if called and charge_of(module) is not None:
        return neuron_info(path, module, trace, folded)
    return _other_info(path, module, trace)


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
    if trace is None or not trace.seen.binary_inputs[path]:
        tensors.append(TensorInfo(path, "input", "input", None))
    fan_in = math.prod(weight.shape) // outputs if axis == 0 else _transposed_fan_in(weight, groups)
    return LayerInfo(
        path,
        "synapse",
        float_class(module).__name__,
        tuple(tensors),
        norm=norm,
        fan_in=fan_in,
        in_float32=None if trace is None else trace.seen.in_float32.get(path),
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
    states = _uncovered_states(path, module, trace)
    names = {info.name for info in states}
    tensors = [*states, *direct_tensors(path, module, frozenset(names))]
    if not tensors:
        return None
    return LayerInfo(
        path,
        "other",
        float_class(module).__name__,
        tuple(tensors),
        sources=sources_of(path, trace),
        # Spikes that are kept for a step are in one bit each already.
        reason=reason_of(path, module, trace)
        if any(t.word_length is None for t in tensors)
        else None,
    )


def _uncovered_states(path: str, module: nn.Module, trace: Trace | None) -> list[TensorInfo]:
    """The states of a module that steps, but is no neuron that is known."""
    shapes = recurrent_states(module)
    if trace is None and not shapes and isinstance(module, base.MemoryModule):
        held = [name for name in memories(module) if reset_values(module)[name] is not None]
        return [TensorInfo(path, name, None, None, is_state=True) for name in held]
    spikes: frozenset[tuple[str, str]] = frozenset()
    if trace is not None:
        shapes = shapes or trace.state_shapes.get(path, {})
        shapes = shapes if trace.called(path) or path == "" else {}
        spikes = trace.spike_states
    return [
        TensorInfo(
            path,
            name,
            None,
            shape,
            word_length=1 if (path, name) in spikes else None,
            is_state=True,
        )
        for name, shape in shapes.items()
    ]


def _with_ties(module: nn.Module, layers: list[LayerInfo]) -> list[LayerInfo]:
    """Marks tensors that hold the numbers of another one, which a device stores once."""
    first: dict[int, str] = {}
    tied = []
    for layer in layers:
        held = dict(module.get_submodule(layer.path)._parameters)
        infos = []
        for info in layer.tensors:
            value = held.get(info.name)
            # A batch norm folded in makes other numbers of them.
            if value is not None and layer.norm is None:
                path = first.setdefault(id(value), info.path)
                info = info if path == info.path else replace(info, tied_to=path)
            infos.append(info)
        tied.append(replace(layer, tensors=tuple(infos)))
    return tied
