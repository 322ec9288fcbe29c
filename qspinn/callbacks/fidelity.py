"""Compares the network of a quantisation callback with its 32-bit twin."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader

from qspinn.callbacks.drift import measure_drift, roles_to_widen, ways_to_run
from qspinn.callbacks.isolation import Forward, copy_for, quiet_lightning, seeded_globals
from qspinn.callbacks.trainer_data import (
    converted_batches,
    drawn,
    evaluation_loaders,
    preserved_generators,
    repeatable,
)
from qspinn.metrics import Drift
from qspinn.plan import ResolvedPlan
from qspinn.quantizers import detach, is_attached
from qspinn.quantizers.compiling import step_uncompiled

log = logging.getLogger(__name__)


def fidelity_of(
    owner: str,
    trainer: Trainer,
    module: LightningModule,
    quantized: LightningModule,
    plan: ResolvedPlan,
    samples: int,
    forward: Forward | None = None,
) -> Drift | None:
    """How far ``quantized`` behaves as its 32-bit twin; warns of layers that fell silent.

    It is measured on validation data, or on training data if there are none that can be iterated
    again. Nothing else is changed, and nothing is raised: why it cannot be measured is logged as a
    warning.

    Args:
        owner: The callback, for the log.
        trainer: The trainer, whose fit has ended.
        module: Its module: the twin, or the quantised network itself.
        quantized: The quantised network.
        plan: With the formats that it has.
        samples: At most so many; 0: nothing is measured.
        forward: How to run the module on a batch.

    Returns:
        None where it was not measured.
    """
    if samples == 0:
        return None
    try:
        loaders = evaluation_loaders(trainer)
        with seeded_globals(), quiet_lightning(), preserved_generators(*loaders):
            loader = next(repeatable(loaders), None)
            if loader is None:
                log.warning(
                    "%s: how far the quantised network behaves as its 32-bit twin was not "
                    "measured: there are no validation or training data that can be iterated "
                    "again after the fit",
                    owner,
                )
                return None
            few = drawn(trainer, loader, samples)  # the first ones may all be of one class
            batches = _converted(trainer, module, loader if few is None else few)
            reference, copied = copy_for(trainer, module), copy_for(trainer, quantized)
            if is_attached(reference):
                detach(reference)
            # These batch sizes would be compiled again.
            step_uncompiled(copied)
            ways, roles = ways_to_run(forward), roles_to_widen(plan)
            with trainer.precision_plugin.forward_context():
                found = measure_drift(reference, copied, batches, ways, samples, roles)
    except Exception as error:
        log.warning(
            "%s: how far the quantised network behaves as its 32-bit twin could not be measured: "
            "%s: %s",
            owner,
            type(error).__name__,
            error,
        )
        return None
    for sentence in (*found.warnings, *found.notes):
        log.warning("%s: %s", owner, sentence)
    return found


def log_fidelity(trainer: Trainer, fidelity: Drift | None, prefix: str) -> None:
    """Logs it to the trainer's loggers, each name after ``prefix``."""
    logged = {} if fidelity is None else fidelity.metrics()
    for logger in trainer.loggers if logged else ():
        logger.log_metrics(
            {f"{prefix}{name}": value for name, value in logged.items()}, step=trainer.global_step
        )


def _converted(trainer: Trainer, module: LightningModule, loader: CombinedLoader) -> Iterator[Any]:
    for batch, _, _ in loader:
        yield from converted_batches(trainer, module, [batch], 1)
