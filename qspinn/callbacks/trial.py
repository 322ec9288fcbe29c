"""Tries on copies, with the first batch, what would otherwise fail later."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from qspinn.callbacks.formats import calibrated, calibrated_and_repaired
from qspinn.callbacks.isolation import (
    LEAVE_IN_FLOAT,
    Forward,
    copy_for,
    forward_once,
    own_batch,
    silenced,
    step_name,
)
from qspinn.plan import QuantizationPlan, needs_forward_pass, reset_states
from qspinn.plan.neurons import evaluation_mode
from qspinn.quantizers import is_attached
from qspinn.quantizers.attach import attach_quietly
from qspinn.quantizers.repair import Repaired


def tried(
    plan: QuantizationPlan,
    module: LightningModule,
    trainer: Trainer,
    batch: Any,
    forward: Forward | None,
    compile_steps: bool,
    learning: bool = False,
    repairs: Sequence[str] = (),
) -> LightningModule:
    """A quantised copy of ``module`` that has run on ``batch``; nothing else is changed.

    Args:
        plan: What is to be quantised.
        module: The trainer's module. If it has quantizers attached, it is tried as it is.
        trainer: Its trainer.
        batch: As the trainer hands it out.
        forward: How to run the module on it; ``None``: its own step.
        compile_steps: See :func:`qspinn.quantizers.attach`.
        learning: Whether the module will learn in these formats.
        repairs: What will be repaired, of one that has learned.

    Raises:
        TypeError: A module that cannot be copied.
        ValueError: A plan that does not fit the module.
        RuntimeError: The module's code fails on this batch, in float or quantised.
    """
    runs = forward is not None or step_name(module) != "training_step" or needs_forward_pass(module)
    if not is_attached(module):
        if runs:
            _run(copy_for(trainer, module), trainer, batch, forward)
        if learning:
            found = Repaired(calibrated(plan, module, trainer, [batch], forward, learning))
        else:
            found = calibrated_and_repaired(plan, module, trainer, [batch], forward, repairs)
    copied = copy_for(trainer, module)
    if not is_attached(copied):
        attach_quietly(copied, found.plan, compile_steps, found.values)
    if runs:
        _run(copied, trainer, batch, forward)
    reset_states(copied)
    return copied


def _run(copied: LightningModule, trainer: Trainer, batch: Any, forward: Forward | None) -> None:
    autocast = trainer.precision_plugin.forward_context()
    with torch.inference_mode(False), evaluation_mode(copied), autocast:
        forward_once(copied, batch, forward)


def try_to_learn(
    quantized: LightningModule, module: LightningModule, trainer: Trainer, batch: Any
) -> None:
    """Does one training step, with its gradients, on a quantised copy from :func:`tried`.

    If a float copy cannot do that step by itself either (it needs what only the trainer
    prepares), nothing is raised. The quantised copy may be used up.

    Raises:
        RuntimeError: The step fails with quantizers attached only.
    """
    parameters = inspect.signature(module.training_step).parameters
    if not module.automatic_optimization or "dataloader_iter" in parameters:
        return
    if not needs_forward_pass(module):
        return
    try:
        _learn(copy_for(trainer, module), trainer, batch)
    except Exception:
        return
    try:
        _learn(quantized, trainer, batch)
    except Exception as error:
        raise RuntimeError(
            f"{type(module).__name__}.training_step cannot learn with quantised layers: "
            f"{type(error).__name__}: {error}. {LEAVE_IN_FLOAT}"
        ) from error


def _learn(copied: LightningModule, trainer: Trainer, batch: Any) -> None:
    reset_states(copied)
    copied.train()
    arguments = (batch, 0)[: len(inspect.signature(copied.training_step).parameters)]
    with silenced(copied), torch.inference_mode(False), torch.enable_grad():
        with trainer.precision_plugin.forward_context():
            output: Any = copied.training_step(own_batch(batch), *arguments[1:])
        loss = output.get("loss") if isinstance(output, dict) else output
        if isinstance(loss, Tensor) and loss.requires_grad:
            loss.sum().backward()
