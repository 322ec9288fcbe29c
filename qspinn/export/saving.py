"""A device model as a file, and back."""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from qspinn.export.checking import check_model
from qspinn.export.container import (
    ContainerSizes,
    DamagedModelError,
    PackedTensor,
    read_container,
    write_container,
)
from qspinn.export.errors import FindingError
from qspinn.export.learning import DeviceLearning
from qspinn.export.lowering import program_of
from qspinn.export.model import KINDS, DeviceModel, DeviceOperation, Output, StoredTensor
from qspinn.fixed_point import FixedPointFormat, parse_format

__all__ = ["load_model", "save_model"]

_TENSOR, _TABLE = "tensor:", "table:"
_LEFT_OUT = {"learning": DeviceLearning, "learning_refused": str}
"""Members of the header that are left out where the model has none -> their type."""
_NAMES = {kind: name for name, kind in KINDS.items()}


def save_model(model: DeviceModel, path: str | os.PathLike[str]) -> ContainerSizes:
    """Writes a device model, all of it or nothing.

    Args:
        model: The model.
        path: The file, ``model.qspinn`` as a rule; one that is there is replaced.

    Returns:
        The sizes of its parts; the payload holds the tables of the wiring as well.

    Raises:
        OSError: The file cannot be written.
    """
    check_model(model)
    header = {
        "name": model.name,
        "classes": list(model.classes),
        "origin": dict(model.origin),
        "steps": model.steps,
        "frame": model.frame,
        "frame_stride": model.frame_stride,
        "operations": [_written(one) for one in model.operations],
        "output": _written(model.output),
        "formats": {name: str(tensor.format) for name, tensor in model.tensors.items()},
    }
    if model.learning is not None:
        header["learning"] = _written(model.learning)
    if model.learning_refused is not None:
        header["learning_refused"] = model.learning_refused
    tensors = {f"{_TENSOR}{name}": tensor.packed for name, tensor in model.tensors.items()}
    tensors |= {f"{_TABLE}{name}": table for name, table in model.tables.items()}
    return write_container(path, header, tensors)


def load_model(path: str | os.PathLike[str]) -> DeviceModel:
    """Reads a device model that :func:`save_model` wrote.

    Everything is checked before anything is computed with it; nothing in the file is run.

    Raises:
        DamagedModelError: It is no model, it is damaged, or another version wrote it.
        OSError: The file cannot be read.
    """
    header, tensors = read_container(path)
    try:
        model = _model(header, tensors)
        check_model(model)
        program_of(model)  # no sum needs more bits than there are
    except ValueError as error:
        raise DamagedModelError(f"{os.fspath(path)}: {error}") from error
    return model


def _model(header: Mapping[str, Any], tensors: Mapping[str, PackedTensor]) -> DeviceModel:
    fields = {field.name for field in dataclasses.fields(DeviceModel)}
    wanted = fields - {"tensors", "tables", *_LEFT_OUT} | {"formats"}
    _check_keys(header, wanted | ({*_LEFT_OUT} & set(header)), "the header")
    formats = _read(dict[str, str], header["formats"], "formats")
    stored, tables = {}, {}
    for name, packed in tensors.items():
        if name.startswith(_TENSOR):
            stored[name.removeprefix(_TENSOR)] = packed
        elif name.startswith(_TABLE):
            tables[name.removeprefix(_TABLE)] = packed
        else:
            raise FindingError(f"holds the tensor {name!r}, which is neither a tensor nor a table")
    if set(stored) != set(formats):
        raise FindingError("the formats are those of other tensors than the file holds")
    operations = _read(list[dict[str, Any]], header["operations"], "operations")
    return DeviceModel(
        tuple(_operation(one, f"operation {n}") for n, one in enumerate(operations)),
        _read(Output, header["output"], "output"),
        {name: StoredTensor(one, parse_format(formats[name])) for name, one in stored.items()},
        tables,
        _read(str | None, header["frame"], "frame"),
        _read(int, header["frame_stride"], "frame_stride"),
        _read(int, header["steps"], "steps"),
        _read(str, header["name"], "name"),
        _read(tuple[str, ...], header["classes"], "classes"),
        _read(dict[str, str], header["origin"], "origin"),
        **{key: _read(kind, header[key], key) for key, kind in _LEFT_OUT.items() if key in header},
    )


def _operation(value: dict[str, Any], place: str) -> DeviceOperation:
    hints = typing.get_type_hints(DeviceOperation)
    _check_keys(value, set(hints), place)
    what = dict(_expected(dict, value["what"], place))
    name = _expected(str, what.pop("type", ""), place)
    if name not in KINDS:
        raise FindingError(f"{place}: {name!r:.80} is no operation; there are {', '.join(KINDS)}")
    rest = {key: _read(hints[key], one, place) for key, one in value.items() if key != "what"}
    return DeviceOperation(what=_read(KINDS[name], what, place), **rest)


def _written(value: Any) -> Any:
    """A value in JSON."""
    if isinstance(value, FixedPointFormat | Fraction):
        return str(value)
    if dataclasses.is_dataclass(value):
        fields = {one.name: _written(getattr(value, one.name)) for one in dataclasses.fields(value)}
        kind = _NAMES.get(type(value))
        return fields if kind is None else {"type": kind, **fields}
    if isinstance(value, tuple):
        return [_written(one) for one in value]
    return value


def _read(kind: Any, value: Any, place: str) -> Any:
    """A value of this type, from JSON."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType or origin is typing.Union:
        if value is None and type(None) in arguments:
            return None
        return _read(next(one for one in arguments if one is not type(None)), value, place)
    if origin is tuple:
        items = _expected(list, value, place)
        if arguments[-1] is not ...:
            if len(items) != len(arguments):
                raise FindingError(f"{place}: {value!r:.80} should hold {len(arguments)} values")
            return tuple(_read(a, one, place) for a, one in zip(arguments, items, strict=True))
        return tuple(_read(arguments[0], one, place) for one in items)
    if origin in (list, dict):
        held = _expected(origin, value, place)
        if origin is list:
            return [_read(arguments[0], one, place) for one in held]
        return {key: _read(arguments[1], one, place) for key, one in held.items()}
    if kind is Any:
        return value
    if kind is FixedPointFormat:
        text = _expected(str, value, place)
        try:
            return FixedPointFormat.parse(text)
        except ValueError as error:
            raise FindingError(f"{place}: {error}") from error
    if kind is Fraction:
        return _fraction(_expected(str, value, place), place)
    if dataclasses.is_dataclass(kind):
        return _read_attributes(kind, _expected(dict, value, place), place)
    return _expected(kind, value, place)


def _read_attributes(kind: Any, value: dict[str, Any], place: str) -> Any:
    """An object of a dataclass."""
    names = {field.name for field in dataclasses.fields(kind)}
    _check_keys(value, names, place)
    hints = typing.get_type_hints(kind)
    given = {name: _read(hints[name], value[name], f"{place}.{name}") for name in names}
    try:
        return kind(**given)
    except ValueError as error:
        raise FindingError(f"{place}: {error}") from error


def _fraction(text: str, place: str) -> Fraction:
    parts = text.split("/")
    whole = all(part.removeprefix("-").isdecimal() and len(part) < 20 for part in parts)
    if not whole or len(parts) > 2 or (len(parts) == 2 and int(parts[1]) == 0):
        raise FindingError(f"{place}: {text!r:.80} is no fraction, such as 1/4")
    return Fraction(*map(int, parts))


def _expected(kind: type, value: Any, place: str) -> Any:
    if type(value) is not kind:
        raise FindingError(f"{place}: {value!r:.80} should be of type {kind.__name__}")
    return value


def _check_keys(value: Mapping[str, Any], wanted: set[str], place: str) -> None:
    different = sorted(set(value) ^ wanted)
    if different:
        what = "is missing" if different[0] in wanted else "is not known"
        raise FindingError(f"{place}: {different[0]!r:.80} {what}")
