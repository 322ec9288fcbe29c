"""Read record files: every value checked, and what many records share read once."""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from collections.abc import Callable
from typing import Any

from qspinn.records.fields import FIELD_CHECKS
from qspinn.records.files import read_regular
from qspinn.records.hashing import baseline_key, setting_key
from qspinn.records.json_text import check_extent, parse_json
from qspinn.records.run_record import RunRecord, check_names
from qspinn.records.unread import Unread
from qspinn.records.validation import RecordError, mapping, plain

_MOST_KEPT = 20_000
"""Distinct texts that a reader remembers before it starts anew."""
_LARGE = ("config", "device_model", "fidelity", "metrics", "work")
"""Members that are hardly ever the same; of the configuration its own members are remembered."""


class RecordReader:
    """Reads record files, many of which hold the same versions, formats and settings.

    A record as qspinn writes it has a member per line that starts with two blanks. Such a text is
    cut there, and a member whose text was seen before is neither parsed nor checked again. Each
    piece has to be a JSON value by itself, which proves that the cuts were right: texts that are
    written otherwise are read as a whole. What takes most of the time is parsed when it is asked
    for, where its text shows that nothing is wrong with it (see `Unread`).

    Equal values of the records read are the same objects: do not change them.
    """

    def __init__(self) -> None:
        self._members: dict[str, tuple[str, Any]] = {}
        self._settings: dict[str, tuple[str, Any]] = {}

    def read(self, path: str | os.PathLike[str]) -> RunRecord:
        """Read and check one record file.

        Raises:
            RecordError: The file is missing, unreadable, not JSON (half-written), of another
                schema version, or holds a wrong value. The message names the file, the field and
                the value.
        """
        try:
            raw = read_regular(path)
        except FileNotFoundError as error:
            raise RecordError(f"{path}: no such file") from error
        except OSError as error:
            raise RecordError(f"{path}: cannot be read ({error.strerror})") from error
        if not raw or raw.isspace():
            raise RecordError(f"{path}: the file is empty")
        try:
            return self._record(raw.removeprefix(BOM_UTF8).decode())
        except RecordError as error:
            raise RecordError(f"{path}: {error}", error.field) from error
        except ValueError as error:
            raise RecordError(f"{path}: corrupt or half-written JSON ({error})") from error

    def _record(self, text: str) -> RunRecord:
        check_extent(text)
        values = _cut(text, "", self._members, self._member)
        if values is None:
            return RunRecord.from_dict(parse_json(text))
        check_names(values)
        return RunRecord.of_checked(values)

    def _member(self, text: str) -> tuple[str, Any] | None:
        """Name and checked value of a member of the record; None where the text is no member."""
        start = '"config": '
        if text.startswith(start):
            settings = _cut(f"{text[len(start) :]}\n", "  ", self._settings, _setting)
            if settings is not None:
                return "config", mapping("config", settings)
        unread = Unread.of(text)
        if unread is not None:
            return unread.name, unread
        parsed = _pair(text)
        if parsed is None or parsed[0] == "schema_version":
            return parsed  # check_names says more about the version
        check = FIELD_CHECKS.get(parsed[0], _as_it_is)
        return parsed[0], check(*parsed)


def _setting(text: str) -> tuple[str, Any] | None:
    """Name and checked value of a member of the configuration."""
    found = _pair(text)
    return None if found is None else (found[0], plain(f"config.{found[0]}", found[1], depth=1))


def read_record(path: str | os.PathLike[str]) -> RunRecord:
    """Read and check one record file.

    Raises:
        RecordError: See `RecordReader.read`.
    """
    return RecordReader().read(path)


def baseline_key_of(record: RunRecord) -> str:
    """The baseline key of a record, computed where the record does not hold it."""
    return record.baseline_key or baseline_key(record.config)


def setting_key_of(record: RunRecord) -> str:
    """The setting key of a record, computed where the record does not hold it."""
    return record.setting_key or setting_key(record.config)


def _cut(
    text: str,
    indent: str,
    cache: dict[str, tuple[str, Any]],
    member: Callable[[str], tuple[str, Any] | None],
) -> dict[str, Any] | None:
    """An object whose members start on lines of their own; None where it is laid out otherwise.

    Members that are JSON by themselves, joined by commas and put into braces, are a JSON object,
    and this one. A name that occurs twice is left to the parser.
    """
    start, end = f"{{\n{indent}  ", f"\n{indent}}}\n"
    if not text.startswith(start + '"') or not text.endswith(end):
        return None
    # The quote in front of each name is cut away, and put back where a text is new.
    pieces = text[len(start) + 1 : -len(end)].split(f',\n{indent}  "')
    pairs = list(map(cache.get, pieces))
    for index, pair in enumerate(pairs):
        if pair is None:
            piece = pieces[index]
            pair = pairs[index] = member(f'"{piece}')
            if pair is None:
                return None
            if pair[0] not in _LARGE:
                if len(cache) >= _MOST_KEPT:
                    cache.clear()
                cache[piece] = pair
    values = dict(filter(None, pairs))
    return values if len(values) == len(pieces) else None


def _pair(text: str) -> tuple[str, Any] | None:
    """Name and value of one member, or None where the text is not exactly one."""
    try:
        values = parse_json(f"{{{text}}}")
    except ValueError:
        return None
    if len(values) != 1:
        return None
    return next(iter(values.items()))


def _as_it_is(name: str, value: Any) -> Any:
    """For names that a record does not have: check_names refuses them."""
    del name
    return value
