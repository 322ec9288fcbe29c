"""The quantised network as integers: the device model, its file, engines that run it, exporters."""

from qspinn.export.building import device_model
from qspinn.export.coding import encode
from qspinn.export.difference import Difference, first_difference
from qspinn.export.engine import Answers, IntegerEngine
from qspinn.export.model import DeviceModel, NotExportableError, StoredTensor
from qspinn.export.report import DeviceReport, device_report
from qspinn.export.saving import load_model, save_model
from qspinn.export.verification import Verification, verify

__all__ = [
    "Answers",
    "DeviceModel",
    "DeviceReport",
    "Difference",
    "IntegerEngine",
    "NotExportableError",
    "StoredTensor",
    "Verification",
    "device_model",
    "device_report",
    "encode",
    "first_difference",
    "load_model",
    "save_model",
    "verify",
]
