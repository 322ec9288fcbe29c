"""Fingerprints of the files or arrays of a data set, independent of their location."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["MOST_DIGESTED", "array_fingerprint", "content_fingerprint", "file_digest"]

MOST_DIGESTED = 256 << 20
"""Bytes of a data set that are read, about a third of a second, to see whether they changed."""


def content_fingerprint(
    files: Iterable[Path], root: Path, most_digested: int = MOST_DIGESTED
) -> str:
    """Return a fingerprint that changes when a file is added, removed, renamed or changed.

    Small data sets are digested as a whole: a copy elsewhere has the same fingerprint. Of larger
    ones names, sizes and times of change count, so that a copy may have another one.

    Args:
        files: Each below ``root``.
        root: The folder of the data set; only what follows it in a name counts.
        most_digested: Bytes in all up to which contents are read.

    Returns:
        ``content-`` or ``files-``, and 64 hexadecimal digits.

    Raises:
        OSError: A file is gone or cannot be read.
    """
    named = sorted((path.relative_to(root).as_posix(), path) for path in files)
    states = [path.stat() for _, path in named]
    is_small = sum(state.st_size for state in states) <= most_digested
    digest = hashlib.sha256()
    for (name, path), state in zip(named, states, strict=True):
        about = [os.fsencode(name).hex(), str(state.st_size)]
        if is_small:
            about.append(file_digest(path))
        else:
            about.append(str(state.st_mtime_ns))
        digest.update((" ".join(about) + "\n").encode())
    return f"{'content' if is_small else 'files'}-{digest.hexdigest()}"


def file_digest(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def array_fingerprint(*arrays: npt.NDArray[np.generic]) -> str:
    """Return a text that changes when an array does: ``content-`` and 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return f"content-{digest.hexdigest()}"
