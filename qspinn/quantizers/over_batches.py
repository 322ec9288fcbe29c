"""Resolves and calibrates a plan on several batches, of which none decides alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from qspinn.plan import QuantizationPlan, ResolvedPlan, inspect, resolve
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

    inventory = inspect(module, run=runs[0]) if runs else inspect(module)
    resolved = resolve(plan, inventory)
    resolved.check_neurons()
    try:
        return calibrate(module, resolved, run, learning)
    except NotBinaryError as error:
        # Counts of events may all be 0 or 1 in the first batch, and 2 in the next; and neurons
        # that spike by themselves may send other numbers than in the dry run.
        resolved = resolve(plan, with_inputs(inventory, error.layers))
        return calibrate(module, resolved, run, learning)
