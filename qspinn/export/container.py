"""The file ``model.qspinn``: the header of a device model, and its packed tensors.

A safetensors file of one kind, described byte by byte in ``docs/model_file.md``. Reading it runs
nothing, and takes memory only for what was checked to be there.

Example:
    >>> import numpy as np, tempfile
    >>> from pathlib import Path
    >>> weight = PackedTensor(np.array([[1, -2, 3]]), word_length=3, signed=True)
    >>> path = Path(tempfile.mkdtemp()) / "model.qspinn"
    >>> sizes = write_container(path, {"operations": ["linear"]}, {"weight": weight})
    >>> sizes.payload_bits, sizes.padding_bits
    (9, 7)
    >>> header, tensors = read_container(path)
    >>> header, tensors["weight"].codes.tolist()
    ({'operations': ['linear']}, [[1, -2, 3]])
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

from qspinn.atomic import write_bytes
from qspinn.export.errors import DamagedModelError, FindingError
from qspinn.export.layout import (
    CHECKSUM,
    LENGTH_BYTES,
    MOST_HEADER_BYTES,
    UNSEALED,
    build_header,
    parse_header,
)
from qspinn.export.opening import check_beginning, open_regular
from qspinn.export.packed_tensor import PackedTensor

__all__ = [
    "MODEL_NAME",
    "ContainerSizes",
    "DamagedModelError",
    "PackedTensor",
    "checksum",
    "read_container",
    "write_container",
]

MODEL_NAME = "model.qspinn"
_BLOCK = 1 << 20

_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class ContainerSizes:
    """Where the bits of a model file are: ``8 * file_bytes`` is the sum of the other three.

    Attributes:
        file_bytes: Of the whole file.
        header_bytes: Everything in front of the tensors.
        payload_bits: Of the codes: the sum of count times word length.
        padding_bits: Which complete the last byte of each tensor.
    """

    file_bytes: int
    header_bytes: int
    payload_bits: int
    padding_bits: int

    def __post_init__(self) -> None:
        total = 8 * self.header_bytes + self.payload_bits + self.padding_bits
        if 8 * self.file_bytes != total:
            raise ValueError(
                f"the file has {8 * self.file_bytes} bits, and its parts have {total}; give the "
                f"sizes of one file"
            )


def write_container(
    path: str | os.PathLike[str], header: Mapping[str, Any], tensors: Mapping[str, PackedTensor]
) -> ContainerSizes:
    """Write a model file, all of it or nothing; folders are made.

    The same arguments, in the same order, give the same bytes.

    Args:
        path: The file; one that is there is replaced.
        header: JSON values: dict, list, str, int of 64 bits, finite float, bool, None.
        tensors: By name, in the order in which they are stored.

    Returns:
        The sizes of what was written.

    Raises:
        TypeError: Something in `header` is no JSON value, or in `tensors` no `PackedTensor`.
        ValueError: `header` is too large or too deep, or a name of a tensor cannot be.
        OSError: The file cannot be written.
    """
    for name, tensor in tensors.items():
        if not isinstance(tensor, PackedTensor):
            raise TypeError(
                f"the tensor {name!r:.80} is of type {type(tensor).__name__}; give a PackedTensor"
            )
    start = build_header(header, tensors)
    data = [tensor.data for tensor in tensors.values()]
    parse_header(start, sum(map(len, data)))  # what is written can be read
    digest = hashlib.sha256(start)
    for part in data:
        digest.update(part)
    sealed = start[: CHECKSUM.start] + digest.hexdigest().encode() + start[CHECKSUM.stop :]
    content = b"".join([sealed, *data])
    write_bytes(content, path)
    return ContainerSizes(
        file_bytes=len(content),
        header_bytes=len(start),
        payload_bits=sum(tensor.payload_bits for tensor in tensors.values()),
        padding_bits=sum(tensor.padding_bits for tensor in tensors.values()),
    )


def read_container(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Any], dict[str, PackedTensor]]:
    """Read a model file and check every byte of it.

    Takes memory for the tensors as they are packed, and for a header of at most 8 MiB.

    Returns:
        The header and the tensors, both in the order in which they were written.

    Raises:
        DamagedModelError: The file is missing, is something else, or is not exactly what was
            written; the message says which, and what to do.
    """
    return _reading(path, _read)


def checksum(path: str | os.PathLike[str]) -> str:
    """The SHA-256 that a model file holds, after comparing it with the contents.

    It identifies a model in a record of a run. Everything but itself is covered; see
    ``docs/model_file.md``. The contents are checked by `read_container`.

    Returns:
        64 hexadecimal digits.

    Raises:
        DamagedModelError: The file is missing, is no model file, or has changed.
    """
    return _reading(path, _checksum)


def _reading(path: str | os.PathLike[str], read: Callable[[BinaryIO, int], _Result]) -> _Result:
    """What is read of an open file and its size, with every error as one that names the file."""
    try:
        with open_regular(path) as file:
            return read(file, os.fstat(file.fileno()).st_size)
    except FindingError as error:
        raise DamagedModelError(f"{path}: {error}") from error
    except MemoryError as error:
        raise DamagedModelError(
            f"{path}: it needs more memory than there is; read it on a larger machine"
        ) from error
    except OSError as error:
        raise DamagedModelError(
            f"{path}: it cannot be read ({error.strerror or error}); check its permissions and disk"
        ) from error


def _read(file: BinaryIO, size: int) -> tuple[dict[str, Any], dict[str, PackedTensor]]:
    start = _start(file, size)
    header = parse_header(start, size - len(start))
    digest = _digest_of(start)
    packed = {}
    for name, entry in header.tensors.items():
        packed[name] = _exactly(file, entry.size)
        digest.update(packed[name])
    if file.read(1):
        raise FindingError("it became longer while it was read")
    _compare(start, digest.hexdigest())
    tensors = {}
    for name, entry in header.tensors.items():
        try:
            tensors[name] = PackedTensor.from_packed(
                packed[name], entry.shape, entry.word_length, entry.signed
            )
        except ValueError as error:
            raise FindingError(f"its tensor {name!r} is damaged ({error})") from error
    return header.model, tensors


def _checksum(file: BinaryIO, size: int) -> str:
    start = _start(file, size)
    digest = _digest_of(start)
    while block := file.read(_BLOCK):
        digest.update(block)
    return _compare(start, digest.hexdigest())


def _start(file: BinaryIO, size: int) -> bytes:
    """Everything in front of the tensors: the length of the header, and the header."""
    beginning = file.read(min(size, 4096))
    claimed = int.from_bytes(beginning[:LENGTH_BYTES], "little")
    check_beginning(beginning, claimed, size)
    if claimed > size - LENGTH_BYTES:
        raise FindingError(
            f"it says that its header has {claimed:,} bytes, and {size - LENGTH_BYTES:,} follow: "
            f"the end is missing"
        )
    if claimed > MOST_HEADER_BYTES:
        raise FindingError(
            f"it says that its header has {claimed:,} bytes, and at most {MOST_HEADER_BYTES:,} are "
            f"read"
        )
    file.seek(0)
    return _exactly(file, LENGTH_BYTES + claimed)


def _exactly(file: BinaryIO, count: int) -> bytes:
    content = file.read(count)
    if len(content) != count:
        raise FindingError("it became shorter while it was read")
    return content


def _digest_of(start: bytes) -> Any:
    """The SHA-256 of what is in front of the tensors, with zeros in place of the checksum."""
    digest = hashlib.sha256(start[: CHECKSUM.start])
    digest.update(UNSEALED)
    digest.update(start[CHECKSUM.stop :])
    return digest


def _compare(start: bytes, computed: str) -> str:
    stored = start[CHECKSUM].decode()
    if computed != stored:
        raise FindingError(
            f"its contents have changed since they were written: their SHA-256 is {computed}, and "
            f"the file says {stored}"
        )
    return stored
