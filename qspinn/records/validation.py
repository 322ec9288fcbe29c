"""Checks of single values, with errors that name the field, the value and what to write instead."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any

from qspinn.records.printable import HIDDEN


class RecordError(ValueError):
    """A record is missing, unreadable or invalid; the message says where and why.

    Attributes:
        field: Name of the offending field (dotted for nested ones), or None when the whole file is.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


MOST = 2**63 - 1
"""Of whole numbers: more bits than all memory there is."""


def _shown(value: object) -> str:
    try:
        shown = repr(value)
    except ValueError:  # Python does not write out numbers of thousands of digits
        return f"a number of {int(value).bit_length():,} bits"  # type: ignore[call-overload]
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def fail(field: str, value: object, expected: str) -> RecordError:
    """The error for a value that breaks a rule; the caller raises it."""
    message = f"field {field!r}: got {_shown(value)} ({type(value).__name__}), expected {expected}"
    return RecordError(message, field)


def number(field: str, value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """`value` as a finite float in [low, high]. Booleans and strings are refused."""
    if type(value) is not float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise fail(field, value, "a number")
        try:
            value = float(value)
        except OverflowError as error:
            raise fail(field, value, "a number that a float holds") from error
    if not math.isfinite(value):
        raise fail(field, value, "a finite number (write null for a value that is not)")
    if not low <= value <= high:
        raise fail(field, value, f"a number in [{low:g}, {high:g}]")
    return value


def integer(field: str, value: object, low: int | None = None) -> int:
    """`value` as an int of at least `low`. Booleans and floats such as 8.0 are refused."""
    if type(value) is not int:
        raise fail(field, value, "an integer")
    if not -MOST <= value <= MOST:
        raise fail(field, value, "an integer of at most 64 bits")
    if low is not None and value < low:
        raise fail(field, value, f"an integer of at least {low}")
    return value


def text(field: str, value: object, choices: Iterable[str] = ()) -> str:
    """`value` as a non-empty string, one of `choices` where there are some."""
    if not isinstance(value, str) or not value or not _is_shown(value):
        raise fail(field, value, "a non-empty string without control characters")
    choices = tuple(choices)
    if choices and value not in choices:
        raise fail(field, value, "one of " + ", ".join(choices))
    return value


def _is_written(value: str) -> bool:
    """Whether a text can be written to a file: half of a surrogate pair cannot."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _is_shown(value: str) -> bool:
    """Whether a text does nothing where it is printed."""
    return value.isprintable() or HIDDEN.search(value) is None


def mapping(field: str, value: object) -> Mapping[str, Any]:
    """`value` as a mapping whose keys are non-empty strings."""
    if type(value) is dict and _usual(value) is not None:
        return value
    if not isinstance(value, Mapping):
        raise fail(field, value, "a mapping")
    for key in value:
        if not isinstance(key, str) or not key or not _is_written(key):
            raise fail(field, key, "keys that are non-empty strings")
    return value


def names(field: str, value: object) -> Collection[str]:
    """The keys of a mapping, which are names that can be shown."""
    if type(value) is dict and (usual := _usual(value)) is not None:
        return usual
    given = mapping(field, value)
    for key in given:
        text(field, key)
    return given


def _usual(given: dict[Any, Any]) -> tuple[str, ...] | None:
    """The keys if nothing is the matter with them, mostly the same object for equal ones."""
    return _looked_at(tuple(given)) if len(given) <= _FEW else None


_FEW = 200
"""Names of one mapping that are remembered."""


@lru_cache(maxsize=1000)
def _looked_at(keys: tuple[Any, ...]) -> tuple[str, ...] | None:
    """Many records have the same names: these are looked at, and kept, once."""
    is_usual = all(type(key) is str and key and key.isascii() and key.isprintable() for key in keys)
    return keys if is_usual else None


MOST_NESTED = 100
"""Of mappings and lists in each other: no configuration comes near it."""


def plain(field: str, value: object, depth: int = 0) -> Any:
    """A copy of `value` made of what JSON holds: dict, list, str, int, finite float, bool, None.

    Tuples become lists. Anything else (a path, a tensor, NaN) is an error that names its place, and
    so is what is nested deeper than can be handled everywhere.

    Args:
        field: The place, for errors.
        value: What to copy.
        depth: How many mappings and lists are around it.
    """
    try:
        return _copied(value, depth)
    except _UnusualError:
        return _named(field, value, depth)


class _UnusualError(Exception):
    """Something is there that has to be looked at with its name."""


_WHOLE_TYPES = frozenset((type(None), bool, int, str))


def _copied(value: Any, depth: int) -> Any:
    """The copy of what is plain beyond doubt. Names of places would take most of the time."""
    kind = type(value)
    if kind in _WHOLE_TYPES or (kind is float and math.isfinite(value)):
        return value
    if depth < MOST_NESTED:
        if kind is dict and all(type(key) is str for key in value):
            return {key: _copied(item, depth + 1) for key, item in value.items()}
        if kind is list:
            return [_copied(item, depth + 1) for item in value]
    raise _UnusualError


def _named(field: str, value: object, depth: int) -> Any:
    """The same with the name of each place, for the error."""
    kind = type(value)
    if value is None or kind is bool or kind is int or kind is str:
        return value
    if kind is float:
        return number(field, value)
    if depth >= MOST_NESTED and isinstance(value, (Mapping, list, tuple)):
        raise RecordError(f"field {field!r}: nested deeper than {MOST_NESTED} levels", field)
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise fail(field, value, "keys that are strings")
        return {key: _named(f"{field}.{key}", item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_named(f"{field}[{index}]", item, depth + 1) for index, item in enumerate(value)]
    raise fail(field, value, "plain types only (mapping, list, string, number, boolean, null)")
