"""Parsers and LightningDataModules."""

from qspinn.data.aedat import parse_aedat, read_aedat, write_aedat
from qspinn.data.aedat_packets import AEDATError
from qspinn.data.atis import ATISError, parse_atis, read_atis
from qspinn.data.dvs_gesture import DVSGesture
from qspinn.data.event_data_module import EventDataModule
from qspinn.data.events import Events, downsample, integrate
from qspinn.data.gesture_files import GestureFilesError
from qspinn.data.gesture_labels import GestureLabelError
from qspinn.data.idx import IDXError, parse_idx, read_idx
from qspinn.data.image_data_module import ImageDataModule
from qspinn.data.mnist import MNIST, FashionMNIST
from qspinn.data.mnist_subset import MNISTSubset
from qspinn.data.nmnist import NMNIST
from qspinn.data.tensor_dataset import ImageDataset, to_unit_range

__all__ = [
    "MNIST",
    "NMNIST",
    "AEDATError",
    "ATISError",
    "DVSGesture",
    "EventDataModule",
    "Events",
    "FashionMNIST",
    "GestureFilesError",
    "GestureLabelError",
    "IDXError",
    "ImageDataModule",
    "ImageDataset",
    "MNISTSubset",
    "downsample",
    "integrate",
    "parse_aedat",
    "parse_atis",
    "parse_idx",
    "read_aedat",
    "read_atis",
    "read_idx",
    "to_unit_range",
    "write_aedat",
]
