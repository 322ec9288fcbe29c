"""Files that an operating system or an archiver leaves in folders of data."""

from __future__ import annotations

from pathlib import PurePath

_NAMES = frozenset({"Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir", "lost+found"})


def is_foreign(path: str | PurePath) -> bool:
    """Whether a part of a path says that the file is none of the data.

    Hidden names are (macOS adds a ``._NAME`` to each file NAME that it writes to a foreign disk or
    an archive, and a ``.DS_Store`` to each folder), and folders such as ``__MACOSX``.

    Args:
        path: Relative to the folder of the data: what is above it has any name.
    """
    parts = PurePath(path).parts
    return any(part.startswith(".") and part not in (".", "..") for part in parts) or any(
        part in _NAMES for part in parts
    )
