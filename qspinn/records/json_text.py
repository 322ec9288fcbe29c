"""JSON of unknown origin: finite numbers only, and each name once."""

from __future__ import annotations

import json
from typing import Any, NoReturn

SHORT = 1 << 20
"""Characters of a text that cannot hold too much."""
MOST_COMMAS = 2_000_000
"""In a text, which has about as many values. A record of 64 MiB has fewer."""


def parse_json(text: str) -> Any:
    """The value that a text stands for.

    JSON leaves open what a name means that an object holds twice, and parsers differ. Here it is an
    error, as are ``NaN`` and ``Infinity``.

    Raises:
        ValueError: The text is no such JSON, is nested deeper than Python can follow, or needs more
            memory than there is or than makes sense.
    """
    check_extent(text)
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except MemoryError:
        raise ValueError("it needs more memory than there is") from None


def check_extent(text: str) -> None:
    """See that the values of a text fit into memory: an empty list takes 64 bytes there.

    Raises:
        ValueError: They are too many.
    """
    if len(text) > SHORT and (commas := text.count(",")) > MOST_COMMAS:
        raise ValueError(f"it has {commas:,} commas, and {MOST_COMMAS:,} at most make sense")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON: numbers are finite")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"the name {twice[:80]!r} occurs twice in one object")
    return found


# json.loads would make a decoder for each of many texts.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_object)
