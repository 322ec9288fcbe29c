"""Post-training quantisation: the post-fit hook that quantises what was trained."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import CombinedLoader

from qspinn.callbacks.arguments import check_arguments
from qspinn.callbacks.evaluating import QuantizesEvaluations
from qspinn.callbacks.fidelity import fidelity_of, log_fidelity
from qspinn.callbacks.formats import calibrated_and_repaired, log_summary
from qspinn.callbacks.in_training import InTrainingQuantization
from qspinn.callbacks.isolation import (
    Forward,
    check_runnable,
    check_single_device,
    independent_copy,
    preserved_globals,
    quiet_lightning,
)
from qspinn.callbacks.packages import overrides
from qspinn.callbacks.side_evaluation import (
    AfterStage,
    evaluated,
    looks_worth_it,
    try_to_validate,
)
from qspinn.callbacks.trainer_data import (
    back_on_device,
    converted_batches,
    first_batches,
    is_repeatable,
    kept_on_cpu,
    preserved_generators,
    training_loader,
    validation_loader,
)
from qspinn.callbacks.trial import tried
from qspinn.plan import QuantizationPlan, needs_forward_pass
from qspinn.quantizers import is_attached
from qspinn.quantizers.attach import attach_quietly
from qspinn.quantizers.repair import Repaired, as_repairs, check_repairable
from qspinn.records import work_metrics

log = logging.getLogger(__name__)


class PostTrainingQuantization(QuantizesEvaluations):
    """Quantises a copy of the trained network when the fit ends, and evaluates it.

    Formats that the plan leaves open are calibrated on training data, and so is what
    ``repair`` asks for. The
    quantised copy is then evaluated by a trainer of its own on the data that the
    module's trainer has, and its metrics go to the same loggers under
    ``ptq/``. The trained module, the trainer's state and its metrics stay as they
    are. Several of these callbacks, each with a prefix of its own, compare plans
    on one training.

    All of this is tried on copies of the module with the first batch of the fit, so
    that errors show before anything is trained. Training data that can be
    iterated only once is no obstacle: its first batches are kept.

    Where the trainer validates, tests or predicts outside of a fit, it does so with
    the quantised network, and says so: with the formats of the checkpoint that it is
    given, or with formats chosen on ``calibration_data`` or on the training data.
    The module is restored afterwards. Only the module of this callback's last fit
    is evaluated in 32-bit, unless a checkpoint is given.

    Attributes:
        plan: What is quantised, and how.
        quantized_module: The quantised copy; ``None`` until the fit has ended.
        resolved_plan: With the formats that were chosen.
        footprint: Of the quantised copy.
        metrics: Its metrics, e.g. ``{"ptq/val_accuracy": 0.98}``.
        fidelity: How far it behaves as the trained module; ``None``: not measured.
        failure: What failed when the fit had ended, if anything; it is logged, too.

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
        calibration_data: Iterable[Any] | None = None,
        after_stage: AfterStage | None = None,
        samples: int | None = None,
        fidelity_samples: int = 64,
        repair: str | Sequence[str] = "none",
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
            calibration_data: Batches to choose formats on (a list or a DataLoader), in
                place of the training data.
            after_stage: Asked after each stage, as ``after_stage(stage, metrics)``: where
                it returns ``False``, those that are left are left out. ``"drift"`` comes
                first, with the metrics of ``fidelity``.
            samples: Validation samples, drawn at random, that a copy is shown then: the
                stage ``"samples"``.
            fidelity_samples: Validation samples (or training samples, where there are
                none) on which the quantised copy is compared with the trained module,
                layer by layer; 0: it is not.
            repair: What is repaired of the copy, on the batches that formats are chosen on:
                ``"none"``, or any of ``"bias"``, ``"threshold"`` and ``"learned"``, joined by
                ``"+"`` or in a list; see :func:`qspinn.quantizers.repair.repair`.

        Raises:
            TypeError: ``calibration_data`` or a plan that is something else.
            ValueError: An invalid value.
        """
        check_arguments(calibration_batches, stages, calibration_data)
        super().__init__(plan, forward, compile_steps, fidelity_samples)
        self.repairs = as_repairs(repair, "PostTrainingQuantization: repair")
        self.calibration_batches = calibration_batches
        self.calibration_data = calibration_data
        self.stages = tuple(stages)
        self.prefix = prefix
        self.after_stage = after_stage
        self.samples = samples
        self.quantized_module: LightningModule | None = None
        self.metrics: dict[str, float] = {}
        self.failure: Exception | None = None
        # The first training batches, if they cannot be iterated again.
        self._keeps_batches = False
        self._seen: list[Any] = []

    @property
    def state_key(self) -> str:
        """One per prefix, since a trainer may have several of these callbacks."""
        return self._generate_state_key(prefix=self.prefix)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks the plan against the module before anything is trained."""
        check_single_device(trainer, "PostTrainingQuantization")
        check_runnable(pl_module, self.forward, "PostTrainingQuantization")
        self.check_alone(trainer, pl_module)
        self._check_data(trainer, pl_module)
        check_repairable(self.plan.resolve(pl_module), self.repairs, "PostTrainingQuantization")
        self.quantized_module, self.resolved_plan, self.metrics = None, None, {}
        self._repaired = {}
        self.failure, self.work, self.fidelity, self._last = None, None, None, None
        self._was_tried, self._seen = False, []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Tries on the first batch what will be done after the fit, and resets the states."""
        if not self._was_tried:
            self._was_tried = True
            self._try(trainer, pl_module, batch)
        if self._keeps_batches and len(self._seen) < self.calibration_batches:
            self._seen.append(kept_on_cpu(batch))
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Calibrates, quantises and evaluates a copy of the trained module.

        Errors are logged and kept as ``failure``, so that the trained module and the
        quantised copy, if there is one, are not lost.
        """
        self._fitted = weakref.ref(pl_module)
        try:
            self._quantize(trainer, pl_module)
        except Exception as error:
            self.failure = error
            log.exception(
                "PostTrainingQuantization: the training is complete, but %s failed",
                "quantising its network"
                if self.quantized_module is None
                else "evaluating the quantised network (callback.quantized_module)",
            )
        self._seen = []
        if self.quantized_module is not None:
            try:
                self._log(trainer)
            except Exception as error:
                self.failure = error
                log.exception("PostTrainingQuantization: a logger failed to take the metrics")

    def quantized_network(self) -> LightningModule:
        """The quantised copy."""
        if self.quantized_module is None:
            return super().quantized_network()
        return self.quantized_module

    def _try(self, trainer: Trainer, pl_module: LightningModule, batch: Any) -> None:
        train, validation = training_loader(trainer), validation_loader(trainer)
        self._keeps_batches = (
            self.calibration_data is None
            and needs_forward_pass(pl_module)
            and (train is None or not is_repeatable(train))
        )
        with preserved_globals(), quiet_lightning(), preserved_generators(validation):
            of = (self.plan, pl_module, trainer, batch, self.forward, self.compile_steps)
            quantized = tried(*of, repairs=self.repairs)
            # A module that learns by itself may have nothing to validate before it has learned.
            validates = "validate" in self.stages and needs_forward_pass(pl_module)
            if validates and validation is not None:
                try_to_validate(trainer, quantized.eval(), pl_module, validation)

    def _quantize(self, trainer: Trainer, pl_module: LightningModule) -> None:
        train, validation = training_loader(trainer), validation_loader(trainer)
        with preserved_globals(), quiet_lightning(), preserved_generators(train, validation):
            batches = self._training_batches(trainer, pl_module, train)
            chosen = (self.plan, pl_module, trainer, batches, self.forward, self.repairs)
            found = calibrated_and_repaired(*chosen)
            resolved = found.plan
            log_summary(resolved, "PostTrainingQuantization")
            quantized = independent_copy(pl_module)
            attach_quietly(quantized, resolved, self.compile_steps, found.values)
            quantized.eval()
            self.quantized_module, self.resolved_plan = quantized, resolved
            self._repaired = found.values
            of = (trainer, pl_module, quantized, resolved, self.fidelity_samples, self.forward)
            self.fidelity = fidelity_of("PostTrainingQuantization", *of)
            looks = (self.after_stage, self.fidelity, self.fidelity_samples, self.samples)
            # The stages before the evaluation leave its random numbers unchanged.
            with preserved_globals(), preserved_generators(train, validation):
                is_worth_it = looks_worth_it(trainer, quantized, validation, *looks)
            stages = self.stages if is_worth_it else ()
            metrics = evaluated(trainer, quantized, validation, stages, self.after_stage)
        self.metrics = {f"{self.prefix}{name}": value for name, value in metrics.items()}
        self._measure(trainer, quantized, resolved, batches)

    def _training_batches(
        self, trainer: Trainer, pl_module: LightningModule, train: CombinedLoader | None
    ) -> list[Any]:
        count = self.calibration_batches
        if not needs_forward_pass(pl_module):
            return []
        if self._seen:
            return back_on_device(trainer, self._seen)
        if self.calibration_data is not None:
            found = converted_batches(trainer, pl_module, self.calibration_data, count)
        else:
            found = [] if train is None else first_batches(trainer, pl_module, train, count)
        if not found:
            raise ValueError(
                "PostTrainingQuantization: the training data gives no batch to choose formats on; "
                "write PostTrainingQuantization(plan, calibration_data=...)"
            )
        return found

    def check_alone(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses other callbacks that quantise the same module or have the same prefix."""
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
        if trainer.limit_train_batches == 0 and self.calibration_data is None:
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

    def check_one(self, trainer: Trainer) -> None:
        """Refuses two of these callbacks where only one can quantise the module."""
        others: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        if sum(isinstance(other, PostTrainingQuantization) for other in others) > 1:
            raise ValueError(
                "PostTrainingQuantization: the trainer has several, of which only one can quantise "
                "the module that is evaluated; use a trainer with one of them, or without any for "
                "the 32-bit network"
            )

    def _note_formats(self, found: Repaired) -> None:
        # After a fit, resolved_plan keeps the formats of quantized_module.
        if self.quantized_module is None:
            self.resolved_plan, self._repaired = found.plan, found.values

    def _log(self, trainer: Trainer) -> None:
        footprint = self.footprint
        assert footprint is not None  # set just before
        logged = {
            **self.metrics,
            f"{self.prefix}footprint_bits": float(footprint.inference_bits),
            f"{self.prefix}reduction": footprint.reduction,
        }
        work = work_metrics(None if self.work is None else self.work.to_dict())
        logged |= {f"{self.prefix}{name}": value for name, value in work.items()}
        for logger in trainer.loggers:
            logger.log_metrics(logged, step=trainer.global_step)
        log_fidelity(trainer, self.fidelity, f"{self.prefix}fidelity/")
