"""A few samples of the data, as a network takes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from lightning import LightningDataModule, LightningModule
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from qspinn.app.errors import ConfigurationError


def as_the_module(inputs: Tensor, module: LightningModule) -> Tensor:
    """Return inputs on the device of a module, and in the precision that a trainer has given it."""
    inputs = inputs.to(module.device)
    return inputs.type(module.dtype) if inputs.is_floating_point() else inputs


def example_input(data: LightningDataModule) -> Tensor:
    """Return an input ``[1, ...]`` as the network takes it, to analyse the network with.

    The first validation sample, else the first training sample. Loaders are not iterated over and
    the random generators are left as they are. Only where neither data set can be indexed, such as
    a stream, it is the first test sample.

    Raises:
        ConfigurationError: There are no data.
    """
    samples = _held_out(data, 1)
    return first_test_samples(data, 1) if samples is None else samples


def held_out_samples(data: LightningDataModule, count: int) -> Tensor:
    """Return inputs ``[N, ...]`` from all over the validation data, else the training data.

    Args:
        data: Read, and set up to fit.
        count: At most so many.

    Raises:
        ValueError: Neither data set can be indexed.
    """
    samples = _held_out(data, count)
    if samples is None:
        raise ValueError(
            f"{type(data).__name__} has neither validation nor training data with numbered samples"
        )
    return samples


def held_out_sample(data: LightningDataModule, number: int) -> Tensor:
    """Return an input ``[1, ...]`` of the validation data, else the training data.

    Args:
        data: Read, and set up to fit.
        number: Of the sample, from 0.

    Raises:
        ValueError: There is no such sample.
    """
    with isolate_rng():
        loader = next(_indexed(data), None)
        size = 0 if loader is None else len(loader.dataset)  # type: ignore[arg-type]
        if loader is None or not 0 <= number < size:
            raise ValueError(
                f"sample={number}: {type(data).__name__} has {size} numbered samples that are held "
                f"out; write a whole number from 0 to {size - 1}"
            )
        sample: Tensor = loader.collate_fn([loader.dataset[number]])[0][:1]
        return sample


def _held_out(data: LightningDataModule, count: int) -> Tensor | None:
    with isolate_rng():
        for loader in _indexed(data):
            with suppress(LookupError):  # of samples that are not numbered
                size = len(loader.dataset)  # type: ignore[arg-type]
                count = min(count, size)
                chosen = [loader.dataset[i * size // count] for i in range(count)]
                samples: Tensor = loader.collate_fn(chosen)[0][:count]
                return samples
    return None


def _indexed(data: LightningDataModule) -> Iterator[DataLoader[Any]]:
    """Loaders of validation and training data whose samples can be taken one by one."""
    for loader in (_first(data.val_dataloader()), _first(data.train_dataloader())):
        if isinstance(loader, DataLoader) and _has_samples(loader):
            yield loader


def first_test_batch(data: LightningDataModule) -> Any:
    """Return the first test batch, of the first loader if there are several.

    No random number is drawn.

    Raises:
        ConfigurationError: There is none.
    """
    with isolate_rng():
        data.setup("test")
        batch = next(iter(_first(data.test_dataloader())), None)
    if batch is None:
        raise ConfigurationError(f"data: {type(data).__name__} has no test data")
    return batch


def first_test_samples(data: LightningDataModule, count: int) -> Tensor:
    """Return the first test inputs ``[count, ...]`` as the network takes them."""
    samples: Tensor = first_test_batch(data)[0][:count]
    return samples


def _first(loaders: Any) -> Any:
    return loaders[0] if isinstance(loaders, (list, tuple)) and loaders else loaders


def _has_samples(loader: DataLoader[Any]) -> bool:
    """Whether one sample can be taken and made a batch of."""
    if isinstance(loader.dataset, IterableDataset) or loader.batch_size is None:
        return False
    return hasattr(loader.dataset, "__len__") and len(loader.dataset) > 0
