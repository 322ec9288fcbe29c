"""From what a module says by itself to its device model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from torch import Tensor

from qspinn.export.learning import declared_learning
from qspinn.export.learning_layers import learning_layers
from qspinn.export.model import (
    KINDS,
    DeviceModel,
    DeviceOperation,
    Gather,
    Input,
    Neuron,
    NotExportableError,
    Output,
    State,
    StoredTensor,
    What,
)
from qspinn.export.packed_tensor import PackedTensor
from qspinn.plan.declared_operations import DeclaresLearning, DeclaresOperations
from qspinn.plan.graph import Operand, Window

__all__ = ["declared_model"]

_KINDS = {name: kind for name, kind in KINDS.items() if kind not in (Neuron, Gather, State)}
_PLACES = ("name", "what", "takes", "shape", "path", "taken", "is_final")
"""What a mapping says beside the attributes of its kind."""


def declared_model(
    module: DeclaresOperations,
    example: Tensor,
    name: str,
    classes: Sequence[str],
    origin: Mapping[str, str] | None,
    learning: bool | None = None,
) -> DeviceModel:
    """The device model of a module that declares its operations.

    For `learning`, see :func:`qspinn.export.device_model`.

    Raises:
        NotExportableError: The module says that it cannot be exported as it is.
        ValueError: A declaration that makes no model.
    """
    try:
        said = module.device_operations(example)
    except ValueError as error:
        raise NotExportableError(f"{name}: {error}") from error
    numbers = {one["name"]: number for number, one in enumerate(said["operations"])}
    static = not said["frame_stride"]
    operations = tuple(_operation(name, one, numbers, static) for one in said["operations"])
    answers = numbers[said["answers"]]
    model = DeviceModel(
        operations,
        Output(
            answers,
            "output",
            "last",
            said.get("scale", Fraction(1)),
            tuple(said.get("divisors", ())),
        ),
        {
            path: StoredTensor.of(codes.cpu().numpy().astype(np.int64), fmt)
            for path, (codes, fmt) in said["tensors"].items()
        },
        {"output": PackedTensor.shortest(np.arange(operations[answers].size)[:, None])},
        None,
        said["frame_stride"],
        said["steps"],
        name,
        tuple(classes),
        dict(origin or {}),
    )
    return model if learning is False else _learning(model, module, learning is True)


def _learning(model: DeviceModel, module: object, must: bool) -> DeviceModel:
    """The model with how its module goes on learning, or else with the reason why it cannot.

    Raises:
        NotExportableError: It must go on learning, and cannot.
    """
    if not isinstance(module, DeclaresLearning):
        if must:
            raise NotExportableError(
                f"{model.name}: says nothing of how a device would learn; export it without "
                "learning"
            )
        return model
    try:
        found = declared_learning(module.device_learning())
        learning_layers(model, found)
    except ValueError as error:
        reason = f"{model.name}: {error}"
        if must:
            raise NotExportableError(reason) from error
        return dataclasses.replace(model, learning_refused=reason)
    return dataclasses.replace(model, learning=found)


def _operation(
    module: str, one: Mapping[str, Any], numbers: Mapping[str, int], static: bool
) -> DeviceOperation:
    kind = _KINDS.get(one["what"])
    if kind is None:
        raise ValueError(
            f"{module}: device_operations() has an operation {one['what']!r}; write one of "
            f"{', '.join(_KINDS)}"
        )
    attributes = {key: value for key, value in one.items() if key not in _PLACES}
    unknown = set(attributes) - {field.name for field in dataclasses.fields(kind)}
    if unknown:
        raise ValueError(
            f"{module}: device_operations() gives {one['name']!r} {sorted(unknown)[0]!r}, which no "
            f"{one['what']} has"
        )
    if "window" in attributes:
        attributes["window"] = Window(**attributes["window"])
    what: What = kind(**attributes)
    pairs = [(taken, 0) if isinstance(taken, str) else taken for taken in one["takes"]]
    missing = [source for source, _ in pairs if source not in numbers]
    if missing:
        raise ValueError(f"{module}: {one['name']!r} takes {missing[0]!r}, which is no operation")
    return DeviceOperation(
        what,
        tuple(Operand(numbers[source], delay) for source, delay in pairs),
        tuple(one["shape"]),
        one.get("path", one["name"]),
        static and isinstance(what, Input),
        tuple(one.get("taken", ())),
        is_final=one.get("is_final", False),
    )
