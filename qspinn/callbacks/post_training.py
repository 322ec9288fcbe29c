"""Post-training quantisation: the post-fit hook that quantises what was trained."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import CombinedLoader

from qspinn.callbacks.calibrating import calibrated, warn_of_notes
from qspinn.callbacks.in_training import InTrainingQuantization
from qspinn.callbacks.isolation import (
    Forward,
    check_runnable,
    check_single_device,
    independent_copy,
    preserved_globals,
    quiet_lightning,
    side_trainer,
)
from qspinn.callbacks.packages import overrides
from qspinn.callbacks.quantization import Quantization
from qspinn.callbacks.reset_states import ResetStates
from qspinn.callbacks.trainer_data import (
    first_batches,
    preserved_generators,
    training_loader,
    validation_loader,
    with_validation_data,
)
from qspinn.plan import QuantizationPlan, needs_forward_pass, reset_states
from qspinn.quantizers import attach, is_attached
from qspinn.quantizers.class_swap import substituted

log = logging.getLogger(__name__)

STAGES = ("validate", "test")


class PostTrainingQuantization(Quantization):
    """Quantises a copy of the trained network when the fit ends, and evaluates it.

    Formats that the plan leaves open are calibrated on training data. The
    quantised copy is then evaluated by a trainer of its own on the data that the
    module's trainer has, and its metrics go to the same loggers under
    ``ptq/``. The trained module, the trainer's state and its metrics stay as they
    are. Several of these callbacks, each with a prefix of its own, compare plans
    on one training.

    The plan is tried on a copy of the module with the first batch of the fit, so
    that what is wrong with it shows before anything is trained.

    Attributes:
        plan: What is quantised, and how.
        quantized_module: The quantised copy; ``None`` until the fit has ended.
        resolved_plan: With the formats that were chosen.
        footprint: Of the quantised copy.
        metrics: Its metrics, e.g. ``{"ptq/val_accuracy": 0.98}``.

    Example:
        >>> trainer = Trainer(callbacks=[PostTrainingQuantization(plan)])  # doctest: +SKIP
    """

    def __init__(
        self,
        plan: QuantizationPlan | Mapping[str, Any],
        calibration_batches: int = 8,
        stages: Sequence[str] = ("validate",),
        prefix: str = "ptq/",
        forward: Forward | None = None,
        compile_steps: bool = False,
    ) -> None:
        """Prepares for the end of the fit.

        Args:
            plan: A plan, or the dictionary of one.
            calibration_batches: Training batches that formats are chosen on.
            stages: What to evaluate on: ``"validate"``, ``"test"``, both or nothing.
                The test data comes from the datamodule or from the module itself.
            prefix: Put before the names of the metrics.
            forward: How to run the module on a batch for calibration, as
                ``forward(module, batch)``; ``None`` runs its ``validation_step``.
            compile_steps: Whether neurons step compiled, see
                :func:`qspinn.quantizers.attach`; each change of a format is compiled
                anew.

        Raises:
            ValueError: A value that cannot be.
        """
        super().__init__(plan, forward)
        self.compile_steps = compile_steps
        _check_arguments(calibration_batches, stages)
        self.calibration_batches = calibration_batches
        self.stages = tuple(stages)
        self.prefix = prefix
        self.quantized_module: LightningModule | None = None
        self.metrics: dict[str, float] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks the plan against the module before anything is trained."""
        check_single_device(trainer, "PostTrainingQuantization")
        check_runnable(pl_module, self.forward, "PostTrainingQuantization")
        self._check_alone(trainer, pl_module)
        self._check_data(trainer, pl_module)
        self.plan.resolve(pl_module)
        self.quantized_module, self.resolved_plan, self.metrics = None, None, {}
        self._was_tried = False

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Tries the plan on the first batch, and resets the states."""
        if not self._was_tried:
            self._was_tried = True
            with preserved_globals(), quiet_lightning():
                plan = calibrated(self.plan, pl_module, trainer, [batch], self.forward)
                attach(independent_copy(pl_module), plan, self.compile_steps)
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Calibrates, quantises and evaluates a copy of the trained module."""
        train, validation = training_loader(trainer), validation_loader(trainer)
        if train is None:
            raise ValueError("PostTrainingQuantization: the trainer has no training data")
        with preserved_globals(), quiet_lightning(), preserved_generators(train, validation):
            batches = []
            if needs_forward_pass(pl_module):
                batches = first_batches(trainer, pl_module, train, self.calibration_batches)
            resolved = calibrated(self.plan, pl_module, trainer, batches, self.forward)
            warn_of_notes(resolved, "PostTrainingQuantization")
            quantized = independent_copy(pl_module)
            attach(quantized, resolved, self.compile_steps)
            quantized.eval()
            metrics = self._evaluated(trainer, quantized, validation)
        self.quantized_module, self.resolved_plan, self.metrics = quantized, resolved, metrics
        self._log(trainer)

    def _check_alone(self, trainer: Trainer, pl_module: LightningModule) -> None:
        others: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        if any(isinstance(other, InTrainingQuantization) for other in others):
            raise ValueError(
                "PostTrainingQuantization: the trainer has InTrainingQuantization as well, which "
                "leaves no 32-bit network to quantise; use each in a fit of its own"
            )
        if is_attached(pl_module):
            raise ValueError(
                "PostTrainingQuantization: the module has quantizers attached already; call "
                "qspinn.quantizers.detach first"
            )
        for other in others:
            same = isinstance(other, PostTrainingQuantization) and other.prefix == self.prefix
            if same and other is not self:
                raise ValueError(
                    f"PostTrainingQuantization: two of them have prefix={self.prefix!r}; "
                    "write a prefix for each"
                )

    def _check_data(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.limit_train_batches == 0:
            raise ValueError(
                "PostTrainingQuantization: limit_train_batches=0 leaves no data to calibrate on"
            )
        if "test" not in self.stages:
            return
        datamodule = getattr(trainer, "datamodule", None)
        has_data = overrides("test_dataloader", datamodule or pl_module)
        if not has_data or not overrides("test_step", pl_module):
            raise ValueError(
                f"PostTrainingQuantization: stages={list(self.stages)}: testing needs a test_step "
                "and a test_dataloader (of the datamodule, or else of the module); add them, or "
                "leave 'test' out and call trainer.test(callback.quantized_module, dataloaders)"
            )

    def _evaluated(
        self, trainer: Trainer, module: LightningModule, validation: CombinedLoader | None
    ) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for stage in self.stages:
            if stage == "validate" and validation is None:
                log.warning(
                    "PostTrainingQuantization: the trainer validates nothing, so the quantised "
                    "network is not validated either"
                )
                continue
            side = side_trainer(
                trainer,
                callbacks=[ResetStates()],
                limit_val_batches=trainer.limit_val_batches,
                limit_test_batches=trainer.limit_test_batches,
            )
            run = self._test if stage == "test" else self._validate
            # The module's own callbacks belong to the training.
            with substituted(module, configure_callbacks=_no_callbacks):
                for result in run(side, trainer, module, validation):
                    metrics |= {f"{self.prefix}{name}": value for name, value in result.items()}
            module.trainer = None
        reset_states(module)
        return metrics

    @staticmethod
    def _validate(
        side: Trainer, trainer: Trainer, module: LightningModule, loader: CombinedLoader | None
    ) -> Sequence[Mapping[str, float]]:
        datamodule = getattr(trainer, "datamodule", None)
        with substituted(module, setup=_nothing_to_set_up, teardown=_nothing_to_set_up):
            if datamodule is None or loader is None:
                return side.validate(module, dataloaders=loader, verbose=False)
            copied = with_validation_data(datamodule, loader)
            return side.validate(module, datamodule=copied, verbose=False)

    @staticmethod
    def _test(
        side: Trainer, trainer: Trainer, module: LightningModule, loader: CombinedLoader | None
    ) -> Sequence[Mapping[str, float]]:
        # A datamodule knows its trainer: the copy keeps this one's untouched.
        datamodule = copy.copy(getattr(trainer, "datamodule", None))
        return side.test(module, datamodule=datamodule, verbose=False)

    def _log(self, trainer: Trainer) -> None:
        footprint = self.footprint
        assert footprint is not None  # set just before
        logged = {
            **self.metrics,
            f"{self.prefix}footprint_bits": float(footprint.inference_bits),
            f"{self.prefix}reduction": footprint.reduction,
        }
        for logger in trainer.loggers:
            logger.log_metrics(logged, step=trainer.global_step)


def _check_arguments(calibration_batches: object, stages: object) -> None:
    owner = "PostTrainingQuantization"
    whole = isinstance(calibration_batches, int) and not isinstance(calibration_batches, bool)
    if not whole or calibration_batches < 1:  # type: ignore[operator]
        raise ValueError(
            f"{owner}: calibration_batches={calibration_batches!r}; write a number of batches, "
            "1 or more"
        )
    if isinstance(stages, str) or not isinstance(stages, Sequence):
        raise ValueError(f"{owner}: stages={stages!r}; write a list, such as ['validate', 'test']")
    for stage in stages:
        if stage not in STAGES:
            raise ValueError(
                f"{owner}: stages={list(stages)}: unknown stage {stage!r}; "
                f"write any of {', '.join(STAGES)}"
            )


def _nothing_to_set_up(stage: str) -> None:
    """Stands in for hooks whose work is done."""


def _no_callbacks() -> list[Callback]:
    """Stands in for ``LightningModule.configure_callbacks``."""
    return []
