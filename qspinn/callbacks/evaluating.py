"""Quantises the module that a trainer validates, tests or predicts with, for that time only."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from qspinn.callbacks.formats import calibrated_and_repaired, log_summary
from qspinn.callbacks.isolation import (
    check_runnable,
    check_single_device,
    preserved_globals,
    quiet_lightning,
)
from qspinn.callbacks.quantization import Quantization
from qspinn.callbacks.trainer_data import converted_batches, training_data
from qspinn.plan import ResolvedPlan, declares_tensors, needs_forward_pass
from qspinn.quantizers import detach, is_attached
from qspinn.quantizers.attach import attach_quietly
from qspinn.quantizers.repair import Repaired

log = logging.getLogger(__name__)


class QuantizesEvaluations(Quantization):
    """Attaches quantizers when an evaluation outside of a fit starts, and detaches them at its end.

    The formats are those of the checkpoint that is evaluated, if it was saved with
    formats of the same plan; else they are chosen on ``calibration_data``, or on the
    training data of the datamodule or the module.
    """

    calibration_batches: int
    calibration_data: Iterable[Any] | None
    # What is repaired after the formats are chosen.
    repairs: tuple[str, ...] = ()
    # What belongs to the formats in use.
    _repaired: Mapping[str, Tensor] = MappingProxyType({})
    # Formats of the checkpoint that is being read, and what was repaired.
    _restored: Repaired | None = None
    # The module of the last fit; it is the 32-bit network that a copy was made of.
    _fitted: weakref.ref[LightningModule] | None = None
    # The module that has quantizers for this evaluation, and its values where attaching has changed
    # them.
    _quantized_for_now: tuple[LightningModule, dict[str, Tensor] | None] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forgets the formats of another checkpoint."""
        self._restored = None

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds the plan, the formats that were chosen, as plain types, and what was repaired.

        Not by ``state_dict``: a trainer refuses two callbacks with one key that have
        that, before this callback can report what is wrong with them.
        """
        resolved = self.resolved_plan
        checkpoint.setdefault("callbacks", {})[self.state_key] = {
            "plan": self.plan.to_dict(),
            "resolved_plan": None if resolved is None else resolved.to_dict(),
            "repairs": list(self.repairs),
            "repaired": {} if resolved is None else dict(self._repaired),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the formats of a checkpoint, if they belong to the same plan and repairs."""
        data = state_dict["resolved_plan"]
        # Checkpoints of earlier versions have nothing repaired.
        same = tuple(state_dict.get("repairs", ())) == self.repairs
        if data is not None and same and state_dict["plan"] == self.plan.to_dict():
            values = state_dict.get("repaired", {})
            self._restored = Repaired(ResolvedPlan.from_dict(data), values)

    def on_validation_end(self, *args: Any, **kwargs: Any) -> None:
        """Restores the float network."""
        if self._quantized_for_now is None:
            return
        module, values = self._quantized_for_now
        self._quantized_for_now = None
        detach(module)
        if values is not None:
            with torch.inference_mode(False):
                module.load_state_dict(values)

    on_test_end = on_predict_end = on_exception = on_validation_end

    def check_alone(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses other callbacks that quantise the same module."""

    def check_one(self, trainer: Trainer) -> None:
        """Refuses two callbacks that would quantise the same module."""

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Quantises, outside of a fit."""
        if trainer.state.fn == TrainerFn.FITTING:
            return
        owner, name = type(self).__name__, type(pl_module).__name__
        if is_attached(pl_module):
            _say("%s: this evaluates %s with the quantizers that it has", owner, name)
            return
        fitted = None if self._fitted is None else self._fitted()
        if fitted is pl_module and trainer.ckpt_path is None:
            _say(
                "%s: this evaluates the 32-bit %s that was trained; the quantised network is "
                "callback.quantized_module",
                owner,
                name,
            )
            return
        self.check_one(trainer)
        self.check_alone(trainer, pl_module)
        check_single_device(trainer, owner)
        check_runnable(pl_module, self.forward, owner)
        # Lightning evaluates in inference mode, in which no tensor that outlives it may be made.
        with torch.inference_mode(False), torch.no_grad(), preserved_globals(), quiet_lightning():
            found, source = self._formats(trainer, pl_module)
            if found is None:
                _say("%s: this evaluates the 32-bit %s: %s", owner, name, source)
                return
            values = _values_to_put_back(pl_module)
            attach_quietly(pl_module, found.plan, self.compile_steps, found.values)
        self._quantized_for_now = (pl_module, values)
        self._note_formats(found)
        log_summary(found.plan, owner)
        _say("%s: this evaluates the quantised %s, with formats %s", owner, name, source)

    on_test_start = on_predict_start = on_validation_start

    def _note_formats(self, found: Repaired) -> None:
        self.resolved_plan, self._repaired = found.plan, found.values

    def _formats(self, trainer: Trainer, pl_module: LightningModule) -> tuple[Repaired | None, str]:
        """The formats and where they come from, or ``None`` and why there are none."""
        if self._restored is not None:
            return self._restored, f"from {trainer.ckpt_path}"
        batches, source = self._batches(trainer, pl_module)
        if not batches and needs_forward_pass(pl_module):
            if trainer.ckpt_path is not None:
                raise ValueError(f"{type(self).__name__}: {source}")
            return None, source
        of = (self.plan, pl_module, trainer, batches, self.forward, self.repairs)
        return calibrated_and_repaired(*of), source

    def _batches(self, trainer: Trainer, pl_module: LightningModule) -> tuple[list[Any], str]:
        count = self.calibration_batches
        if not needs_forward_pass(pl_module):
            return [], "chosen on its parameters"
        if self.calibration_data is not None:
            source: Iterable[Any] | None = self.calibration_data
            shown = "chosen on calibration_data"
        else:
            loader = training_data(trainer, pl_module)
            source = None if loader is None else (batch for batch, _, _ in loader)
            shown = "chosen on the training data"
        found = [] if source is None else converted_batches(trainer, pl_module, source, count)
        if not found:
            shown = (
                "there are no formats in a checkpoint, and no training data to choose them on "
                "(train_dataloader of the datamodule or the module); write "
                f"{type(self).__name__}(plan, calibration_data=...), with batches as the training "
                "has them, or evaluate a checkpoint that was saved after the fit "
                "(trainer.save_checkpoint)"
            )
        return found, shown


def _values_to_put_back(module: LightningModule) -> dict[str, Tensor] | None:
    """Values of a module that rounds what it holds, and so would stay rounded."""
    if not any(declares_tensors(child) for child in module.modules()):
        return None
    return {name: value.clone() for name, value in module.state_dict().items()}


def _say(message: str, *arguments: object) -> None:
    # As a warning, so that it is shown without any logging configured.
    log.warning(message, *arguments)
