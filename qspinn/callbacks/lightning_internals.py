"""Everything that is used of Lightning beyond its public interface."""

from __future__ import annotations

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader


def training_loader_of(trainer: Trainer) -> CombinedLoader | None:
    """The loader that the fit iterates over."""
    return trainer.fit_loop._combined_loader


def validation_loader_of(trainer: Trainer) -> CombinedLoader | None:
    """The loader that the validation of a fit iterates over, where it is set up."""
    return trainer.fit_loop.epoch_loop.val_loop._combined_loader


def mode_of(loader: CombinedLoader) -> Any:
    """How a combined loader goes through its parts."""
    return loader._mode


def transferred(module: LightningModule, batch: Any, device: torch.device) -> Any:
    """A batch on a device, after all hooks that a module has for that."""
    batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
    return module._apply_batch_transfer_handler(batch, device, 0)


def logged_steps(trainer: Trainer) -> int:
    """The batches after which an optimizer stepped: by these Lightning counts what it logs."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped
