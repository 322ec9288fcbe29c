"""Fingerprints of the files or arrays of a data set, and digests of a cache of its frames."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qspinn.data.arrays import check_regular

MOST_DIGESTED = 256 << 20
"""Bytes of a data set that are read, about a third of a second, to see whether they changed."""
FRAMES, DIGESTS, SETTINGS = "frames.npy", "sha256.json", "settings.json"
SMALL_FILES = (SETTINGS, "labels.npy", "is_test.npy", "groups.npy")
MOST_BYTES = 1 << 16
"""Of the file of digests, which has a few hundred."""
_TIME = "time of frames.npy"


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


def write_digests(folder: Path) -> None:
    """Note SHA-256 of each file of a complete cache, and when its frames were written."""
    digests = {name: file_digest(folder / name) for name in (*SMALL_FILES, FRAMES)}
    digests[_TIME] = str((folder / FRAMES).stat().st_mtime_ns)
    (folder / DIGESTS).write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")


def check_digests(folder: Path, settings: str) -> None:
    """Check that the files are unchanged, and belong to the given settings.

    Frames of more than :data:`MOST_DIGESTED` bytes are digested, about 1.3 s/GB, only if their time
    of change is not the one that was noted when they were written: they were copied, or changed by
    hand.

    Args:
        folder: The cache.
        settings: What ``settings.json`` must say.

    Raises:
        ValueError: A file is gone, no file, or has changed, or the settings are others.
        OSError: A file cannot be read.
        Exception: Any kind, from a damaged file of digests.
    """
    for name in (*SMALL_FILES, FRAMES, DIGESTS):
        check_regular(folder / name)
    content, path = settings.encode(), folder / SETTINGS
    if path.stat().st_size != len(content) or path.read_bytes() != content:
        raise ValueError(f"{SETTINGS} says other settings")
    if (folder / DIGESTS).stat().st_size > MOST_BYTES:
        raise ValueError(f"{DIGESTS} is too large")
    digests = json.loads((folder / DIGESTS).read_text(encoding="utf-8"))
    state = (folder / FRAMES).stat()
    is_known = digests[_TIME] == str(state.st_mtime_ns)
    is_small = state.st_size <= MOST_DIGESTED
    for name in (*SMALL_FILES, *([FRAMES] if is_small or not is_known else [])):
        if digests[name] != file_digest(folder / name):
            raise ValueError(f"{name} has changed since it was written")
