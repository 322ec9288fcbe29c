"""Chooses the formats of a trainer's module on batches, without touching either."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from lightning import LightningModule, Trainer

from qspinn.callbacks.isolation import Forward, forward_once, independent_copy, onlooker
from qspinn.plan import (
    Inventory,
    QuantizationPlan,
    ResolvedPlan,
    inspect,
    needs_forward_pass,
    resolve,
)
from qspinn.quantizers import calibrate
from qspinn.quantizers.calibration import NotBinaryError
from qspinn.quantizers.looking import with_inputs

log = logging.getLogger(__name__)


def calibrated(
    plan: QuantizationPlan,
    module: LightningModule,
    trainer: Trainer,
    batches: Sequence[Any],
    forward: Forward | None,
    learning: bool = False,
) -> ResolvedPlan:
    """Resolves ``plan`` against the trainer's module and chooses the formats that it leaves open.

    All of it happens on a copy, which is thrown away: its metrics have seen the
    batches.

    Args:
        plan: What is quantised, and how.
        module: Without quantizers. SpikingJelly's states are reset.
        trainer: Its trainer.
        batches: As the trainer hands them out.
        forward: How to run the module on one of them; ``None``: its own step.
        learning: Whether the module will learn in these formats.

    Raises:
        ValueError: A rule that matches nothing, or formats that cannot be.
    """
    copied = independent_copy(module)
    copied.to(trainer.strategy.root_device)
    copied.trainer = onlooker(trainer)

    def run_one(batch: Any) -> None:
        with trainer.precision_plugin.forward_context():
            forward_once(copied, batch, forward)

    def run() -> None:
        for batch in batches:
            run_one(batch)

    inventory = _inventory(copied, [partial(run_one, batch) for batch in batches])
    try:
        return calibrate(copied, resolve(plan, inventory), run, learning)
    except NotBinaryError as error:  # seen only now that the neurons spike by themselves
        inventory = with_inputs(inventory, error.layers)
        return calibrate(copied, resolve(plan, inventory), run, learning)


def _inventory(module: LightningModule, runs: Sequence[Callable[[], None]]) -> Inventory:
    """With every input that any batch shows: counts of events may be 0 or 1 in one, 2 in the next.

    One batch at a time, since a dry run keeps what every layer puts out.
    """
    if not needs_forward_pass(module):
        return inspect(module)
    found = [inspect(module, run=run) for run in runs]
    fullest = max(found, key=lambda inventory: len(list(inventory.tensors())))
    inputs = {info.layer for one in found for info in one.tensors() if info.role == "input"}
    return with_inputs(fullest, sorted(inputs))


def log_summary(plan: ResolvedPlan, owner: str) -> None:
    """Tells what is quantised and what is not: as a warning where the plan did not say so."""
    summary = plan.summary()
    level = logging.INFO if summary.is_as_planned else logging.WARNING
    log.log(level, "%s: %s", owner, "\n  ".join(summary.lines()))
