"""Parsers and LightningDataModules."""

from qspinn.data.idx import IDXError, parse_idx, read_idx
from qspinn.data.image_data_module import ImageDataModule
from qspinn.data.mnist import MNIST, FashionMNIST
from qspinn.data.mnist_subset import MNISTSubset
from qspinn.data.tensor_dataset import ImageDataset, to_unit_range

__all__ = [
    "MNIST",
    "FashionMNIST",
    "IDXError",
    "ImageDataModule",
    "ImageDataset",
    "MNISTSubset",
    "parse_idx",
    "read_idx",
    "to_unit_range",
]
