"""What a record may say of how far its network behaves as the 32-bit twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qspinn.records.validation import fail, integer, mapping, number, plain, text

SHARES = (
    *("rate", "reference_rate", "silent", "reference_silent", "saturated", "reference_saturated"),
    *("rate_distance", "agreement", "overlap"),
)


def check_fidelity(name: str, value: object) -> dict[str, Any]:
    """Return a copy of plain types.

    `agreement` must be there: a share, or null where no predictions were compared. What else is
    known (`samples`, `first_layer`, `layers`, `warnings`, `notes`) is checked, and may be missing.

    Raises:
        RecordError: A value that cannot be; the message names its place.
    """
    given: dict[str, Any] = plain(name, mapping(name, value))
    if given.get("agreement", "missing") is not None:
        number(f"{name}.agreement", given.get("agreement"), 0.0, 1.0)
    if "samples" in given:
        integer(f"{name}.samples", given["samples"], 1)
    if given.get("first_layer") is not None:
        _path(f"{name}.first_layer", given["first_layer"])
    for kind in ("warnings", "notes"):
        _each(f"{name}.{kind}", given.get(kind, []), text)
    _each(f"{name}.layers", given.get("layers", []), _layer)
    return given


def _each(name: str, value: object, check: Callable[[str, Any], object]) -> None:
    if not isinstance(value, list):
        raise fail(name, value, "a list")
    for index, item in enumerate(value):
        check(f"{name}[{index}]", item)


def _path(name: str, value: object) -> None:
    """A layer; the network itself has an empty path."""
    if value != "":
        text(name, value)


def _layer(name: str, value: object) -> None:
    layer = mapping(name, value)
    _path(f"{name}.layer", layer.get("layer"))
    for share in SHARES:
        value = layer.get(share)
        if type(value) is not float or not 0.0 <= value <= 1.0:
            number(f"{name}.{share}", value, 0.0, 1.0)
    step, neuron = layer.get("first_step"), layer.get("first_neuron")
    if (step is None) is not (neuron is None):
        raise fail(f"{name}.first_neuron", neuron, "an index exactly where first_step is a step")
    if step is not None:
        integer(f"{name}.first_step", step, 0)
        _each(f"{name}.first_neuron", neuron, lambda place, index: integer(place, index, 0))
    if layer.get("membrane_distance") is not None:
        number(f"{name}.membrane_distance", layer["membrane_distance"], 0.0)
