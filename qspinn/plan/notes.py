"""Notes for the user about how a network is treated."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from qspinn.plan.declared import declares_tensors, layers_of
from qspinn.plan.float_class import shown
from qspinn.plan.inventory import LayerInfo
from qspinn.plan.neurons import charge_of, is_unknown_neuron, why_not
from qspinn.plan.recurrent import recurrent_states
from qspinn.plan.summary import listed
from qspinn.plan.synapses import SYNAPSES, is_synapse, weight_changed_by
from qspinn.plan.trace import Trace

# The end of a sentence about layers of a kind that no role covers.
NO_FORM = "has no fixed-point form here"


def notes_of(
    module: nn.Module,
    layers: list[LayerInfo],
    trace: Trace | None,
    off_grid: dict[str, tuple[str, ...]],
) -> Iterable[str]:
    """What a user should know about how the module is treated."""
    kinds: dict[str, list[str]] = {}
    yield from _unseen(module, layers, trace)
    for layer in layers:
        name = f"{layer.path or 'the module itself'} ({layer.type_name})"
        if layer.charge is not None and not layer.model.is_exact:
            yield (
                f"{name} has no exact integer formula here: its state is rounded after the float "
                "computation"
            )
        elif ".parametrizations." in f".{layer.path}.":
            continue  # the layer that they belong to is named
        elif layer.reason is not None and layer.reason.startswith(NO_FORM):
            kinds.setdefault(layer.type_name, []).append(layer.path or "the module itself")
        elif layer.reason is not None:
            yield f"{name} {layer.reason}: stays 32-bit"
    for kind, paths in kinds.items():
        yield f"{kind} {NO_FORM}: {listed(paths)} stays 32-bit"
    if trace is None:
        return
    for path, operations in sorted(trace.seen.outside_uses.items()):
        holder = module.get_submodule(path.rpartition(".")[0])
        if is_synapse(holder) and trace.called(path.rpartition(".")[0]):
            used = ", ".join(sorted(operations))
            yield f"{path} is also used outside of its layer ({used}): that use stays 32-bit"
    for what, where in off_grid.items():
        yield f"values between layers lie on no grid: {what} ({listed(where)})"


def reason_of(path: str, module: nn.Module, trace: Trace | None) -> str:
    """Why nothing of a module has a role, as the end of a sentence."""
    unknown = why_not(module)
    if unknown is not None:
        return unknown
    if isinstance(module, SYNAPSES):
        changed = weight_changed_by(module)
        if changed is not None:
            return f"{changed}, so that it does not compute with the weight that it stores"
    if trace is not None and not trace.called(path):
        return "was not called in the dry run"
    if recurrent_states(module) or (trace is not None and path in trace.state_shapes):
        return "keeps a state from step to step in a way that is not known"
    return NO_FORM


def _unseen(module: nn.Module, layers: list[LayerInfo], trace: Trace | None) -> Iterable[str]:
    """Neurons of which no number is known."""
    paths = {layer.path for layer in layers}
    for path, child in layers_of(module):
        if path in paths or declares_tensors(child):
            continue
        if charge_of(child) is not None or is_unknown_neuron(child):
            yield f"{shown(path, child)} {reason_of(path, child, trace)}: stays 32-bit"
