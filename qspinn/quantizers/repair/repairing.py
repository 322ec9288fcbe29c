"""Repairs a network after training: numbers of its grids that do what it did in float."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from qspinn.plan import LayerInfo, ResolvedPlan
from qspinn.plan.expected import check_module, check_resolved
from qspinn.plan.neurons import evaluation_mode
from qspinn.quantizers.attach import check_detached
from qspinn.quantizers.repair.kinds import as_repairs
from qspinn.quantizers.repair.listening import RunBatch, in_order
from qspinn.quantizers.repair.state import Repairing, direct_taker
from qspinn.quantizers.repair.synapses import by_answers, by_currents, held_now, values_of
from qspinn.quantizers.repair.thresholds import repair_threshold

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Repaired:
    """What a repair found.

    Attributes:
        plan: With the formats that belong to the values.
        values: Tensor path -> what a device holds of it, numbers of its format.
        notes: What was left as it was, and why.
    """

    plan: ResolvedPlan
    values: Mapping[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@torch.inference_mode(False)
def repair(
    module: nn.Module,
    plan: ResolvedPlan,
    runs: Sequence[RunBatch],
    repairs: str | Sequence[str],
) -> Repaired:
    """Finds what a quantised network had better hold than its rounded parameters.

    Layer by layer, in the order in which they compute: each sees what the layers before it send
    when they are quantised and repaired, and is to do what it does in the float network. No
    labels, and no gradients. The values belong to the parameters of ``module`` as they are now.

    Args:
        module: The network, no quantizers attached. It is left as it was; SpikingJelly's states
            are reset.
        plan: Calibrated.
        runs: Each runs ``module`` on one batch of calibration data, from fresh states.
        repairs: Which, see :func:`as_repairs`.

    Raises:
        ValueError: Quantizers are attached; a plan without formats; no batch; a network in which
            nothing can be repaired; one that computes something else when it is quantised.
    """
    wanted = as_repairs(repairs, "repair: repairs")
    check_module(module, "repair")
    check_resolved(plan, "repair")
    check_detached(module, "repair", "")
    if not wanted:
        return Repaired(plan)
    if not plan.is_calibrated:
        raise ValueError("repair: the plan has no formats yet; call qspinn.quantizers.calibrate")
    work = Repairing(module, plan, runs)
    check_repairable(plan, wanted, "repair")
    layers = [one for one in plan.inventory.layers if one.kind in ("synapse", "neuron")]
    if not runs:
        raise ValueError("repair: there is no calibration data; give at least one batch")
    with evaluation_mode(module):
        for path in in_order(module, [one.path for one in layers], runs[0]):
            _repair(work, plan.inventory.layer(path), wanted)
    return Repaired(work.plan, work.values, tuple(work.notes))


def check_repairable(plan: ResolvedPlan, repairs: Sequence[str], owner: str) -> None:
    """Refuses a repair that would leave everything as it is.

    Raises:
        ValueError: The plan quantises nothing of what is to be repaired.
    """
    of_repair = {"learned": "weight", "bias": "bias", "threshold": "threshold"}
    wanted = {of_repair[name] for name in repairs}
    found = {tensor.role for tensor in plan.tensors if _is_repairable(plan, tensor.info.layer)}
    if wanted and not wanted & found:
        named = " and no ".join(sorted(wanted))
        raise ValueError(
            f"{owner}: repair={'+'.join(repairs)}: the plan quantises no {named} that can be "
            "repaired (modules that compute by themselves have none); write repair=none"
        )


def _is_repairable(plan: ResolvedPlan, path: str) -> bool:
    return plan.inventory.layer(path).kind in ("synapse", "neuron")


def repaired_on(
    module: nn.Module,
    plan: ResolvedPlan,
    runs: Sequence[RunBatch],
    repairs: Sequence[str],
    owner: str,
) -> Repaired:
    """As :func:`repair`; logs what is left as it was, on behalf of ``owner``."""
    found = repair(module, plan, runs, repairs) if repairs else Repaired(plan)
    if found.notes:
        log.info("%s: not repaired:\n  %s", owner, "\n  ".join(found.notes))
    return found


def _repair(work: Repairing, layer: LayerInfo, wanted: Sequence[str]) -> None:
    if layer.kind == "neuron":
        if "threshold" in wanted:
            repair_threshold(work, layer)
        return
    if _why_not(work, layer, wanted):
        return
    found = [held_now(work, layer)]
    moves_bias = "bias" in wanted and "bias" in work.tensors(layer.path)
    if "learned" in wanted or moves_bias:
        found.append(by_currents(work, layer, "learned" in wanted))
    neuron = direct_taker(work.plan, layer)
    chosen = found[-1] if neuron is None else by_answers(work, layer, neuron, found, moves_bias)
    work.values.update(values_of(work, layer, chosen))


def _why_not(work: Repairing, layer: LayerInfo, wanted: Sequence[str]) -> bool:
    """Whether a synapse layer is left as it is; says so."""
    tensors = work.tensors(layer.path)
    if not {"learned", "bias"} & set(wanted):
        return True
    if "weight" not in tensors:
        work.leave(layer.path, "its weights are not quantised")
        return True
    tied = {info.tied_to for info in work.plan.inventory.tensors() if info.tied_to is not None}
    if any(info.tied_to or info.path in tied for info in layer.tensors):
        work.leave(layer.path, "shares its parameters with another layer")
        return True
    if "bias" in wanted and "bias" not in tensors:
        has = any(info.name == "bias" for info in layer.tensors)
        work.leave(layer.path, "its bias is not quantised" if has else "has no bias to repair")
        return "learned" not in wanted
    return False
