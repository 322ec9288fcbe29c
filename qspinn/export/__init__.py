"""The quantised network as integers: the device model, its file, engines that run it, exporters."""

from qspinn.export.building import device_model
from qspinn.export.coding import encode
from qspinn.export.engine import Answers, IntegerEngine
from qspinn.export.model import DeviceModel, NotExportableError, StoredTensor

__all__ = [
    "Answers",
    "DeviceModel",
    "IntegerEngine",
    "NotExportableError",
    "StoredTensor",
    "device_model",
    "encode",
]
