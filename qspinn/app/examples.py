"""A few samples of the data, as a network takes them."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from qspinn.app.errors import ConfigurationError

__all__ = ["as_the_module", "first_test_batch", "first_test_samples"]


def as_the_module(inputs: Tensor, module: lightning.LightningModule) -> Tensor:
    """Return inputs on the device of a module, and as exact as a trainer has made it."""
    inputs = inputs.to(module.device)
    return inputs.type(module.dtype) if inputs.is_floating_point() else inputs


def first_test_batch(data: lightning.LightningDataModule) -> Any:
    """Return the first test batch, of the first loader if there are several.

    No random number is drawn.

    Raises:
        ConfigurationError: There is none.
    """
    with isolate_rng():
        data.setup("test")
        loaders = data.test_dataloader()
        first = loaders[0] if isinstance(loaders, (list, tuple)) and loaders else loaders
        batch = next(iter(first), None)
    if batch is None:
        raise ConfigurationError(f"data: {type(data).__name__} has no test data")
    return batch


def first_test_samples(data: lightning.LightningDataModule, count: int) -> Tensor:
    """Return the first test inputs ``[count, ...]`` as the network takes them."""
    samples: Tensor = first_test_batch(data)[0][:count]
    return samples
