"""How the operations of a device model are checked."""

from __future__ import annotations

from typing import Any

from qspinn.export.errors import FindingError
from qspinn.export.model import DeviceModel, StoredTensor
from qspinn.fixed_point import OVERFLOWS, ROUNDINGS

__all__ = ["check_rounding", "require", "tensor_of"]


def require(holds: bool, what: str) -> None:
    """Raises `FindingError` where something does not hold."""
    if not holds:
        raise FindingError(what)


def check_rounding(what: Any) -> None:
    """That the rounding and the overflow of an operation are known."""
    require(what.rounding in ROUNDINGS, f"the rounding {what.rounding!r}")
    require(what.overflow in OVERFLOWS, f"the overflow {what.overflow!r}")


def tensor_of(model: DeviceModel, name: str) -> StoredTensor:
    """A tensor that an operation names."""
    require(name in model.tensors, f"the tensor {name!r} is missing")
    return model.tensors[name]
