"""Digests of the files of a cache of frames."""

from __future__ import annotations

import json
from pathlib import Path

from qspinn.data.arrays import check_regular
from qspinn.data.fingerprint import MOST_DIGESTED, file_digest

FRAMES, DIGESTS, SETTINGS = "frames.npy", "sha256.json", "settings.json"
SMALL_FILES = (SETTINGS, "labels.npy", "is_test.npy", "groups.npy")
MOST_BYTES = 1 << 16
"""Of the file of digests, which has a few hundred."""
_TIME = "time of frames.npy"


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
