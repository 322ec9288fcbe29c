"""Side computations that leave a running trainer as it was."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden

from qspinn.callbacks.random_state import capture_random_states, restore_random_states
from qspinn.plan import reset_states
from qspinn.quantizers.class_swap import substituted

Forward = Callable[[LightningModule, Any], Any]


@contextmanager
def preserved_globals() -> Iterator[None]:
    """Puts random states and determinism flags back afterwards."""
    random_states = capture_random_states()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
    try:
        yield
    finally:
        restore_random_states(random_states)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keeps a second trainer from repeating the first one's announcements."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    children = [logging.getLogger("lightning.pytorch.utilities.rank_zero")]
    levels += [logger.level for logger in children]
    for logger in (*loggers, *children):
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Hints about dataloaders and the like: the user's own trainer gave them.
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        for logger, level in zip((*loggers, *children), levels, strict=True):
            logger.setLevel(level)


def independent_copy(module: LightningModule) -> LightningModule:
    """A deep copy without a trainer; SpikingJelly's states are reset in both."""
    reset_states(module)
    copied = copy.deepcopy(module)
    for child in copied.modules():
        if isinstance(child, LightningModule):
            # Lightning's cache of which metric is whose is by identity: the
            # originals' here.
            child._metric_attributes = None
    return copied


def forward_once(module: LightningModule, batch: Any, forward: Forward | None) -> None:
    """One forward pass on a batch, on a copy that logs nothing.

    Args:
        module: An independent copy; its metrics may change.
        batch: A batch as the trainer handed it out.
        forward: How to run it; ``None`` runs the first of ``validation_step``,
            ``test_step``, ``predict_step`` and ``training_step`` that the module has.
    """
    reset_states(module)
    if forward is not None:
        forward(module, batch)
        return
    step = getattr(module, step_name(module))
    with substituted(module, log=_log_nothing, log_dict=_log_nothing):
        step(batch, 0)


def step_name(module: LightningModule) -> str:
    """The step that shows how the module is run on a batch."""
    for name in ("validation_step", "test_step", "predict_step"):
        if is_overridden(name, module, parent=LightningModule):
            return name
    return "training_step"


def side_trainer(trainer: Trainer, **arguments: Any) -> Trainer:
    """A trainer on the same device that logs, saves and shows nothing."""
    device = trainer.strategy.root_device
    kind = {"cuda": "gpu"}.get(device.type, device.type)
    devices: Any = [device.index or 0] if kind == "gpu" else 1
    return Trainer(
        accelerator=kind,
        devices=devices,
        precision=trainer.precision,
        deterministic=torch.are_deterministic_algorithms_enabled(),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
        **arguments,
    )


def _log_nothing(*args: Any, **kwargs: Any) -> None:
    """Stands in for ``LightningModule.log``."""
