"""The header of a model file: a safetensors header whose first bytes are always the same.

``docs/model_file.md`` describes it byte by byte. Nothing here reads a file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from qspinn.export.errors import FindingError
from qspinn.export.json_values import json_text, parse_json
from qspinn.export.packed_tensor import PackedTensor, check_shape
from qspinn.export.packing import check_word, packed_bytes

__all__ = [
    "CHECKSUM",
    "FORMAT",
    "LENGTH_BYTES",
    "MOST_HEADER_BYTES",
    "START",
    "UNSEALED",
    "VERSION",
    "Header",
    "TensorEntry",
    "build_header",
    "check_version",
    "parse_header",
]

FORMAT = "qspinn-device-model"
VERSION = 1
LENGTH_BYTES = 8
"""In front of the header, little-endian: how long it is."""
MOST_HEADER_BYTES = 8 << 20
"""Of the header: tensors hold what is large."""
UNSEALED = b"0" * 64
"""What stands in place of the checksum while it is computed."""
START = b'{"__metadata__":{"sha256":"'
"""The first bytes of the header, before the checksum."""
CHECKSUM = slice(LENGTH_BYTES + len(START), LENGTH_BYTES + len(START) + len(UNSEALED))
"""Where the hexadecimal digits of the checksum are in the file."""

_BEGINNING = re.compile(
    re.escape(START) + rb'[0-9a-f]{64}","format":"' + FORMAT.encode() + rb'","version":"(\d{1,9})",'
)
_METADATA = ("sha256", "format", "version", "header", "tensors")
_LONGEST_NAME = 200


@dataclass(frozen=True)
class TensorEntry:
    """What the header says about a tensor.

    Attributes:
        shape: Dimensions.
        word_length: Bits of a code.
        signed: Whether codes are in two's complement.
        size: Bytes that the codes take.
    """

    shape: tuple[int, ...]
    word_length: int
    signed: bool
    size: int


@dataclass(frozen=True)
class Header:
    """A header that was checked.

    Attributes:
        model: The header of the model, plain JSON values.
        tensors: By name, in the order of their bytes.
    """

    model: dict[str, Any]
    tensors: dict[str, TensorEntry]


def build_header(model: Mapping[str, Any], tensors: Mapping[str, PackedTensor]) -> bytes:
    """The header with its length in front and zeros for the checksum: all before the data.

    Raises:
        TypeError: Something in `model` is no JSON value, or a name is no str.
        ValueError: It is too large or too deep, or a name of a tensor cannot be.
    """
    entries: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        _check_name(name)
        begin, end = end, end + len(tensor.data)
        entries[name] = {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
    words = {
        name: {
            "shape": list(tensor.shape),
            "word_length": tensor.word_length,
            "signed": tensor.signed,
        }
        for name, tensor in tensors.items()
    }
    metadata = {
        "sha256": UNSEALED.decode(),
        "format": FORMAT,
        "version": str(VERSION),
        "header": json_text(dict(model)),
        "tensors": json_text(words),
    }
    text = json_text({"__metadata__": metadata, **entries}).encode("ascii")
    text += b" " * (-(LENGTH_BYTES + len(text)) % 8)
    if len(text) > MOST_HEADER_BYTES:
        raise ValueError(
            f"the header takes {len(text):,} bytes, and at most {MOST_HEADER_BYTES:,} are read; "
            f"store what is large as tensors"
        )
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def check_version(start: bytes) -> None:
    """See that a file begins as a model does, and is of the version that is read here.

    Args:
        start: The first bytes of the file, at least 256 if it has as many.

    Raises:
        FindingError: It is not.
    """
    beginning = _BEGINNING.match(start, LENGTH_BYTES)
    if beginning is None:
        raise FindingError(f"its header does not begin as that of a {FORMAT}")
    version = int(beginning[1])
    if version != VERSION or beginning[1] != str(VERSION).encode():
        raise FindingError(
            f"it is of version {version}, and this qspinn reads version {VERSION}",
            "read it with the version of qspinn that wrote it, or export the model again with this "
            "one",
        )


def parse_header(start: bytes, data_bytes: int) -> Header:
    """Check a header completely.

    Args:
        start: The header with its length in front, as long as that says.
        data_bytes: Bytes of the file after the header.

    Raises:
        FindingError: Anything in it is not as `build_header` writes it, or the tensors do not cover
            the data exactly.
    """
    check_version(start)
    end = start.rfind(b"}") + 1
    if len(start) % 8 or len(start) - end > 7 or start[end:].strip(b" "):
        raise FindingError("its header does not end with } and as few spaces as align the data")
    try:
        everything = parse_json(str(memoryview(start)[LENGTH_BYTES:end], "ascii"))
        metadata = _members(everything.pop("__metadata__"), _METADATA, "__metadata__")
        if not all(type(value) is str for value in metadata.values()):
            raise ValueError("a value of __metadata__ is no text")
        model, words = parse_json(metadata["header"]), parse_json(metadata["tensors"])
        if type(model) is not dict:
            raise ValueError("the header of the model is no object")
        if type(words) is not dict or words.keys() != everything.keys():
            raise ValueError("not every tensor has a word length, or the other way around")
        tensors = {name: _entry(name, words[name], item) for name, item in everything.items()}
        _check_offsets((everything[name]["data_offsets"], tensors[name].size) for name in tensors)
    except (ValueError, TypeError) as error:
        raise FindingError(f"its header is damaged ({error})") from error
    claimed = sum(entry.size for entry in tensors.values())
    if claimed != data_bytes:
        kind = "the end is missing" if claimed > data_bytes else "something follows after the end"
        raise FindingError(
            f"its tensors take {claimed:,} bytes, and {data_bytes:,} follow the header: {kind}"
        )
    return Header(model, tensors)


def _entry(name: str, word: Any, stored: Any) -> TensorEntry:
    """What is said about a tensor in both places, which have to agree."""
    _check_name(name)
    word = _members(word, ("shape", "word_length", "signed"), name)
    stored = _members(stored, ("dtype", "shape", "data_offsets"), name)
    shape = _integers(word["shape"], name)
    check_shape(tuple(shape))
    check_word(word["word_length"], word["signed"])
    if stored["dtype"] != "U8":
        raise ValueError(f"the dtype of {name!r} is {stored['dtype']!r:.80}, and not U8")
    size = packed_bytes(math.prod(shape), word["word_length"])
    if _integers(stored["shape"], name) != [size]:
        raise ValueError(
            f"{name!r} of the shape {shape} and {word['word_length']} bits takes {size} bytes, and "
            f"its entry says {stored['shape']!r:.80}"
        )
    return TensorEntry(tuple(shape), word["word_length"], word["signed"], size)


def _check_offsets(ranges: Iterable[tuple[Any, int]]) -> None:
    end = 0
    for offsets, size in ranges:
        begin, end = end, end + size
        if offsets != [begin, end] or not all(type(offset) is int for offset in offsets):
            raise ValueError(
                f"a tensor has the offsets {offsets!r:.80}, and [{begin}, {end}] is next"
            )


def _members(value: Any, names: tuple[str, ...], place: str) -> dict[str, Any]:
    if type(value) is not dict or value.keys() != set(names):
        raise ValueError(f"the members of {place!r} are not {', '.join(names)}")
    return value


def _integers(value: Any, name: str) -> list[int]:
    if type(value) is not list or not all(type(item) is int for item in value):
        raise ValueError(f"a shape of {name!r} is no list of integers")
    return value


def _check_name(name: str) -> None:
    if type(name) is not str:
        raise TypeError(f"the name {name!r:.80} of a tensor is no str")
    if not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable() or name == "__metadata__":
        raise ValueError(
            f"{name!r:.80} cannot be the name of a tensor; give 1 to {_LONGEST_NAME} printable "
            f"characters, and not __metadata__"
        )
