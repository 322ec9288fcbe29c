"""Configurations against the signatures of what they name."""

import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest

from qspinn.app.compose.checking import check_targets, type_name, value_fits
from qspinn.app.errors import ConfigurationError


class Engine:
    def __init__(
        self,
        size: int,
        ratio: float = 1.0,
        name: str | None = None,
        kind: Literal["a", "b"] = "a",
        parts: Sequence[int] | int = (),
        path: str | Path = ".",
        fast: bool = False,
        other: object = None,
    ) -> None:
        self.size = size


@pytest.mark.parametrize(
    ("value", "hint", "fits"),
    [
        (1, int, True),
        (True, int, False),
        (1.0, int, False),
        ("1", int, False),
        (1, float, True),
        (True, float, False),
        (0, bool, False),
        (None, int | None, True),
        (None, int, False),
        ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False),
        ([1, 2], Sequence[int], True),
        ([1, "x"], Sequence[int], False),
        (1, Sequence[int], False),
        ("12", Sequence[str], False),
        ([1, 2], tuple[int, ...], True),
        ([1, "x"], tuple[int, str], True),
        ({"a": 1}, dict[str, int], True),
        (1, dict[str, int], False),
        ("x", Engine, True),
        (1, str | Path, True),
    ],
)
def test_values_fit_types(value, hint, fits):
    assert value_fits(value, hint) is fits


def test_a_type_is_said_in_words():
    assert type_name(int | None) == "a whole number or null"
    assert type_name(Sequence[int] | int) == "a list of a whole number or a whole number"
    assert type_name(Literal["a", "b"]) == "one of a, b"


def check(**values):
    check_targets({"group": {"_target_": "engines.Engine", **values}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": "big"}, r"^group\.size='big'; write a whole number$"),
        ({"size": 1, "parts": "x"}, r"^group\.parts='x'; write a list of a whole number or a"),
        ({"size": 1, "kind": "c"}, r"^group\.kind='c'; write one of a, b$"),
        ({"size": 1, "fats": True}, r"^group\.fats: .*no such argument; did you mean fast\?$"),
        ({"size": 1, "zzz": True}, r"^group\.zzz: .*write one of size, ratio, name"),
        ({"size": 1, "other": [{"_target_": "os.nothing"}]}, r"^group\.other\[0\]\._target_="),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(monkeypatch, values, message):
    # Where a dotted name finds the class, however the tests were imported.
    module = types.ModuleType("engines")
    module.Engine = Engine
    monkeypatch.setitem(sys.modules, "engines", module)
    with pytest.raises(ConfigurationError, match=message):
        check(**values)
    check(size=1, ratio=2, name=None, parts=[1], fast=True, other={"a": "b"})
