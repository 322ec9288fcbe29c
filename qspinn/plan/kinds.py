"""The kinds of modules that a plan distinguishes."""

from __future__ import annotations

from typing import Literal

from torch import nn

from qspinn.plan.declared import declares_tensors
from qspinn.plan.neurons import charge_of
from qspinn.plan.synapses import is_foldable, is_synapse

Kind = Literal["declared", "synapse", "norm", "neuron", "fallback"]


def kind_of(module: nn.Module) -> Kind | None:
    """The kind of a module; ``None`` for one that a plan does not understand."""
    if declares_tensors(module):
        return "declared"
    if is_synapse(module):
        return "synapse"
    if is_foldable(module):
        return "norm"
    charge = charge_of(module)
    if charge is None:
        return None
    return "fallback" if charge == "fallback" else "neuron"
