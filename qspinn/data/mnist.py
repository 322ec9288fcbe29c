"""MNIST and Fashion-MNIST from IDX files in torchvision's folder layout."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from qspinn.data.checks import check
from qspinn.data.fingerprint import content_fingerprint
from qspinn.data.idx import IDXError, read_idx
from qspinn.data.image_data_module import ImageDataModule
from qspinn.data.tensor_dataset import ImageDataset


class MNIST(ImageDataModule):
    """MNIST: 60,000 training and 10,000 test images of handwritten digits, 28x28 grey levels.

    The files lie where torchvision puts them: ``root/MNIST/raw/train-images-idx3-ubyte`` and so on,
    plain or with ``.gz``. The test set is the official one. The validation set is the last
    ``val_size`` images of the official training set, for every seed; training uses the others. The
    default keeps 5,000 images for it, because quantisation settings, like any hyper-parameter,
    should be chosen on images that are neither trained on nor reported on. ``val_size=0`` trains on
    all 60,000 and validates nothing.

    Args:
        root: The folder that holds ``MNIST/raw``.
        download: Download missing files through torchvision. Existing files stay as they are.
        val_size: Images for validation.
        **loader_settings: ``batch_size``, ``eval_batch_size``, ``num_workers``, ``max_shift``; see
            :class:`ImageDataModule`.

    Raises:
        ValueError: ``val_size`` is negative (more than the training set holds: when it is read).
    """

    name = "mnist"
    num_classes = 10
    input_shape = (1, 28, 28)
    folder: ClassVar[str] = "MNIST"
    files: ClassVar[tuple[str, ...]] = (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    )

    def __init__(
        self,
        root: str | Path = "data",
        download: bool = False,
        val_size: int = 5000,
        **loader_settings: Any,
    ) -> None:
        super().__init__(**loader_settings)
        check(val_size >= 0, "val_size", val_size, "0 (no validation) or more")
        self.root = Path(root)
        self.download = download
        self.val_size = val_size

    @property
    def raw_folder(self) -> Path:
        """Where the files are looked for."""
        return self.root / self.folder / "raw"

    def prepare_data(self) -> None:
        """Downloads what is missing, if asked to; else says what is missing."""
        missing = self._missing_files()
        if missing and self.download:
            self._download(missing)
        self._check_files()

    def fingerprint(self) -> str:
        """Return a text that changes when the four files do."""
        self._check_files()
        return content_fingerprint([self._path(name) for name in self.files], self.raw_folder)

    def load_datasets(self) -> tuple[ImageDataset, ImageDataset, ImageDataset]:
        """Reads the four files and splits the training set."""
        self._check_files()
        images, labels = self._read(*self.files[:2])
        test_images, test_labels = self._read(*self.files[2:])
        train_size = len(images) - self.val_size
        if train_size < 1:
            raise ValueError(
                f"val_size={self.val_size} leaves no training image: {self.raw_folder} has "
                f"{len(images)}; write data.val_size={len(images) - 1} or less"
            )
        return (
            ImageDataset(images[:train_size], labels[:train_size]),
            ImageDataset(images[train_size:], labels[train_size:]),
            ImageDataset(test_images, test_labels),
        )

    def _path(self, name: str) -> Path:
        plain = self.raw_folder / name
        return plain if plain.is_file() else self.raw_folder / f"{name}.gz"

    def _missing_files(self) -> list[str]:
        return [name for name in self.files if not self._path(name).is_file()]

    def _check_files(self) -> None:
        missing = self._missing_files()
        if missing:
            raise FileNotFoundError(
                f"{self.name}: no {', '.join(missing)} in {self.raw_folder.resolve()}; write "
                f"data.root=FOLDER, where FOLDER/{self.folder}/raw holds the files (with or "
                "without .gz), or data.download=true to download them"
            )

    def _read(self, images_name: str, labels_name: str) -> tuple[Tensor, Tensor]:
        images_path, labels_path = self._path(images_name), self._path(labels_name)
        images, labels = read_idx(images_path), read_idx(labels_path)
        expected = (labels.size, *self.input_shape[1:])
        if images.dtype != np.uint8 or images.shape != expected:
            raise IDXError(
                f"{images_path}: {images.dtype} {images.shape}, expected uint8 {expected}, one "
                f"image per label in {labels_path}"
            )
        if labels.size == 0:
            raise IDXError(f"{images_path}: holds no image: download it again")
        if labels.dtype != np.uint8 or labels.ndim != 1 or labels.max(initial=0) >= 10:
            raise IDXError(f"{labels_path}: expected a list of labels 0 to 9 (uint8)")
        return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels.astype(np.int64))

    def _download(self, missing: list[str]) -> None:
        """Downloads into a folder of its own, then moves only what was missing into place."""
        from torchvision import datasets

        self.raw_folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.raw_folder, prefix=".download-") as folder:
            try:
                getattr(datasets, self.folder)(folder, download=True)
            except (OSError, RuntimeError) as error:
                raise RuntimeError(
                    f"{self.name}: the download failed ({error}). Copy {', '.join(missing)} into "
                    f"{self.raw_folder.resolve()} by hand, or write data=mnist_subset, which "
                    "needs no download"
                ) from error
            for name in missing:
                (Path(folder) / self.folder / "raw" / name).rename(self.raw_folder / name)


class FashionMNIST(MNIST):
    """Fashion-MNIST: pictures of clothes, in the files, sizes and classes of MNIST.

    The files lie in ``root/FashionMNIST/raw``. Everything else is as in :class:`MNIST`.
    """

    name = "fashion_mnist"
    folder: ClassVar[str] = "FashionMNIST"
