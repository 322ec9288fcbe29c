"""In-training quantisation: the network computes with quantised values while it learns."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from lightning import LightningModule, Trainer

from qspinn.callbacks.isolation import (
    Forward,
    forward_once,
    independent_copy,
    preserved_globals,
    quiet_lightning,
)
from qspinn.callbacks.reset_states import ResetStates
from qspinn.plan import (
    Footprint,
    QuantizationPlan,
    ResolvedPlan,
    footprint_of,
    inspect,
    reset_states,
    resolve,
)
from qspinn.quantizers import attach, calibrate, detach, is_attached

log = logging.getLogger(__name__)


class InTrainingQuantization(ResetStates):
    """Trains, validates, tests and checkpoints a network with quantised values.

    From ``start_epoch`` on, every forward pass computes in fixed point; gradients
    flow straight through the roundings to float parameters underneath, which the
    optimizer, the checkpoints and ``state_dict`` see as ever. Formats that the
    plan leaves open are calibrated on the first batch of each epoch, and are
    fixed from ``freeze_epoch`` on. Checkpoints carry them. When the fit ends,
    the quantised network is left in place.

    Attributes:
        plan: What is quantised, and how.
        resolved_plan: With the formats in use; ``None`` until quantisation starts.
        footprint: Of the quantised network; ``None`` until then.

    Example:
        >>> trainer = Trainer(callbacks=[InTrainingQuantization(plan)])  # doctest: +SKIP
    """

    def __init__(
        self,
        plan: QuantizationPlan | Mapping[str, Any],
        start_epoch: int = 0,
        freeze_epoch: int | None = None,
        forward: Forward | None = None,
    ) -> None:
        """Prepares for training.

        Args:
            plan: A plan, or the dictionary of one.
            start_epoch: First epoch (from 0) that computes with quantised values.
            freeze_epoch: First epoch that keeps the formats of the one before;
                ``None``: formats follow the network to the end.
            forward: How to run the module on a batch for calibration, as
                ``forward(module, batch)``; ``None`` runs its ``validation_step``.

        Raises:
            ValueError: An epoch that cannot be.
        """
        super().__init__()
        self.plan = plan if isinstance(plan, QuantizationPlan) else QuantizationPlan.from_dict(plan)
        self.start_epoch = _epoch("start_epoch", start_epoch)
        self.freeze_epoch = None if freeze_epoch is None else _epoch("freeze_epoch", freeze_epoch)
        self.forward = forward
        self.resolved_plan: ResolvedPlan | None = None
        self._must_attach = False

    @property
    def footprint(self) -> Footprint | None:
        """Bits of the quantised network."""
        if self.resolved_plan is None:
            return None
        return footprint_of(self.resolved_plan.inventory, self.resolved_plan)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks the plan against the module before anything is trained."""
        if not is_attached(pl_module):
            self.plan.resolve(pl_module)
        self._attach_restored(pl_module)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Starts to quantise, and follows the network, at the first batch of an epoch."""
        epoch = trainer.current_epoch
        follows = self.freeze_epoch is None or epoch < self.freeze_epoch
        if batch_idx == 0 and epoch >= self.start_epoch and (follows or not self._in_use):
            self._calibrate(pl_module, batch)
        reset_states(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validates a loaded checkpoint as it was trained."""
        self._attach_restored(pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tests a loaded checkpoint as it was trained."""
        self._attach_restored(pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Predicts with a loaded checkpoint as it was trained."""
        self._attach_restored(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says so where the training was too short to quantise anything."""
        if not self._in_use:
            log.warning(
                "InTrainingQuantization: start_epoch=%d was never reached (%d epochs were "
                "trained), so nothing is quantised",
                self.start_epoch,
                trainer.current_epoch,
            )
        reset_states(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The formats in use, as plain types."""
        resolved = self.resolved_plan
        return {"resolved_plan": None if resolved is None else resolved.to_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the formats of a checkpoint; they are attached before the next use."""
        data = state_dict["resolved_plan"]
        self.resolved_plan = None if data is None else ResolvedPlan.from_dict(data)
        self._must_attach = True

    @property
    def _in_use(self) -> bool:
        return self.resolved_plan is not None

    def _attach_restored(self, pl_module: LightningModule) -> None:
        if not self._must_attach:
            return
        detach(pl_module)
        if self.resolved_plan is not None:
            attach(pl_module, self.resolved_plan)
        self._must_attach = False

    def _calibrate(self, pl_module: LightningModule, batch: Any) -> None:
        detach(pl_module)
        copied = independent_copy(pl_module)
        copied._trainer = pl_module._trainer

        def run() -> None:
            forward_once(copied, batch, self.forward)

        with preserved_globals(), quiet_lightning():
            if self.resolved_plan is None:
                inventory = inspect(copied, run=run)
                for note in inventory.notes:
                    log.warning("InTrainingQuantization: %s", note)
            else:
                inventory = self.resolved_plan.inventory
            self.resolved_plan = calibrate(copied, resolve(self.plan, inventory), run)
        attach(pl_module, self.resolved_plan)


def _epoch(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"InTrainingQuantization: {name}={value!r}; write an epoch, 0 or more")
    return value
