"""The LightningDataModule that all image data sets here share."""

from __future__ import annotations

from typing import Any

import lightning
from torch.utils.data import DataLoader

from qspinn.data.augmentation import random_shift
from qspinn.data.checks import check
from qspinn.data.tensor_dataset import Batch, BatchDataset, batch_loader


class ImageDataModule(lightning.LightningDataModule):
    """Loaders over three :class:`ImageDataset`; a subclass says where these come from.

    Batches are ``(images, labels)``: float32 ``[N, C, H, W]`` in [0, 1) (bytes / 256, exactly on
    the grid of the fixed-point format UQ0.8), int64 ``[N]``. The training order is drawn from
    torch's global random state when an epoch begins, and so are the random shifts, batch by batch:
    both follow from ``seed_everything``, and are the same again when training resumes at an
    epoch's beginning with the random state of that moment.

    A subclass sets ``name``, ``num_classes`` and ``input_shape`` and implements
    :meth:`load_datasets`.

    Args:
        batch_size: Images per training batch.
        eval_batch_size: Images per batch in validation, test and prediction.
        num_workers: Loader processes. 0 is fastest: a batch is one indexing call in memory.
        max_shift: Training images are moved by up to so many pixels per axis at random (0: not).

    Raises:
        ValueError: A size below 1, a negative number of workers, or a shift that moves the whole
            image away.
    """

    name: str
    num_classes: int
    input_shape: tuple[int, int, int]

    train_dataset: BatchDataset
    val_dataset: BatchDataset
    test_dataset: BatchDataset

    def __init__(
        self,
        batch_size: int = 64,
        eval_batch_size: int = 500,
        num_workers: int = 0,
        max_shift: int = 0,
    ) -> None:
        super().__init__()
        for argument, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            fits = _is_whole(value) and value >= 1
            check(fits, argument, value, "a number of images, 1 or more")
        fits = _is_whole(num_workers) and num_workers >= 0
        check(fits, "num_workers", num_workers, "0 (no processes) or more")
        side = min(self.input_shape[1:])
        fits = _is_whole(max_shift) and 0 <= max_shift < side
        check(fits, "max_shift", max_shift, f"0 (no shifts) to {side - 1}")
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.max_shift = max_shift
        self._is_loaded = False

    def load_datasets(self) -> tuple[BatchDataset, BatchDataset, BatchDataset]:
        """Reads the training, validation and test sets; called once per process."""
        raise NotImplementedError(f"{type(self).__name__} must implement load_datasets")

    def setup(self, stage: str | None = None) -> None:
        """Reads the data into memory, the first time."""
        del stage
        if not self._is_loaded:
            self.train_dataset, self.val_dataset, self.test_dataset = self.load_datasets()
            self._is_loaded = True

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of the training set."""
        return batch_loader(self.train_dataset, self.batch_size, True, self.num_workers)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """The validation set in order; an empty list, which makes Lightning skip it, if empty."""
        return self._eval_loader(self.val_dataset) if len(self.val_dataset) else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test set in order."""
        return self._eval_loader(self.test_dataset)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """The test set in order."""
        return self._eval_loader(self.test_dataset)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Shifts training images, in the training process and on its device."""
        del dataloader_idx
        if self.max_shift and self.trainer is not None and self.trainer.training:
            images, labels = batch
            return random_shift(images, self.max_shift), labels
        return batch

    def _eval_loader(self, dataset: BatchDataset) -> DataLoader[Batch]:
        return batch_loader(dataset, self.eval_batch_size, False, self.num_workers)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
