"""Headers of tar archives of unknown origin, read as a stream and without trusting their sizes."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Callable
from typing import TypeVar

from qspinn.data.arrays import reason_of

__all__ = ["next_header", "open_tar"]

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
