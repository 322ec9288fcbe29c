"""A second reader of model files, and a writer that writes whatever it is told to.

Both are made from docs/model_file.md alone, with Python's integers.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tests.reference.packed_bits import unpacked

FIRST_DIGIT = 35
ZEROS = b"0" * 64


def read(content: bytes) -> tuple[dict[str, Any], dict[str, tuple[list[int], list[int]]]]:
    """The model's header, and of each tensor its shape and its codes in one list."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__")
    assert metadata["sha256"] == digest(content)
    tensors = {}
    for name, word in json.loads(metadata["tensors"]).items():
        begin, end = header[name]["data_offsets"]
        count = 1
        for size in word["shape"]:
            count *= size
        data = content[8 + length + begin : 8 + length + end]
        codes = unpacked(data, word["word_length"], word["signed"], count)
        tensors[name] = (word["shape"], codes)
    return json.loads(metadata["header"]), tensors


def digest(content: bytes) -> str:
    sealed = content[:FIRST_DIGIT] + ZEROS + content[FIRST_DIGIT + 64 :]
    return hashlib.sha256(sealed).hexdigest()


def resealed(content: bytes) -> bytes:
    """The file with the checksum that belongs to it, as somebody would who wants it to be read."""
    if len(content) < FIRST_DIGIT + 64:
        return content
    return content[:FIRST_DIGIT] + digest(content).encode() + content[FIRST_DIGIT + 64 :]


def written(
    entries: dict[str, Any] | str,
    words: dict[str, Any] | str,
    data: bytes,
    model: str = "{}",
    **others: str,
) -> bytes:
    """A file with a valid checksum and anything as its contents; texts are taken as they are."""
    metadata = {
        "sha256": ZEROS.decode(),
        "format": "qspinn-device-model",
        "version": "1",
        "header": model,
        "tensors": words if isinstance(words, str) else json.dumps(words),
        **others,
    }
    text = '{"__metadata__":' + json.dumps(metadata, separators=(",", ":"))
    inside = entries if isinstance(entries, str) else json.dumps(entries)[1:-1]
    text += (f",{inside}" if inside else "") + "}"
    header = text.encode()
    header += b" " * (-len(header) % 8)
    return resealed(len(header).to_bytes(8, "little") + header + data)
