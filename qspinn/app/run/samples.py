"""The numbers of samples that accuracies were measured on, for confidence intervals."""

from __future__ import annotations

from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.data import extract_batch_size
from torch import Tensor

from qspinn.records import RunRecord

_FIELDS = {TrainerFn.TESTING: "samples", TrainerFn.VALIDATING: "validation_samples"}
"""State of a trainer to the field of a record."""


class SampleCounts(Callback):
    """Counts the samples of a test and of a validation, of several loaders all together.

    Attributes:
        by_field: Name of the field of a record to the number of samples.
    """

    def __init__(self) -> None:
        self.by_field: dict[str, int] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start counting again."""
        if trainer.state.fn in _FIELDS:
            self.by_field[_FIELDS[trainer.state.fn]] = 0

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Count a batch, unless it is one of a fit's validations."""
        if trainer.state.fn in _FIELDS:
            self.by_field[_FIELDS[trainer.state.fn]] += _size(batch)

    on_validation_batch_end = on_test_batch_end  # type: ignore[assignment]


def samples_of(record: RunRecord) -> dict[str, int]:
    """Return the numbers of samples that a record knows, by the names of its fields."""
    found = {name: getattr(record, name) for name in _FIELDS.values()}
    return {name: count for name, count in found.items() if count is not None}


def _size(batch: Any) -> int:
    """The samples of a batch: the number of its labels, since inputs may begin with a time axis."""
    labels = batch[1] if isinstance(batch, (list, tuple)) and len(batch) == 2 else None
    if isinstance(labels, Tensor) and labels.ndim == 1:
        return len(labels)
    return int(extract_batch_size(batch))
