"""Resolves and calibrates a plan on several batches, of which none decides alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from qspinn.plan import (
    Inventory,
    QuantizationPlan,
    ResolvedPlan,
    inspect,
    needs_forward_pass,
    resolve,
)
from qspinn.quantizers.calibration import NotBinaryError, calibrate
from qspinn.quantizers.looking import with_inputs


def calibrated_on(
    module: nn.Module,
    plan: QuantizationPlan,
    runs: Sequence[Callable[[], None]],
    learning: bool = False,
) -> ResolvedPlan:
    """Resolves ``plan`` against ``module`` and chooses the formats that it leaves open.

    Args:
        module: Without quantizers; left as it was, but for what ``runs`` do to it.
        plan: What is quantised, and how.
        runs: Each runs the module on one batch, from fresh states.
        learning: Whether the module will learn in these formats.

    Raises:
        ValueError: A rule that matches nothing, a module without neurons, or formats that
            cannot be.
    """

    def run() -> None:
        for one in runs:
            one()

    inventory = _inventory(module, runs)
    resolved = resolve(plan, inventory)
    resolved.check_neurons()
    try:
        return calibrate(module, resolved, run, learning)
    except NotBinaryError as error:  # seen only now that the neurons spike by themselves
        resolved = resolve(plan, with_inputs(inventory, error.layers))
        return calibrate(module, resolved, run, learning)


def _inventory(module: nn.Module, runs: Sequence[Callable[[], None]]) -> Inventory:
    """With every input that any batch shows: counts of events may be 0 or 1 in one, 2 in the next.

    One batch at a time, since a dry run keeps what every layer puts out.
    """
    if not needs_forward_pass(module):
        return inspect(module)
    found = [inspect(module, run=run) for run in runs]
    fullest = max(found, key=lambda inventory: len(list(inventory.tensors())))
    inputs = {info.layer for one in found for info in one.tensors() if info.role == "input"}
    return with_inputs(fullest, sorted(inputs))
