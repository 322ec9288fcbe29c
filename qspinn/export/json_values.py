"""JSON of unknown origin: finite numbers, 64-bit integers, and each name once."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, NoReturn

__all__ = ["MOST_DEPTH", "MOST_MARKS", "check_values", "json_text", "parse_json"]

MOST_DEPTH = 64
"""Lists and objects inside each other."""
MOST_MARKS = 250_000
"""Commas, colons and opening brackets in a text: it has at most one value more. Python needs up to
about 100 bytes for each, whatever the size of the text."""
MOST_DIGITS = 20
LOWEST, HIGHEST = -(1 << 63), (1 << 63) - 1


def json_text(value: Any) -> str:
    """The compact JSON text of a value, in ASCII; names in the order in which they are given.

    Raises:
        TypeError: Something in it is no JSON value.
        ValueError: It holds what `parse_json` would refuse.
    """
    check_values(value)
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    _check_marks(text)
    return text


def parse_json(text: str) -> Any:
    """The value that a text stands for.

    Raises:
        ValueError: The text is no JSON, has a name twice in one object, a number that is not finite
            or an integer of more than 64 bits, or is nested too deeply or too long.
    """
    _check_marks(text)
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise ValueError(f"lists and objects are nested more than {MOST_DEPTH} deep") from None
    check_values(value)
    return value


def check_values(value: Any) -> None:
    """See that everything in a value is a plain JSON value that every reader understands alike.

    Raises:
        TypeError: Something in it is no JSON value; the message says where.
        ValueError: A number is not finite or has more than 64 bits, a text is no Unicode, or lists
            and objects are nested too deeply.
    """
    _check(value, ())


def _check(value: Any, place: tuple[str | int, ...]) -> None:
    kind = type(value)
    if kind is dict or kind is list:
        if len(place) >= MOST_DEPTH:
            raise ValueError(f"lists and objects are nested more than {MOST_DEPTH} deep")
        for key, item in value.items() if kind is dict else enumerate(value):
            if kind is dict:
                if type(key) is not str:
                    raise TypeError(f"the name {key!r:.80} in {_where(place)} is no str")
                _check_text(key, place)
            _check(item, (*place, key))
    elif kind is str:
        _check_text(value, place)
    elif kind is int:
        if not LOWEST <= value <= HIGHEST:
            raise ValueError(f"the integer in {_where(place)} has more than 64 bits")
    elif kind is float:
        if not math.isfinite(value):
            raise ValueError(f"the number in {_where(place)} is {value}; numbers are finite")
    elif value is not None and kind is not bool:
        raise TypeError(
            f"{_where(place)} is of type {kind.__name__}; give dict, list, str, int, float, bool "
            f"or None"
        )


def _check_text(text: str, place: tuple[str | int, ...]) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"a text in {_where(place)} has half a surrogate pair") from None


def _where(place: tuple[str | int, ...]) -> str:
    steps = (f"[{step!r:.80}]" for step in place[:MOST_DEPTH])
    return "".join(steps) or "the outermost value"


def _check_marks(text: str) -> None:
    marks = sum(map(text.count, ",:[{"))
    if marks > MOST_MARKS:
        raise ValueError(
            f"a text has {marks:,} commas, colons and opening brackets; at most {MOST_MARKS:,} are "
            f"read"
        )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON: numbers are finite")


def _integer(text: str) -> int:
    if len(text) > MOST_DIGITS or not LOWEST <= (value := int(text)) <= HIGHEST:
        raise ValueError(f"the integer {text:.30} has more than 64 bits")
    return value


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text:.30} is too large: numbers are finite")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the name {twice!r:.80} occurs twice in one object")
    return found


_DECODER = json.JSONDecoder(
    parse_constant=_refuse_constant,
    parse_int=_integer,
    parse_float=_float,
    object_pairs_hook=_object,
)
