"""Which spiking neurons are known, and by which formula they charge."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from spikingjelly.activation_based import base, neuron
from torch import nn

from qspinn.plan.declared import declares_tensors
from qspinn.plan.float_class import float_class

Charge = Literal["if", "lif", "plif", "fallback"]

_STEP_CHARGES: dict[object, Charge] = {
    neuron.IFNode.single_step_functional_forward: "if",
    neuron.LIFNode.single_step_functional_forward: "lif",
    neuron.ParametricLIFNode.single_step_functional_forward: "plif",
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


def charge_of(module: nn.Module) -> Charge | None:
    """The formula by which a neuron charges; ``None`` where ``module`` is no such neuron.

    ``"if"``, ``"lif"`` and ``"plif"`` have an exact integer formula. Any other
    module that keeps a membrane potential ``v`` and steps through SpikingJelly's
    ``single_step_functional_forward`` or ``neuronal_charge`` is a
    ``"fallback"``: its state is rounded after the float computation. A subclass
    that replaces the step of a known neuron is a fallback too. A module that
    declares its tensors is none, whatever its memories are called.
    """
    if declares_tensors(module):
        return None
    kind = float_class(module)
    if isinstance(module, neuron.SimpleBaseNode | neuron.NonSpikingBaseNode):
        return _CHARGE_METHODS.get(kind.neuronal_charge, "fallback")
    if isinstance(module, base.MemoryModule) and "v" in module._memories:
        step = kind.single_step_functional_forward
        return None if step in _UNDEFINED_STEPS else _STEP_CHARGES.get(step, "fallback")
    return None


def has_threshold(module: nn.Module) -> bool:
    """Whether the neuron fires at a threshold that is one number."""
    value = getattr(module, "v_threshold", None)
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_unknown_neuron(module: nn.Module) -> bool:
    """Whether ``module`` is a spiking neuron whose single step is not known."""
    if charge_of(module) is not None or declares_tensors(module):
        return False
    if isinstance(module, base.MemoryModule) and "v" in module._memories:
        return True
    return str(float_class(module).__module__).startswith(neuron.__name__ + ".")


def state_names(module: nn.Module) -> tuple[str, ...]:
    """The names of a neuron's states that hold one value per neuron."""
    if isinstance(module, base.MemoryModule):
        return tuple(module._memories)
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
