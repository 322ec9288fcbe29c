"""Samples held as bytes or counts, and loaders that fetch a whole batch with one indexing call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

PIXEL_STEP = 1.0 / 256.0
"""Value of one grey level, see :func:`to_unit_range`."""

Batch = tuple[Tensor, Tensor]


def to_unit_range(pixels: Tensor) -> Tensor:
    """Converts bytes k to ``k / 256`` in float32.

    Not ``k / 255``: a device holds the 8 bits themselves, which are the unsigned fixed-point format
    UQ0.8 (step 2^-8). ``k / 256`` lies exactly on that grid, so that 8-bit inputs cost no accuracy
    and need no conversion; ``k / 255`` does not. White is 255/256.

    Args:
        pixels: ``uint8`` tensor ``[*]``.

    Returns:
        ``float32`` tensor ``[*]`` in [0, 255/256].
    """
    return pixels.to(torch.float32).mul_(PIXEL_STEP)


class BatchDataset(Dataset[Batch]):
    """Samples with labels; a batch is one call of :meth:`fetch`, not one call per sample.

    ``DataLoader`` calls ``__getitems__`` with all indices of a batch where a dataset has it. The
    loader keeps its usual samplers, so that Lightning can replace them (distributed training) and
    the shuffled order is drawn from torch's global random state when an epoch begins.

    Args:
        labels: ``int64`` ``[M]``.

    Raises:
        ValueError: Labels of another type or shape.
    """

    def __init__(self, labels: Tensor) -> None:
        if labels.dtype != torch.int64 or labels.ndim != 1:
            raise ValueError(f"labels must be int64 [M], got {labels.dtype} {list(labels.shape)}")
        self.labels = labels

    def fetch(self, order: Tensor) -> Tensor:
        """The samples ``float32`` ``[B, *]`` of the indices ``order``, ``int64`` ``[B]``."""
        raise NotImplementedError(f"{type(self).__name__} must implement fetch")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        """One sample and its label ``[]``."""
        return self.fetch(torch.tensor([index]))[0], self.labels[index]

    def __getitems__(self, indices: Sequence[int]) -> list[Batch]:
        """The samples and labels of ``indices``, fetched together and split into samples again.

        So any collate function works, and splitting and stacking costs a few microseconds a sample.
        """
        order = torch.as_tensor(indices, dtype=torch.int64)
        samples = self.fetch(order)
        return list(zip(samples.unbind(), self.labels.index_select(0, order).unbind(), strict=True))


class ImageDataset(BatchDataset):
    """Images and labels as tensors; samples are images ``[C, H, W]`` in [0, 1).

    Args:
        images: ``uint8`` ``[M, C, H, W]``.
        labels: ``int64`` ``[M]``.

    Raises:
        ValueError: Other types or shapes, or as many labels as not images.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(
                f"images must be uint8 [M, C, H, W], got {images.dtype} {list(images.shape)}"
            )
        super().__init__(labels)
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images, but {len(labels)} labels")
        self.images = images

    def fetch(self, order: Tensor) -> Tensor:
        """Images ``[B, C, H, W]`` in [0, 1)."""
        return to_unit_range(self.images.index_select(0, order))


def batch_loader(
    dataset: BatchDataset, batch_size: int, shuffle: bool, num_workers: int = 0
) -> DataLoader[Batch]:
    """A ``DataLoader``; ``num_workers`` changes the speed, never the data.

    The last batch may be smaller: nothing is dropped. Workers start anew in every epoch: persistent
    ones draw fewer random numbers after their first epoch, so that a resumed training would differ
    from an uninterrupted one.
    """
    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle, num_workers=num_workers)
