"""Files of unknown origin: what they say of their sizes is checked before memory is taken."""

from __future__ import annotations

import gzip
import math
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import numpy.typing as npt

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
MOST_BYTES = 256 << 20
"""Of one array: a recording of 32 million events has times of so many bytes."""
PIECE = 1 << 20
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What NumPy and the data sets use. Of the others zipfile unpacks any amount at once."""


BUFFER = 1 << 20
MOST_ATTRIBUTES = 1 << 20
"""Bytes of a long name or of the attributes of a file, which have some hundreds."""
_LONG_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
Read = TypeVar("Read")


class ArrayError(ValueError):
    """The file is no such array; says what is wrong, and does not name the file."""


def read_arrays(path: Path, names: Iterable[str]) -> dict[str, npt.NDArray[Any]]:
    """Read arrays of an ``.npz`` file.

    Args:
        path: The file.
        names: Of the arrays, without ``.npy``; others in the file are not looked at.

    Raises:
        ArrayError: It is no whole file of arrays, one is missing, or larger than it can be.
    """
    check_regular(path)
    with _whole(".npz"), zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        missing = [name for name in names if f"{name}.npy" not in members]
        if missing:
            raise ArrayError(f"found no {', '.join(missing)}")
        return {name: _member(archive, members[f"{name}.npy"]) for name in names}


def read_array(path: Path) -> npt.NDArray[Any]:
    """Read an ``.npy`` file.

    Raises:
        ArrayError: It is no whole array, or larger than it can be.
    """
    check_regular(path)
    with _whole(".npy"), open(path, "rb") as file:
        return _array(file, os.fstat(file.fileno()).st_size)


@contextmanager
def _whole(kind: str) -> Iterator[None]:
    try:
        yield
    except ArrayError:
        raise
    except Exception as error:  # of zipfile, zlib, struct, NumPy: a damaged file raises many kinds
        raise ArrayError(f"not a whole {kind} file ({reason_of(error)})") from error


def check_regular(path: Path) -> None:
    """Check that a path is a regular file: reading from a pipe would block.

    Raises:
        ArrayError: It is something else, or not there.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise ArrayError(f"it cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(mode):
        raise ArrayError("it is no regular file")


def require_regular(path: Path, refused: type[ValueError]) -> None:
    """The same, with the file named in the errors.

    Raises:
        FileNotFoundError: There is none.
        ValueError: Of the kind ``refused``: it is something else.
    """
    try:
        check_regular(path)
    except ArrayError as error:
        if not path.exists():
            raise FileNotFoundError(f"{path}: there is no such file") from None
        raise refused(f"{path}: {error}") from None


def read_up_to(file: IO[bytes] | gzip.GzipFile, size: int) -> bytearray:
    """Read so many bytes, or to the end: memory grows with what is there, not with ``size``."""
    content = bytearray()
    while len(content) < size and (piece := file.read(min(PIECE, size - len(content)))):
        content += piece
    return content


def open_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> IO[bytes]:
    """Open a file of a zip archive that unpacks to no more bytes than it says.

    Args:
        archive: The archive.
        info: Of the file.
        most: Bytes that it may have.

    Raises:
        ArrayError: It says that it has more, or is compressed in an unusual way.
        Exception: zipfile raises many kinds on a damaged archive, here and while it is read.
    """
    if info.file_size > most:
        raise ArrayError(f"{info.filename} says that it has {info.file_size:,} bytes")
    if info.compress_type not in _COMPRESSIONS:
        raise ArrayError(f"{info.filename} is compressed by method {info.compress_type}")
    return archive.open(info)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> npt.NDArray[Any]:
    with open_member(archive, info, MOST_BYTES) as member:
        return _array(member, info.file_size)


def _array(file: IO[bytes], size: int) -> npt.NDArray[Any]:
    """The array of a stream of so many bytes, of which nothing is read before they are checked."""
    start = file.tell()
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ArrayError(f"its version is {version}")
    shape, is_fortran, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ArrayError("it holds objects, which could be programs")
    if any(length < 0 for length in shape):
        raise ArrayError(f"its shape is {shape}")
    count = math.prod(shape)
    wanted, there = count * dtype.itemsize, size - (file.tell() - start)
    if wanted != there:
        raise ArrayError(f"{dtype} {list(shape)} takes {wanted:,} bytes, and there are {there:,}")
    if wanted > MOST_BYTES:
        raise ArrayError(f"{wanted:,} bytes are more than an array has here")
    content = read_up_to(file, wanted)
    if len(content) != wanted or file.read(1):  # the end: a zip file compares its checksum there
        raise ArrayError(f"it has {len(content):,} of {wanted:,} bytes, or more than it says")
    flat = np.frombuffer(content, dtype, count)
    return flat.reshape(shape, order="F" if is_fortran else "C")


def reason_of(error: Exception) -> str:
    """The type and the first line of an error: some messages mean nothing without the type."""
    text = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class _BoundedInfo(tarfile.TarInfo):
    """Refuses names and attributes that are too long to be such: tarfile reads them whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _BoundedInfo:
        info = super().frombuf(buf, encoding, errors)
        if info.size < 0 or (info.type in _LONG_HEADERS and info.size > MOST_ATTRIBUTES):
            raise tarfile.ReadError(f"a header says that {info.size:,} bytes follow")
        return info


def open_tar(content: gzip.GzipFile) -> tarfile.TarFile:
    """Open a stream of an unpacked tar archive; close it as a context manager.

    Raises:
        tarfile.TarError: Its first header is damaged.
    """
    return _understood(
        lambda: tarfile.open(fileobj=content, mode="r|", bufsize=BUFFER, tarinfo=_BoundedInfo)
    )


def next_header(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    """Read the next header; None: the end of the archive.

    Raises:
        tarfile.TarError: It is damaged.
    """
    return _understood(tar.next)


def _understood(read: Callable[[], Read]) -> Read:
    """What ``read`` gives; a damaged header makes tarfile raise other kinds as well."""
    try:
        return read()
    except (ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise tarfile.ReadError(reason_of(error)) from None
