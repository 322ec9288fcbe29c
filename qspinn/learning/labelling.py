"""Labelled training images, kept to fit readouts after the training."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

PIXEL_LEVELS = 256.0
COMPRESSION = 1


class LabellingImages:
    """The first images that it is given, with their labels, up to a number.

    Images whose pixels are whole multiples of 1/256 below 1 are kept as bytes, others in float32;
    what comes out is what went in. Everything is kept in main memory.

    Args:
        limit: Images at most, 1 or more.

    Raises:
        ValueError: A limit below 1.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"labelling_images={limit}; write 1 or more")
        self.limit = limit
        self.clear()

    def __len__(self) -> int:
        return sum(len(labels) for labels in self._labels)

    def clear(self) -> None:
        """Forgets all images."""
        self._pixels: list[Tensor] = []
        self._labels: list[Tensor] = []

    def add(self, images: Tensor, labels: Tensor) -> None:
        """Keeps images ``[M, *]`` and labels ``[M]``, up to the limit."""
        room = self.limit - len(self)
        if room > 0:
            self._pixels.append(_compact(images[:room].detach()))
            self._labels.append(labels[:room].detach().to("cpu", torch.int64, copy=True))

    def batches(self, size: int) -> Iterator[Tensor]:
        """The images, float32 ``[size or fewer, *]``, in order."""
        for pixels in self._pixels:
            for part in pixels.split(size):
                yield _float(part)

    @property
    def labels(self) -> Tensor:
        """All labels, ``int64`` ``[M]``."""
        return torch.cat([torch.empty(0, dtype=torch.int64), *self._labels])

    def to_checkpoint(self) -> dict[str, Any]:
        """What :meth:`from_checkpoint` takes, compressed; plain types and tensors."""
        are_bytes = all(pixels.dtype == torch.uint8 for pixels in self._pixels)
        parts = self._pixels if are_bytes else [_float(pixels) for pixels in self._pixels]
        pixels = torch.cat(parts) if parts else torch.empty(0, dtype=torch.uint8)
        packed = zlib.compress(pixels.numpy().tobytes(), COMPRESSION)
        return {
            "pixels": torch.frombuffer(bytearray(packed), dtype=torch.uint8),
            "shape": list(pixels.shape),
            "are_bytes": pixels.dtype == torch.uint8,
            "labels": self.labels,
        }

    def from_checkpoint(self, saved: Mapping[str, Any]) -> None:
        """Takes over the images of :meth:`to_checkpoint`, up to its own limit."""
        self.clear()
        dtype = np.uint8 if saved["are_bytes"] else np.float32
        values = np.frombuffer(zlib.decompress(saved["pixels"].numpy().tobytes()), dtype).copy()
        if len(saved["labels"]):
            self._pixels = [torch.from_numpy(values).reshape(saved["shape"])[: self.limit]]
            self._labels = [saved["labels"][: self.limit].clone()]


def _compact(images: Tensor) -> Tensor:
    """A copy in main memory: bytes where that loses nothing, else float32."""
    images = images.to("cpu", torch.float32, copy=True)
    levels = images * PIXEL_LEVELS
    pixels = levels.to(torch.uint8)
    return pixels if torch.equal(pixels.to(torch.float32), levels) else images


def _float(pixels: Tensor) -> Tensor:
    return pixels.to(torch.float32) / PIXEL_LEVELS if pixels.dtype == torch.uint8 else pixels
