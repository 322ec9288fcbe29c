"""Evaluates a quantised copy with a separate trainer, on the data of the first one."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import CombinedLoader

from qspinn.callbacks.isolation import independent_copy, side_trainer
from qspinn.callbacks.reset_states import ResetStates
from qspinn.callbacks.trainer_data import (
    drawn,
    is_repeatable,
    once_only,
    with_validation_data,
)
from qspinn.metrics import Drift
from qspinn.plan import needs_forward_pass, reset_states
from qspinn.quantizers.class_swap import substituted

log = logging.getLogger(__name__)

Results = Sequence[Mapping[str, float]]

VALIDATE = ("validate",)

AfterStage = Callable[[str, Mapping[str, float]], bool]
"""Takes a stage and its metrics; returns whether to run the remaining stages."""


def evaluated(
    trainer: Trainer,
    module: LightningModule,
    validation: CombinedLoader | None,
    stages: Sequence[str],
    after_stage: AfterStage | None = None,
) -> dict[str, float]:
    """The metrics of a quantised copy of the trainer's module.

    The validation data are fresh, from :func:`~qspinn.callbacks.trainer_data.validation_loader`.
    Stages are ``"validate"``, ``"test"``, both or nothing; ``after_stage`` is asked after each.
    """
    metrics: dict[str, float] = {}
    for stage in stages:
        if stage == "validate" and validation is None:
            log.warning(
                "PostTrainingQuantization: the trainer validates nothing, so the quantised "
                "network is not validated either"
            )
            continue
        counter = _Counter()
        side = side_trainer(
            trainer,
            callbacks=[counter],
            limit_val_batches=trainer.limit_val_batches,
            limit_test_batches=trainer.limit_test_batches,
        )
        found: dict[str, float] = {}
        for result in _run(stage, side, trainer, module, validation):
            found |= result
        metrics |= found
        if not counter.batches:
            log.warning(
                "PostTrainingQuantization: the data to %s on gave no batch after the training "
                "(can it be iterated once only?), so there are no metrics of the quantised "
                "network; evaluate callback.quantized_module on other data",
                stage,
            )
        elif after_stage is not None and not after_stage(stage, found):
            break
    return metrics


def looks_worth_it(
    trainer: Trainer,
    quantized: LightningModule,
    validation: CombinedLoader | None,
    after_stage: AfterStage | None,
    drift: Drift | None,
    drift_samples: int,
    samples: int | None,
) -> bool:
    """Whether ``after_stage`` wants the evaluation to go on after a few samples.

    It is asked after ``"drift"``, given the drift against the trained module on some samples, and
    after ``"samples"``, a validation on so many; only about samples that are drawn at random from
    more. A module that learns by itself is not validated on a few samples first.
    """
    if after_stage is None or validation is None:
        return True
    is_random = drawn(trainer, validation, drift_samples) is not None
    if drift is not None and is_random and not after_stage("drift", drift.metrics()):
        return False
    few = None if samples is None else drawn(trainer, validation, samples)
    # A module that learns by itself fits its readout before it is validated, the slowest part.
    if few is None or not needs_forward_pass(quantized):
        return True
    return after_stage("samples", evaluated(trainer, independent_copy(quantized), few, VALIDATE))


def try_to_validate(
    trainer: Trainer,
    quantized: LightningModule,
    module: LightningModule,
    validation: CombinedLoader,
) -> None:
    """Validates a quantised copy on one batch, as will be done after the training.

    Nothing is taken from data that may be a stream.

    Raises:
        ValueError: Data that can be iterated only once.
        RuntimeError: It fails; the error says with what.
    """
    stream = once_only(validation)
    if stream is not None:
        raise ValueError(
            f"PostTrainingQuantization: the validation data ({stream}) can be iterated only once, "
            "so that nothing of it is left for the quantised network after the training; give a "
            "DataLoader over a dataset, or write stages=() and evaluate callback.quantized_module"
        )
    if not is_repeatable(validation):
        return

    def validate(copied: LightningModule) -> None:
        side = side_trainer(trainer, callbacks=[ResetStates()], limit_val_batches=1)
        _run("validate", side, trainer, copied, validation)

    try:
        validate(quantized)
    except Exception as error:
        if trainer.num_sanity_val_steps == 0 and _fails(validate, independent_copy(module)):
            # The validation may need all of the data.
            return
        raise RuntimeError(
            f"PostTrainingQuantization: the quantised {type(module).__name__} cannot be validated "
            f"by a trainer of its own: {type(error).__name__}: {error}; make its hooks independent "
            "of this trainer, or write stages=() and evaluate callback.quantized_module"
        ) from error


class _Counter(ResetStates):
    """Counts what the evaluation was given."""

    def __init__(self) -> None:
        self.batches = 0

    def on_validation_batch_start(self, *args: Any, **kwargs: Any) -> None:
        super().on_validation_batch_start(*args, **kwargs)
        self.batches += 1

    on_test_batch_start = on_validation_batch_start


def _run(
    stage: str,
    side: Trainer,
    trainer: Trainer,
    module: LightningModule,
    validation: CombinedLoader | None,
) -> Results:
    datamodule = getattr(trainer, "datamodule", None)
    # The module's own callbacks belong to the training.
    with substituted(module, configure_callbacks=_no_callbacks):
        if stage == "test":
            # A datamodule refers to its trainer: the copy keeps that of the original unchanged.
            results = side.test(module, datamodule=copy.copy(datamodule), verbose=False)
        else:
            given: dict[str, Any] = {"dataloaders": validation}
            if datamodule is not None and validation is not None:
                given = {"datamodule": with_validation_data(datamodule, validation)}
            with substituted(module, setup=_nothing_to_set_up, teardown=_nothing_to_set_up):
                results = side.validate(module, verbose=False, **given)
    module.trainer = None
    reset_states(module)
    return results


def _fails(evaluate: Any, module: LightningModule) -> bool:
    try:
        evaluate(module)
    except Exception:
        return True
    return False


def _nothing_to_set_up(stage: str) -> None:
    """Replaces hooks that must not run again."""


def _no_callbacks() -> list[Callback]:
    """Replaces ``LightningModule.configure_callbacks``."""
    return []
