"""The data that a trainer has, taken from it without leaving a trace."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader

from qspinn.callbacks.packages import counterpart


def training_loader(trainer: Trainer) -> CombinedLoader | None:
    """A fresh loader over the trainer's training data, combined as the trainer combines it."""
    return _fresh(trainer.fit_loop._combined_loader)


def validation_loader(trainer: Trainer) -> CombinedLoader | None:
    """The same of its validation data.

    Where a resumed fit had nothing left to train, Lightning has not set this data up.
    """
    loop = trainer.fit_loop.epoch_loop.val_loop
    if trainer.enable_validation:
        loop.setup_data()  # does nothing where it is set up
    return _fresh(loop._combined_loader)


def first_batches(
    trainer: Trainer, module: LightningModule, loader: CombinedLoader, count: int
) -> list[Any]:
    """The first batches of ``loader``, with all the hooks and conversions of the training.

    Args:
        trainer: The trainer.
        module: The trainer's own module, whose batch hooks are called.
        loader: From :func:`training_loader`.
        count: At most so many, and no more than the trainer trains on.
    """
    limit = trainer.num_training_batches
    count = count if limit == float("inf") else min(count, int(limit))
    device = trainer.strategy.root_device
    batches = []
    for batch, _, _ in itertools.islice(loader, count):
        converted = trainer.precision_plugin.convert_input(batch)
        converted = module._on_before_batch_transfer(converted, dataloader_idx=0)
        batches.append(module._apply_batch_transfer_handler(converted, device, 0))
    return batches


def with_validation_data(
    datamodule: LightningDataModule, loader: CombinedLoader
) -> LightningDataModule:
    """A copy of ``datamodule`` that hands out ``loader`` and sets nothing up anew.

    Setting up again could split the data differently. The copy keeps the
    datamodule's hooks for batches.
    """
    copied = copy.copy(datamodule)
    copied.__dict__.update(
        prepare_data=lambda: None,
        setup=lambda stage: None,
        teardown=lambda stage: None,
        val_dataloader=lambda: loader,
    )
    return copied


@contextmanager
def preserved_generators(*loaders: CombinedLoader | None) -> Iterator[None]:
    """Puts the random generators back that dataloaders or their samplers bring along."""
    generators = {
        id(generator): generator
        for loader in loaders
        if loader is not None
        for one in loader.flattened
        for generator in _generators_of(one)
    }
    states = {key: generator.get_state() for key, generator in generators.items()}
    try:
        yield
    finally:
        for key, generator in generators.items():
            generator.set_state(states[key])


def _fresh(loader: CombinedLoader | None) -> CombinedLoader | None:
    if loader is None:
        return None
    made: type[CombinedLoader] = counterpart(loader, "utilities.CombinedLoader")
    return made(loader.iterables, loader._mode)


def _generators_of(loader: Any) -> Iterator[torch.Generator]:
    batch_sampler = getattr(loader, "batch_sampler", None)
    owners = (loader, getattr(loader, "sampler", None), batch_sampler)
    for owner in (*owners, getattr(batch_sampler, "sampler", None)):
        generator = getattr(owner, "generator", None)
        if isinstance(generator, torch.Generator):
            yield generator
