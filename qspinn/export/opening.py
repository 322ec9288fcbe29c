"""Files that may be anything: opened only if they are files, and named for what they look like."""

from __future__ import annotations

import codecs
import os
import stat
from typing import BinaryIO

from qspinn.export.errors import FindingError
from qspinn.export.layout import FORMAT, LENGTH_BYTES, MOST_HEADER_BYTES, START, check_version

__all__ = ["check_beginning", "open_regular"]

_CHECK_PATH = "check the path: expected a model.qspinn that qspinn wrote"


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file that is one: neither a folder, nor a pipe, nor a device.

    Raises:
        FindingError: It is missing or something else.
        OSError: It cannot be opened.
    """
    # Opening a pipe that nobody writes to would wait for ever.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise FindingError("there is no such file", _CHECK_PATH) from None
    except IsADirectoryError:
        raise FindingError("it is a folder", _CHECK_PATH) from None
    except ValueError:  # a zero byte in the name
        raise FindingError("that cannot be the name of a file", _CHECK_PATH) from None
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise FindingError("it is a folder", _CHECK_PATH)
        if not stat.S_ISREG(mode):
            raise FindingError("it is no regular file, but a pipe or a device", _CHECK_PATH)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def check_beginning(beginning: bytes, claimed: int, size: int) -> None:
    """See that a file begins as a model does.

    Args:
        beginning: The first bytes of the file, at most 4096.
        claimed: How long its header is, if it has one.
        size: Bytes of the file.

    Raises:
        FindingError: It does not; the message says what the file looks like.
    """
    header = beginning[LENGTH_BYTES:]
    if not beginning:
        raise FindingError("the file is empty")
    if header.startswith(START):
        if claimed <= min(size - LENGTH_BYTES, MOST_HEADER_BYTES):
            check_version(beginning)
        return
    if START.startswith(header) and not _is_text(beginning):
        raise FindingError(f"it ends after {size} bytes, within its header")
    if header[:1] == b"{" and claimed <= size - LENGTH_BYTES:
        if FORMAT.encode() in header:
            raise FindingError(
                "its header was rewritten by another program, so its checksum cannot be verified",
                "use the file as qspinn wrote it",
            )
        raise FindingError("it is a safetensors file, but not of a device model", _CHECK_PATH)
    raise FindingError(f"it is no model, but {_kind(beginning)}", _CHECK_PATH)


def _kind(beginning: bytes) -> str:
    if beginning.startswith(b"version https://git-lfs"):
        return "the pointer of Git LFS to a file (git lfs pull gets it)"
    if beginning.startswith(b"PK\x03\x04"):
        return "a ZIP archive, as a checkpoint of PyTorch is"
    if _is_text(beginning):
        return f"a text file that begins with {beginning[:40].decode(errors='ignore')!r}"
    return f"something that begins with the bytes {beginning[:8].hex(' ')}"


def _is_text(beginning: bytes) -> bool:
    try:  # which may end within a character
        text = codecs.getincrementaldecoder("utf-8")().decode(beginning)
    except UnicodeDecodeError:
        return False
    return bool(text) and all(
        character.isprintable() or character in "\t\n\r\f" for character in text
    )
