"""Reader of the IDX format, the file format of MNIST and of its drop-in replacements.

Source of the layout: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten
digits", section "The IDX file format": two zero bytes, one byte for the element type, one byte for
the number of dimensions, one big-endian 32-bit size per dimension, and the elements in C order.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qspinn.data.arrays import read_up_to, require_regular

ELEMENT_TYPES: dict[int, str] = {
    0x08: "u1",
    0x09: "i1",
    0x0B: ">i2",
    0x0C: ">i4",
    0x0D: ">f4",
    0x0E: ">f8",
}
"""IDX type byte -> NumPy type (IDX is big-endian)."""


MOST_DIMENSIONS = 32
MOST_BYTES = 1 << 31
"""Unpacked: the images of MNIST have 47 million."""
LONGEST_HEADER = 4 + 4 * MOST_DIMENSIONS
GZIP = b"\x1f\x8b"


class IDXError(ValueError):
    """The file is not a complete IDX file; the message names the file and what is wrong."""


def read_idx(path: str | Path) -> npt.NDArray[np.generic]:
    """Reads an IDX file, plain or gzip-compressed (known by its content, not by its name).

    Args:
        path: The file.

    Returns:
        A writable array in the machine's byte order, with the shape that the file states.

    Raises:
        FileNotFoundError: There is no such file.
        IDXError: Wrong magic number, unknown element type, or a length other than the header says.
    """
    path = Path(path)
    return parse_idx(_read_bytes(path), source=str(path))


def parse_idx(content: bytes, source: str = "IDX data") -> npt.NDArray[np.generic]:
    """Decodes the (uncompressed) bytes of an IDX file.

    Args:
        content: The whole file.
        source: What to call the data in an error.

    Returns:
        A writable array in the machine's byte order.

    Raises:
        IDXError: Wrong magic number, unknown element type, or a length other than the header says.
    """
    shape, dtype = _header(content, source)
    expected = _expected(content, source)
    if len(content) != expected:
        least = "at least " if len(content) > expected else ""  # the rest is not read
        raise IDXError(
            f"{source}: {least}{len(content)} bytes, but the header (shape {shape}, {dtype.name}) "
            f"asks for {expected}: the file is damaged; copy or download it again"
        )
    array = np.frombuffer(content, dtype=dtype, offset=4 + 4 * len(shape)).reshape(shape)
    return array.astype(dtype.newbyteorder("="))


def _header(content: bytes, source: str) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Shape and type of the elements, from the first bytes of a file."""
    if len(content) < 4:
        raise IDXError(f"{source}: {len(content)} bytes are too few for an IDX header (4 or more)")
    zero, type_byte, dimensions = struct.unpack(">HBB", content[:4])
    if zero != 0 or type_byte not in ELEMENT_TYPES:
        raise IDXError(
            f"{source}: not an IDX file: it begins with 0x{content[:4].hex()}, expected 0000, "
            f"a type byte of {', '.join(f'{known:02x}' for known in ELEMENT_TYPES)}, and the "
            "number of dimensions"
        )
    if dimensions > MOST_DIMENSIONS:
        raise IDXError(f"{source}: {dimensions} dimensions, at most {MOST_DIMENSIONS} are known")
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise IDXError(f"{source}: the header of {dimensions} dimensions is cut off")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    if math.prod(filter(None, shape)) > sys.maxsize // 8:  # NumPy refuses them, empty or not
        raise IDXError(f"{source}: a shape of {shape} is too large: the file is damaged")
    return shape, np.dtype(ELEMENT_TYPES[type_byte])


def _read_bytes(path: Path) -> bytes:
    require_regular(path, IDXError)
    with open(path, "rb") as file:
        begin = file.read(LONGEST_HEADER)
        if begin[:2] != GZIP:
            size = min(_expected(begin, str(path)), os.fstat(file.fileno()).st_size)
            file.seek(0)
            return file.read(size + 1)  # one more byte says that there is more
        file.seek(0)
        try:
            with gzip.GzipFile(fileobj=file) as unpacked:
                begin = unpacked.read(LONGEST_HEADER)
                rest = _expected(begin, str(path)) + 1 - len(begin)
                return begin + read_up_to(unpacked, rest)
        except (EOFError, OSError, zlib.error) as error:
            raise IDXError(
                f"{path}: damaged gzip file ({error}), copy or download it again"
            ) from error


def _expected(content: bytes, source: str) -> int:
    """Bytes of the whole file, by its header."""
    shape, dtype = _header(content, source)
    expected = 4 + 4 * len(shape) + math.prod(shape) * dtype.itemsize
    if expected > MOST_BYTES:
        raise IDXError(
            f"{source}: the header (shape {shape}, {dtype.name}) asks for {expected:,} bytes, at "
            f"most {MOST_BYTES:,} are read: the file is damaged, or no such data set"
        )
    return expected
