"""Chooses the formats of a trainer's module on batches and changes neither."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from lightning import LightningModule, Trainer

from qspinn.callbacks.isolation import Forward, forward_once, independent_copy, onlooker
from qspinn.plan import (
    QuantizationPlan,
    ResolvedPlan,
)
from qspinn.quantizers.over_batches import calibrated_on

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

    This happens on a copy, which is discarded, since its metrics have seen the batches.

    Args:
        plan: What is quantised, and how.
        module: Without quantizers. SpikingJelly's states are reset.
        trainer: Its trainer.
        batches: As the trainer hands them out.
        forward: How to run the module on one of them; ``None``: its own step.
        learning: Whether the module will learn in these formats.

    Raises:
        ValueError: A rule that matches nothing, or invalid formats.
    """
    copied = independent_copy(module)
    copied.to(trainer.strategy.root_device)
    copied.trainer = onlooker(trainer)

    def run_one(batch: Any) -> None:
        with trainer.precision_plugin.forward_context():
            forward_once(copied, batch, forward)

    return calibrated_on(copied, plan, [partial(run_one, batch) for batch in batches], learning)


def log_summary(plan: ResolvedPlan, owner: str) -> None:
    """Logs what is quantised and what is not; as a warning where the plan does not say so."""
    summary = plan.summary()
    level = logging.INFO if summary.is_as_planned else logging.WARNING
    log.log(level, "%s: %s", owner, "\n  ".join(summary.lines()))
