"""Which spiking neurons are known, and by which formula they charge."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from spikingjelly.activation_based import base, layer, neuron, surrogate
from torch import nn

from qspinn.plan.declared import declares_tensors
from qspinn.plan.float_class import float_class
from qspinn.plan.inventory import Charge
from qspinn.plan.neuron_constants import has_threshold, refused_constant
from qspinn.plan.overrides import is_overridden, is_patched, is_property
from qspinn.plan.spikingjelly_internals import FUNCTIONAL, REPLACED, memories
from qspinn.plan.surrogates import fires_binary
from qspinn.steps.models import MODELS

__all__ = ["Charge", "charge_of", "evaluation_mode", "fires_exactly"]
__all__ += [
    "has_threshold",
    "is_unknown_neuron",
    "most_spikes",
    "reset_states",
    "state_names",
    "why_not",
]

_STEP_CHARGES: dict[object, Charge] = {
    neuron.IFNode.single_step_functional_forward: "if",
    neuron.LIFNode.single_step_functional_forward: "lif",
    neuron.ParametricLIFNode.single_step_functional_forward: "plif",
    neuron.ILIFNode.single_step_functional_forward: "ilif",
    layer.SynapseFilter.single_step_functional_forward: "filter",
}
_CHARGE_METHODS: dict[object, Charge] = {
    neuron.SimpleIFNode.neuronal_charge: "if",
    neuron.SimpleLIFNode.neuronal_charge: "lif",
    neuron.NonSpikingIFNode.neuronal_charge: "if",
    neuron.NonSpikingLIFNode.neuronal_charge: "lif",
}
_UNDEFINED_STEPS = (
    base.MemoryModule.single_step_functional_forward,
    neuron.BaseNode.single_step_functional_forward,
)
# Between a call and the one method that is replaced when a neuron is quantised, nothing may
# happen that is not SpikingJelly's: it might go around that method.
_CALLS = ("__call__", "_call_impl", "_wrapped_call_impl", "forward")
_ATTRIBUTES = ("__getattribute__", "__getattr__", "__setattr__")
_SIMPLE = ("neuronal_charge", "neuronal_fire", "neuronal_reset", "single_step_forward")


def charge_of(module: nn.Module) -> Charge | None:
    """The formula by which a neuron charges; ``None`` where ``module`` is no such neuron.

    ``"if"``, ``"lif"`` and ``"plif"`` have an exact integer formula, and so has
    ``"filter"``, the synapse filter, whose state is its output. Any other module that
    keeps a membrane potential ``v`` and steps through SpikingJelly's
    ``single_step_functional_forward`` or ``neuronal_charge`` is a
    ``"fallback"``: its state is rounded after the float computation. A subclass
    that replaces the step of a known neuron is a fallback too, and so is a neuron that
    sends more than 0 and 1. ``None`` where :func:`why_not` has a reason. A module that
    declares its tensors is none, whatever its memories are called.
    """
    return _judged(module)[1] if _is_neuron(module) else None


def why_not(module: nn.Module) -> str | None:
    """Why a neuron stays in float, e.g. ``"overrides multi_step_forward"``.

    ``None`` where it can be quantised, and for what is no neuron of SpikingJelly.
    """
    return _judged(module)[0] if _is_neuron(module) else None


def _judged(module: nn.Module) -> tuple[str | None, Charge | None]:
    """Why a neuron stays in float, and where nothing speaks for it, its formula."""
    reason = _bypassed(module)
    if reason is not None:
        return reason, None
    if not _steps_in_a_known_way(module):
        return "does not step by itself, or in a way that is not known", None
    formula = _formula(module)
    exact = formula != "fallback"
    # The exact step asks the neuron for its threshold; the neuron's own is given another value.
    asks = exact and not isinstance(module, neuron.SimpleBaseNode)
    if not asks and is_property(module, "v_threshold"):
        reason = "computes its v_threshold in a property, in whose place no other value can be put"
    elif exact:
        reason = refused_constant(module)
    return reason, formula if reason is None else None


def is_unknown_neuron(module: nn.Module) -> bool:
    """Whether ``module`` is a spiking neuron that cannot be quantised."""
    return why_not(module) is not None


def most_spikes(module: nn.Module) -> int:
    """The largest number of spikes that a neuron sends in a step; 1 of all but those that count."""
    charge = charge_of(module)
    if charge is None or not MODELS[charge].counts:
        return 1
    return int(module.surrogate_function.max_spike_count)  # type: ignore[union-attr,arg-type]


def fires_exactly(module: nn.Module) -> bool:
    """Whether a neuron that fires binary is known to answer 0 and 1 to the last bit.

    That holds for SpikingJelly's own functions; a probe of another one shows only some answers.
    """
    function: Any = getattr(module, "surrogate_function", None)
    if function is None:
        return True
    library = isinstance(function, surrogate.SurrogateFunctionBase)
    return library and not any(
        is_overridden(function, n) or is_patched(function, n) for n in _CALLS
    )


def state_names(module: nn.Module) -> tuple[str, ...]:
    """The names of a neuron's states that hold one value per neuron."""
    if isinstance(module, base.MemoryModule):
        return tuple(memories(module))
    return ("v",)


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Runs ``module`` for evaluation, without gradients; its training flags come back."""
    training = {child: child.training for child in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for child, flag in training.items():
            child.training = flag


def reset_states(module: nn.Module) -> None:
    """Resets the states of all SpikingJelly modules in ``module``, and of nothing else.

    SpikingJelly's ``functional.reset_net`` calls ``reset()`` of everything that
    has it, the metrics of a LightningModule included.
    """
    for child in module.modules():
        if isinstance(child, base.MemoryModule):
            child.reset()


def _is_neuron(module: nn.Module) -> bool:
    """Whether ``module`` is a neuron, or the like, in the way of SpikingJelly."""
    if declares_tensors(module):
        return False
    if isinstance(module, base.MemoryModule) and "v" in memories(module):
        return True
    if isinstance(module, layer.SynapseFilter):
        return True
    packages = (str(kind.__module__) for kind in float_class(module).__mro__)
    return any(name.startswith(f"{neuron.__name__}.") for name in packages)


def _steps_in_a_known_way(module: nn.Module) -> bool:
    if isinstance(module, neuron.SimpleBaseNode | neuron.NonSpikingBaseNode):
        return True
    if not isinstance(module, base.MemoryModule):
        return False
    if "v" not in memories(module) and not isinstance(module, layer.SynapseFilter):
        return False
    return float_class(module).single_step_functional_forward not in _UNDEFINED_STEPS


def _formula(module: nn.Module) -> Charge:
    """The formula of a neuron that steps in a known way."""
    kind = float_class(module)
    if isinstance(module, neuron.NonSpikingBaseNode):
        return _CHARGE_METHODS.get(kind.neuronal_charge, "fallback")
    if isinstance(module, neuron.SimpleBaseNode):
        own = any(is_overridden(module, name) for name in _SIMPLE)
        charge = _CHARGE_METHODS.get(kind.neuronal_charge, "fallback")
        return "fallback" if own or not fires_binary(module) else charge
    charge = _STEP_CHARGES.get(kind.single_step_functional_forward, "fallback")
    if MODELS[charge].reads_out:
        return charge
    answers = _counts(module) if MODELS[charge].counts else fires_binary(module)
    return charge if answers else "fallback"


def _counts(module: nn.Module) -> bool:
    """Whether a neuron's spikes are the whole numbers that SpikingJelly's own function gives."""
    function: Any = module.surrogate_function
    return type(function) is surrogate.MultiLevelSpikeCount and fires_exactly(module)


def _bypassed(module: nn.Module) -> str | None:
    """What may lead around the method that is replaced when the neuron is quantised."""
    names: tuple[str, ...] = _CALLS
    replaced: tuple[str, ...] = _SIMPLE
    if isinstance(module, neuron.SimpleBaseNode):
        names = (*_CALLS, "multi_step_forward")
    elif isinstance(module, base.MemoryModule):
        names, replaced = (*_CALLS, *FUNCTIONAL), REPLACED
    for name in (*names, *replaced):
        if is_patched(module, name):
            return f"has a {name} that was put in place of its class's"
    for name in (*names, *_ATTRIBUTES):
        if is_overridden(module, name):
            return f"overrides {name}"
    for name in state_names(module):
        if is_property(module, name):
            return f"computes its state {name} in a property"
    return None
