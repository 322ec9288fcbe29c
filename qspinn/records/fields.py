"""What each field of a record may hold, by itself.

A check sees one value and nothing else, so that who reads many records can check equal values once.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from qspinn.records.model_field import check_device_model, check_inside
from qspinn.records.validation import fail, integer, mapping, names, number, plain, text

SCHEMA_VERSION = 1
SCHEMES = ("none", "ptq", "itq")
STATUSES = ("completed", "interrupted")

Check = Callable[[str, Any], Any]
"""Takes the name of a field and its value; returns the value as it is kept, or raises."""

_FORMAT_KEYS = ("role", "format", "rounding", "overflow")
_UNIT = "unit"
_FORMAT_KEY_SET = set(_FORMAT_KEYS)
_HASH = re.compile(r"[0-9a-f]{64}")


def optional(check: Check) -> Check:
    """The same check of a value that may be None."""
    return lambda name, value: None if value is None else check(name, value)


def _table(check: Check, least: float = math.inf) -> Check:
    """A mapping from names to values that all pass the same check.

    Args:
        check: Of a value.
        least: Finite floats from here on pass it, and are kept as they are.
    """

    def table(name: str, value: Any) -> dict[str, Any]:
        return {
            key: item
            if type(item) is float and least <= item < math.inf
            else check(f"{name}.{key}", item)
            for key, item in zip(names(name, value), value.values(), strict=True)
        }

    return table


def _schema_version(name: str, value: Any) -> int:
    if type(value) is not int or value != SCHEMA_VERSION:
        raise fail(name, value, str(SCHEMA_VERSION))
    return value


def config_values(name: str, value: Any) -> Any:
    """A mapping of plain types."""
    return plain(name, mapping(name, value))


def _hash(name: str, value: Any) -> str:
    if not _HASH.fullmatch(text(name, value)):
        raise fail(name, value, f"64 hexadecimal digits (qspinn.records.{name}())")
    return str(value)


def _created(name: str, value: Any) -> str:
    try:
        datetime.fromisoformat(text(name, value))
    except ValueError as error:
        raise fail(name, value, "an ISO 8601 date and time") from error
    return str(value)


def _lengths(name: str, value: Any) -> list[int]:
    values = value if isinstance(value, (list, tuple)) else [value]
    return sorted({integer(name, length, 1) for length in values})


def _format(name: str, value: Any) -> dict[str, str]:
    if set(mapping(name, value)) - {_UNIT} != _FORMAT_KEY_SET:
        wanted = ", ".join(_FORMAT_KEYS)
        raise fail(
            name, value, f"the keys {wanted}, and for weights in a unit of their own {_UNIT}"
        )
    return {
        key: text(f"{name}.{key}", value[key]) for key in (*_FORMAT_KEYS, _UNIT) if key in value
    }


def _summary(name: str, value: Any) -> dict[str, Any]:
    """Shares, lines for people, and whatever else says more, as plain types."""
    given = {"lines": [], **plain(name, mapping(name, value))}
    for kind in ("parameters", "states"):
        place = f"{name}.{kind}"
        counts = mapping(place, given.get(kind))
        total = integer(f"{place}.total", counts.get("total"), 0)
        quantized = integer(f"{place}.quantized", counts.get("quantized"), 0)
        if quantized > total:
            raise fail(f"{place}.quantized", quantized, f"at most the total, {total}")
    _each(f"{name}.lines", given["lines"], text, "a list of texts")
    return given


def _each(name: str, value: object, check: Check, wanted: str = "a list") -> None:
    if not isinstance(value, list):
        raise fail(name, value, wanted)
    for index, item in enumerate(value):
        check(f"{name}[{index}]", item)


SHARES = (
    *("rate", "reference_rate", "silent", "reference_silent", "saturated", "reference_saturated"),
    *("rate_distance", "agreement", "overlap"),
)


def _fidelity(name: str, value: object) -> dict[str, Any]:
    """How far a network behaves as its 32-bit twin.

    `agreement` must be there: a share, or null where no predictions were compared. What else is
    known (`samples`, `first_layer`, `layers`, `warnings`, `notes`) is checked, and may be missing.
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
    _each(f"{name}.layers", given.get("layers", []), _layer_behaviour)
    return given


def _path(name: str, value: object) -> None:
    """A layer; the network itself has an empty path."""
    if value != "":
        text(name, value)


def _layer_behaviour(name: str, value: object) -> None:
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


LAYER_WORK = (
    *("synaptic_operations", "dense_synaptic_operations", "multiplications", "additions"),
    *("state_updates", "bits_moved", "energy_nj", "energy_compute_nj", "energy_memory_nj"),
)
WORK = (*LAYER_WORK, "float_energy_nj", "ann_energy_nj", "ann_float_energy_nj", "time_steps")


def _work(name: str, value: Any) -> dict[str, Any]:
    """Energy per sample in nJ, and the numbers and lines that say how it comes about."""
    given: dict[str, Any] = {"energy_nj": None, **plain(name, mapping(name, value))}
    _check_numbers(name, given, WORK)
    if "samples" in given:
        integer(f"{name}.samples", given["samples"], 1)
    for path, layer in mapping(f"{name}.layers", given.get("layers", {})).items():
        place = f"{name}.layers.{path}"
        _check_numbers(place, mapping(place, layer), LAYER_WORK)
    _each(f"{name}.lines", given.get("lines", []), text, "a list of texts")
    arithmetic, memory = given.get("energy_compute_nj"), given.get("energy_memory_nj")
    if arithmetic is not None and memory is not None:
        total, energy = arithmetic + memory, given["energy_nj"]
        if not math.isclose(total, energy, rel_tol=1e-6, abs_tol=1e-9):
            expected = f"the sum of energy_compute_nj and energy_memory_nj, {total!r}"
            raise fail(f"{name}.energy_nj", energy, expected)
    return given


def _check_numbers(name: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in known:
        value = given.get(key, 0.0)
        if type(value) is not float or not 0.0 <= value < math.inf:
            number(f"{name}.{key}", value, 0.0)


def work_metrics(work: Mapping[str, Any] | None) -> dict[str, float]:
    """Return the numbers of a record's `work`, as `work/energy_nj` and so on; nothing for None.

    Those of single layers are left out.
    """
    numbers = (
        (name, value) for name, value in (work or {}).items() if isinstance(value, (int, float))
    )
    return {f"work/{name}": float(value) for name, value in numbers}


accuracy_share = partial(number, low=0.0, high=1.0)
_count = partial(integer, low=0)
_positive = partial(integer, low=1)

FIELD_CHECKS: dict[str, Check] = {
    "schema_version": _schema_version,
    "network": text,
    "data": text,
    "status": partial(text, choices=STATUSES),
    "seed": integer,
    "config": config_values,
    "config_hash": _hash,
    "baseline_key": optional(_hash),
    "setting_key": optional(_hash),
    "checkpoint": optional(check_inside),
    "created": optional(_created),
    "scheme": partial(text, choices=SCHEMES),
    "rounding": optional(text),
    "accuracy": accuracy_share,
    "baseline_accuracy": optional(accuracy_share),
    "samples": optional(_positive),
    "validation_accuracy": optional(accuracy_share),
    "validation_baseline_accuracy": optional(accuracy_share),
    "validation_samples": optional(_positive),
    "footprint_bits": _positive,
    "baseline_footprint_bits": _positive,
    "footprint_bits_by_role": _table(_count),
    "baseline_footprint_bits_by_role": _table(_count),
    "training_footprint_bits": integer,
    "word_lengths": _table(_lengths),
    "formats": _table(_format),
    "accumulator_word_lengths": _table(_positive),
    "flash_bits": optional(_count),
    "ram_bits": optional(_count),
    "learning_ram_bits": optional(_count),
    "fidelity": optional(_fidelity),
    "work": optional(_work),
    "device_model": optional(check_device_model),
    "summary": optional(_summary),
    "data_fingerprint": optional(text),
    "versions": _table(text),
    "seconds": _table(partial(number, low=0.0), least=0.0),
    "metrics": _table(optional(number), least=-sys.float_info.max),
}
"""Name of each field of a record to its check, in the order in which they are made."""
