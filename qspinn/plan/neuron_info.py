"""What a neuron layer holds: states, threshold, leak, and what no role covers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from spikingjelly.activation_based import base, layer
from torch import Tensor, nn

from qspinn.plan.float_class import float_class
from qspinn.plan.inventory import LayerInfo, TensorInfo
from qspinn.plan.neuron_constants import (
    has_threshold,
    leak_of,
    parameters_behind,
    reset_of,
    threshold_of,
)
from qspinn.plan.neurons import charge_of, state_names
from qspinn.plan.overrides import is_overridden, is_patched
from qspinn.plan.roles import Role
from qspinn.plan.spikingjelly_internals import FUNCTIONAL, STEP, reset_values
from qspinn.plan.surrogates import fires_binary
from qspinn.steps.models import MODELS

if TYPE_CHECKING:
    from qspinn.plan.trace import Trace

_CONTAINER_STEP = ("forward", *FUNCTIONAL, STEP)
_CONTAINERS = (layer.LinearRecurrentContainer, layer.ElementWiseRecurrentContainer)


def neuron_info(
    path: str, module: nn.Module, trace: Trace | None, folded: dict[str, str]
) -> LayerInfo:
    """The layer of a neuron whose :func:`charge_of` is known.

    Args:
        path: Its path.
        module: The neuron.
        trace: A forward pass; ``None`` leaves numbers of neurons unknown.
        folded: Synapse layer -> the batch norm that is folded into it.
    """
    charge = charge_of(module)
    shapes: dict[str, tuple[int, ...] | None] = dict.fromkeys(state_names(module))
    if trace is not None:
        shapes = dict(trace.state_shapes.get(path, {}))
    # What a synapse filter holds is the trace of its input, and it is read out.
    role: Role = "trace" if isinstance(module, layer.SynapseFilter) else "membrane"
    kept = False if role == "trace" else None
    tensors = [
        TensorInfo(path, name, role, shape, training_only=kept) for name, shape in shapes.items()
    ]
    constants = _constants(path, module)
    tensors += [info for info, _ in constants]
    values: list[object] = [value for _, value in constants]
    if any(info.role == "decay" for info, _ in constants):
        # Nothing leads from 1/tau back to a tau that is a buffer.
        values.append(getattr(module, "tau", None))
    with torch.enable_grad():
        behind = parameters_behind(module, tuple(values))
    tensors += direct_tensors(path, module, without=behind)
    norms = {norm: synapse for synapse, norm in folded.items()}
    source = None if trace is None else trace.only_source(path)
    if trace is not None and source is not None:
        source = norms.get(source, source)
        source = source if source in trace.seen.binary_inputs else None
    return LayerInfo(
        path,
        "neuron",
        float_class(module).__name__,
        tuple(tensors),
        charge=charge,
        current_from=source,
        sources=sources_of(path, trace),
        reset_word=_holds_reset_word(module),
        hard_reset=reset_of(module) is not None,
    )


def is_recurrent(module: nn.Module) -> bool:
    """Whether ``module`` is one of SpikingJelly's containers that feed their output back."""
    return isinstance(module, _CONTAINERS) and not any(
        is_overridden(module, name) or is_patched(module, name) for name in _CONTAINER_STEP
    )


def recurrent_info(path: str, module: nn.Module, trace: Trace | None) -> LayerInfo:
    """The layer of a recurrent container: the output that it keeps for the next time step.

    Where that is the output of a spiking neuron, it is one bit per neuron, quantised or not.
    Else it is a state, on a grid of its own.
    """
    shape = _fed_back_shape(path, module, trace)
    name = float_class(module).__name__
    if _ends_in_spikes(module.sub_module):  # type: ignore[arg-type]
        held = TensorInfo(path, "y", None, shape, word_length=1, is_state=True)
        return LayerInfo(path, "other", name, (held,), sources=sources_of(path, trace))
    held = TensorInfo(path, "y", "membrane", shape)
    return LayerInfo(
        path, "neuron", name, (held,), charge="fallback", sources=sources_of(path, trace)
    )


def sources_of(path: str, trace: Trace | None) -> tuple[str, ...]:
    """The synapse layers whose sums reach the layer at ``path``."""
    return () if trace is None else tuple(sorted(trace.seen.sources.get(path, ())))


def direct_tensors(
    path: str, module: nn.Module, without: frozenset[str] = frozenset()
) -> list[TensorInfo]:
    """The module's own parameters and buffers, which no role covers."""
    held = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return [
        TensorInfo(path, name, None, tuple(value.shape))
        for name, value in held
        if value.is_floating_point() and name not in without
    ]


def _constants(path: str, module: nn.Module) -> list[tuple[TensorInfo, float | Tensor]]:
    """Threshold and leak: one value each, or as many as the neuron has."""
    found: list[tuple[TensorInfo, float | Tensor]] = []
    threshold = threshold_of(module)
    if threshold is not None and has_threshold(module):
        info = TensorInfo(path, "v_threshold", "threshold", _shape(threshold))
        found.append((info, threshold))
    charge = charge_of(module)
    if charge is not None and MODELS[charge].is_exact and MODELS[charge].leaks:
        leak = leak_of(module)
        found.append((TensorInfo(path, "decay", "decay", _shape(leak)), leak))
    return found


def _shape(value: float | Tensor) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else ()


def begins_at_rest(module: nn.Module) -> bool:
    """Whether the first potential is the one that a spike resets to (soft reset: 0)."""
    rest = reset_of(module) or 0.0
    held = reset_values(module) if isinstance(module, base.MemoryModule) else {}
    first = held.get("v", rest)
    plain = isinstance(first, int | float) and float(first) == rest
    return plain and not is_overridden(module, "materialize_states")


def _holds_reset_word(module: nn.Module) -> bool:
    value = getattr(module, "v_reset", None)
    if isinstance(value, Tensor) and value.numel() != 1:
        return False  # counted as what it is: a parameter or a buffer
    return reset_of(module) not in (None, 0.0)


def _ends_in_spikes(module: nn.Module) -> bool:
    """Whether the output of ``module`` is 0 or 1, because a known spiking neuron gives it."""
    if isinstance(module, nn.Sequential) and len(module) and not is_overridden(module, "forward"):
        return _ends_in_spikes(module[-1])
    charge = charge_of(module)
    known = charge is not None and MODELS[charge].fires
    return known and has_threshold(module) and fires_binary(module)


def _fed_back_shape(path: str, module: nn.Module, trace: Trace | None) -> tuple[int, ...] | None:
    if trace is None:
        return None
    own = trace.state_shapes.get(path, {}).get("y")
    if own is not None:
        return own
    inner = module.sub_module
    prefix = f"{path}.sub_module" if path else "sub_module"
    while isinstance(inner, nn.Sequential) and len(inner):
        prefix, inner = f"{prefix}.{len(inner) - 1}", inner[-1]
    return trace.state_shapes.get(prefix, {}).get("v")
