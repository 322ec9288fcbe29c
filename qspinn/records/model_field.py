"""What a record may say of the device model that a run saved."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any

from qspinn.records.validation import fail, integer, mapping, number, plain, text

__all__ = ["check_device_model", "check_inside"]

_HASH = re.compile(r"[0-9a-f]{64}")
_SIZES = ("file_bytes", "header_bytes", "payload_bits", "padding_bits")
_COUNTS = (
    *(*_SIZES, "tensor_bits", "table_bits", "state_bits", "buffer_bits", "accumulator_bits"),
    "verified_samples",
)


def check_inside(name: str, value: Any) -> str:
    """A path relative to the record's folder that does not lead out of it."""
    path = PurePath(text(name, value))
    if path.is_absolute() or ".." in path.parts or "\\" in value:
        raise fail(name, value, "a path relative to the record's folder, with forward slashes")
    return str(value)


def check_device_model(name: str, value: object) -> dict[str, Any]:
    """Return a copy of plain types.

    Either `refused` says why there is none, or `file` and `sha256` name the file; a table of runs
    knows its size only. What else is known is checked, and may be missing: `difference` says
    where the model differs from the network (null: nowhere on `verified_samples` samples), and
    `learning_refused` why it does not say how a network goes on learning that learns by itself.
    """
    given: dict[str, Any] = plain(name, mapping(name, value))
    if "refused" in given:
        text(f"{name}.refused", given["refused"])
        if "file" in given:
            raise fail(f"{name}.file", given["file"], "no file, because there is a refusal")
        return given
    if "file" in given:
        check_inside(f"{name}.file", given["file"])
        if not _HASH.fullmatch(text(f"{name}.sha256", given.get("sha256"))):
            raise fail(f"{name}.sha256", given["sha256"], "64 hexadecimal digits")
    elif "file_bytes" not in given:
        raise fail(name, value, "a mapping with file and sha256, or with refused")
    for key in _COUNTS:
        if key in given:
            integer(f"{name}.{key}", given[key], 0)
    if given.keys() >= set(_SIZES):
        expected = 8 * given["file_bytes"] - given["payload_bits"] - given["padding_bits"]
        if 8 * given["header_bytes"] != expected:
            raise fail(f"{name}.header_bytes", given["header_bytes"], f"{expected / 8:g}")
    if "activation_sparsity" in given:
        number(f"{name}.activation_sparsity", given["activation_sparsity"], 0.0, 1.0)
    if given.get("difference") is not None:
        text(f"{name}.difference", given["difference"])
    if "learning_refused" in given:
        text(f"{name}.learning_refused", given["learning_refused"])
    lines = given.get("lines", [])
    if not isinstance(lines, list):
        raise fail(f"{name}.lines", lines, "a list of texts")
    for index, line in enumerate(lines):
        text(f"{name}.lines[{index}]", line)
    return given
