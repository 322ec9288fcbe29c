"""Post-training quantisation: the post-fit hook that quantises what was trained."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning import LightningModule, Trainer

from qspinn.callbacks.isolation import (
    Forward,
    forward_once,
    independent_copy,
    preserved_globals,
    quiet_lightning,
    side_trainer,
)
from qspinn.callbacks.reset_states import ResetStates
from qspinn.plan import (
    Footprint,
    QuantizationPlan,
    ResolvedPlan,
    footprint_of,
    inspect,
    resolve,
)
from qspinn.quantizers import attach, calibrate, is_attached

log = logging.getLogger(__name__)

STAGES = ("validate", "test")


class PostTrainingQuantization(ResetStates):
    """Quantises a copy of the trained network when the fit ends, and evaluates it.

    Formats that the plan leaves open are calibrated on training data. The
    quantised copy is then evaluated by a trainer of its own on the data that the
    module's trainer has, and its metrics go to the same loggers under
    ``ptq/``. The trained module, the trainer's state and its metrics stay as they
    are.

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

        Raises:
            ValueError: A value that cannot be.
        """
        super().__init__()
        if isinstance(calibration_batches, bool) or calibration_batches < 1:
            raise ValueError(
                f"PostTrainingQuantization: calibration_batches={calibration_batches!r}; "
                "write a number of batches, 1 or more"
            )
        for stage in stages:
            if stage not in STAGES:
                raise ValueError(
                    f"PostTrainingQuantization: stages={list(stages)}: unknown stage {stage!r}; "
                    f"write any of {', '.join(STAGES)}"
                )
        self.plan = plan if isinstance(plan, QuantizationPlan) else QuantizationPlan.from_dict(plan)
        self.calibration_batches = calibration_batches
        self.stages = tuple(stages)
        self.prefix = prefix
        self.forward = forward
        self.quantized_module: LightningModule | None = None
        self.resolved_plan: ResolvedPlan | None = None
        self.metrics: dict[str, float] = {}

    @property
    def footprint(self) -> Footprint | None:
        """Bits of the quantised network."""
        if self.resolved_plan is None:
            return None
        return footprint_of(self.resolved_plan.inventory, self.resolved_plan)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks the plan against the module before anything is trained."""
        if is_attached(pl_module):
            raise ValueError(
                "PostTrainingQuantization: the module has quantizers attached already; use it "
                "without InTrainingQuantization, or call qspinn.quantizers.detach first"
            )
        self.plan.resolve(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Calibrates, quantises and evaluates a copy of the trained module."""
        with preserved_globals(), quiet_lightning():
            quantized = independent_copy(pl_module)
            quantized.to(trainer.strategy.root_device)
            self.resolved_plan = self._calibrated(trainer, quantized)
            attach(quantized, self.resolved_plan)
            quantized.eval()
            self.metrics = self._evaluated(trainer, quantized)
        self.quantized_module = quantized
        self._log(trainer)

    def _calibrated(self, trainer: Trainer, module: LightningModule) -> ResolvedPlan:
        loader = trainer.train_dataloader
        if loader is None:
            raise ValueError("PostTrainingQuantization: the trainer has no training data")
        batches = []
        for batch in loader:
            batches.append(
                module._apply_batch_transfer_handler(batch, device=module.device, dataloader_idx=0)
            )
            if len(batches) == self.calibration_batches:
                break

        def run_one() -> None:
            forward_once(module, batches[0], self.forward)

        def run_all() -> None:
            for batch in batches:
                forward_once(module, batch, self.forward)

        module._trainer = trainer
        training = module.training
        module.eval()
        with torch.no_grad():
            inventory = inspect(module, run=run_one)
            for note in inventory.notes:
                log.warning("PostTrainingQuantization: %s", note)
            plan = calibrate(module, resolve(self.plan, inventory), run_all)
        module.train(training)
        module._trainer = None
        return plan

    def _evaluated(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for stage in self.stages:
            side = side_trainer(
                trainer,
                callbacks=[ResetStates()],
                limit_val_batches=trainer.limit_val_batches,
                limit_test_batches=trainer.limit_test_batches,
            )
            results: Sequence[Mapping[str, float]] = ()
            if stage == "validate" and trainer.val_dataloaders is not None:
                results = side.validate(module, dataloaders=trainer.val_dataloaders, verbose=False)
            elif stage == "test":
                # A datamodule knows its trainer: the copy keeps this one's untouched.
                datamodule = copy.copy(getattr(trainer, "datamodule", None))
                results = side.test(module, datamodule=datamodule, verbose=False)
            for result in results:
                metrics |= {f"{self.prefix}{name}": value for name, value in result.items()}
        return metrics

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


__all__ = ["PostTrainingQuantization"]
