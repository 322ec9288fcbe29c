"""Members of records that are known to be right by their text, and parsed when they are asked for.

How networks behave and what they compute is most of a record, and selecting hardly needs it. A
regular expression takes a tenth of the time of parsing and checking. It lets pass what qspinn
writes in the usual case; anything else, right or wrong, is parsed and checked at once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from qspinn.records.fields import FIELD_CHECKS, LAYER_WORK, SHARES, WORK
from qspinn.records.json_text import parse_json


class Unread:
    """The text of a member, which its check would pass.

    Args:
        name: Of the field.
        text: `"name": value`.
    """

    def __init__(self, name: str, text: str) -> None:
        self.name, self._text, self._value = name, text, None

    @classmethod
    def of(cls, text: str) -> Unread | None:
        """Take a text that is laid out as qspinn writes it; None: it has to be looked at."""
        name = text[1 : text.find('"', 1)]
        is_right = _IS_RIGHT.get(name)
        return cls(name, text) if is_right is not None and is_right(text) else None

    def value(self) -> Any:
        """What the check of the field returns."""
        if self._value is None:
            given = parse_json(f"{{{self._text}}}")[self.name]
            self._value = FIELD_CHECKS[self.name](self.name, given)
            self._text = ""
        return self._value


class Late:
    """A field of a record that may hold an `Unread`, and is None where it is not given."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, record: Any, owner: type | None = None) -> dict[str, Any] | None:
        if record is None:
            return None
        value = vars(record)[self._name]
        return value.value() if isinstance(value, Unread) else value

    def __set__(self, record: Any, value: dict[str, Any] | None) -> None:
        vars(record)[self._name] = value


# Of each kind less than its check takes: finite numbers, texts in ASCII without escapes.
_INTEGER = r"(?:0|[1-9][0-9]{0,14}+)"
_NUMBER = rf"{_INTEGER}(?:\.[0-9]{{1,20}}+)?+(?:e-[0-9]{{1,3}}+)?+"
_SHARE = r"(?:0(?:\.[0-9]{1,20}+)?+|1(?:\.0)?+|[1-9](?:\.[0-9]{1,20}+)?+e-0?[1-9][0-9]{0,2}+)"
_TEXT = r'"[ !#-\[\]-~]++"'
_PATH = r'"[ !#-\[\]-~]*+"'


def _list(indent: int, item: str) -> str:
    start = "\n" + " " * indent
    return rf"\[(?:{start}  {item}(?:,{start}  {item})*+{start})?+\]"


def _object(indent: int, members: Mapping[str, str]) -> str:
    start = "\n" + " " * indent
    lines = f",{start}  ".join(f'"{name}": {members[name]}' for name in sorted(members))
    return rf"\{{{start}  {lines}{start}\}}"


_BEHAVIOUR = {
    **dict.fromkeys(SHARES, _SHARE),
    "layer": _PATH,
    "membrane_distance": f"(?:null|{_NUMBER})",
    "neurons": _INTEGER,
    "role": _TEXT,
}
_FIRST = {"first_neuron": _list(8, _INTEGER), "first_step": _INTEGER}
_LAYER = "(?:{}|{})".format(
    _object(6, _BEHAVIOUR | _FIRST), _object(6, _BEHAVIOUR | dict.fromkeys(_FIRST, "null"))
)
_FIDELITY = {
    "agreement": f"(?:null|{_SHARE})",
    "first_layer": f"(?:null|{_PATH})",
    "layers": _list(4, _LAYER),
    "notes": _list(4, _TEXT),
    "samples": "[1-9][0-9]{0,14}",
    "warnings": _list(4, _TEXT),
}
_LAYER_OF_WORK = _TEXT + ": " + _object(6, dict.fromkeys(LAYER_WORK, _NUMBER))
_WORK = {
    **dict.fromkeys(WORK, _NUMBER),
    **{f"energy_{part}nj": f"({_NUMBER})" for part in ("", "compute_", "memory_")},
    "energy_model": _TEXT,
    "layers": rf"\{{\n      {_LAYER_OF_WORK}(?:,\n      {_LAYER_OF_WORK})*+\n    \}}",
    "lines": _list(4, _TEXT),
    "samples": "[1-9][0-9]{0,14}",
}
_FIDELITY_TEXT = re.compile('"fidelity": ' + _object(2, _FIDELITY))
_WORK_TEXT = re.compile('"work": ' + _object(2, _WORK))
_LAYER_NAMES = re.compile(r'\n      ("[^"]*"): \{')


def _is_work(text: str) -> bool:
    found = _WORK_TEXT.fullmatch(text)
    if found is None:
        return False
    arithmetic, memory, total = map(float, found.groups())
    layers = _LAYER_NAMES.findall(text)
    return math.isclose(arithmetic + memory, total) and len(set(layers)) == len(layers)


_IS_RIGHT: dict[str, Callable[[str], object]] = {
    "fidelity": _FIDELITY_TEXT.fullmatch,
    "work": _is_work,
}
