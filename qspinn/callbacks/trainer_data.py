"""The data of a trainer, read without side effects."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader, IterableDataset, Subset

from qspinn.callbacks.isolation import own_batch
from qspinn.callbacks.lightning_internals import (
    mode_of,
    training_loader_of,
    transferred,
    validation_loader_of,
)
from qspinn.callbacks.packages import counterpart, overrides


def training_loader(trainer: Trainer) -> CombinedLoader | None:
    """A fresh loader over the trainer's training data, combined as the trainer combines it."""
    return _fresh(training_loader_of(trainer))


def validation_loader(trainer: Trainer) -> CombinedLoader | None:
    """The same of its validation data.

    Where a resumed fit had nothing left to train, Lightning has not set this data up.
    """
    if trainer.enable_validation:
        trainer.fit_loop.epoch_loop.val_loop.setup_data()  # does nothing where it is set up
    return _fresh(validation_loader_of(trainer))


def evaluation_loaders(trainer: Trainer) -> tuple[CombinedLoader | None, CombinedLoader | None]:
    """Fresh loaders over what a network is looked at on: validation data, else training data."""
    return validation_loader(trainer), training_loader(trainer)


def repeatable(loaders: Iterable[CombinedLoader | None]) -> Iterator[CombinedLoader]:
    """Those of some loaders that can surely be iterated again, from the beginning."""
    return (loader for loader in loaders if loader is not None and is_repeatable(loader))


def drawn(
    trainer: Trainer, loader: CombinedLoader, count: int, seed: int = 0
) -> CombinedLoader | None:
    """A loader of random samples of another one, always the same.

    Not the first ones, since data may be sorted by class.

    Args:
        trainer: The trainer.
        loader: From :func:`validation_loader`.
        count: Samples, 1 or more.
        seed: Of the draw; no other random number is drawn.

    Returns:
        ``None`` if there are no more samples than that, or they cannot be drawn: a stream, or
        several loaders.
    """
    one = loader.flattened[0] if len(loader.flattened) == 1 else None
    if not isinstance(one, DataLoader) or isinstance(one.dataset, IterableDataset):
        return None
    size = len(one.dataset)  # type: ignore[arg-type]
    if not 0 < count < size or not _is_repeatable(one):
        return None
    indices = torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:count]
    few = DataLoader(
        Subset(one.dataset, sorted(indices.tolist())),
        batch_size=one.batch_size or count,
        collate_fn=one.collate_fn,
    )
    combined: type[CombinedLoader] = counterpart(trainer, "utilities.CombinedLoader")
    return combined(few, "sequential")


def first_batches(
    trainer: Trainer, module: LightningModule, loader: CombinedLoader, count: int
) -> list[Any]:
    """The first batches of ``loader``, with all the hooks and conversions of the training.

    There are at most ``count``, and no more than the trainer trains on. The module is the trainer's
    own, since its batch hooks are called.
    """
    limit = trainer.num_training_batches
    count = count if limit == float("inf") else min(count, int(limit))
    batches = (batch for batch, _, _ in loader)
    return converted_batches(trainer, module, batches, count)


def converted_batches(
    trainer: Trainer, module: LightningModule, batches: Iterable[Any], count: int
) -> list[Any]:
    """The first ``count`` of ``batches``, as the trainer would pass them to a step."""
    device = trainer.strategy.root_device
    found = []
    for batch in itertools.islice(batches, count):
        converted = trainer.precision_plugin.convert_input(batch)
        found.append(transferred(module, converted, device))
    return found


def training_data(trainer: Trainer, module: LightningModule) -> CombinedLoader | None:
    """The training data of the datamodule, or else of the module, outside of a fit.

    Raises:
        RuntimeError: Its hooks fail; the error suggests an alternative.
    """
    owner: Any = getattr(trainer, "datamodule", None)
    has_data = owner is not None and overrides("train_dataloader", owner)
    if not has_data and not overrides("train_dataloader", module):
        return None
    # A datamodule that is set up for testing may not be set up for this: a copy is.
    owner = copy.copy(owner) if has_data else module
    try:
        if has_data:
            owner.setup("fit")
        loaders = owner.train_dataloader()
    except Exception as error:
        raise RuntimeError(
            f"the training data of {type(owner).__name__}, on which formats are chosen, cannot be "
            f"had: {type(error).__name__}: {error}; give PostTrainingQuantization("
            "calibration_data=...) some batches instead"
        ) from error
    combined: type[CombinedLoader] = counterpart(trainer, "utilities.CombinedLoader")
    return loaders if isinstance(loaders, combined) else combined(loaders, "max_size_cycle")


def is_repeatable(loader: CombinedLoader) -> bool:
    """Whether all of ``loader`` can surely be iterated again, from the beginning."""
    return all(_is_repeatable(one) for one in loader.flattened)


def once_only(loader: CombinedLoader) -> str | None:
    """The type of a part of ``loader`` that surely cannot be iterated again; ``None``: no such.

    A dataset that continues a stream in each ``__iter__`` cannot be distinguished from
    one that begins again.
    """
    for one in loader.flattened:
        if isinstance(one, DataLoader) and (_is_repeatable(one) or one.num_workers):
            continue  # a worker process begins with the dataset as it was
        source = one.dataset if isinstance(one, DataLoader) else one
        try:
            first, second = iter(source), iter(source)
        except Exception:
            continue
        if first is second:
            return type(source).__name__
    return None


def kept_on_cpu(batch: Any) -> Any:
    """A copy of a batch in main memory."""
    return move_data_to_device(own_batch(batch), torch.device("cpu"))


def back_on_device(trainer: Trainer, batches: Iterable[Any]) -> list[Any]:
    """Batches from :func:`kept_on_cpu`, where the trainer computes."""
    device = trainer.strategy.root_device
    return [move_data_to_device(batch, device) for batch in batches]


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
    """Restores the random generators of dataloaders and their samplers afterwards."""
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
    return made(loader.iterables, mode_of(loader))


def _is_repeatable(loader: Any) -> bool:
    if isinstance(loader, DataLoader):
        return not isinstance(loader.dataset, IterableDataset)
    return isinstance(loader, Sequence)


def _generators_of(loader: Any) -> Iterator[torch.Generator]:
    batch_sampler = getattr(loader, "batch_sampler", None)
    owners = (loader, getattr(loader, "sampler", None), batch_sampler)
    for owner in (*owners, getattr(batch_sampler, "sampler", None)):
        generator = getattr(owner, "generator", None)
        if isinstance(generator, torch.Generator):
            yield generator
