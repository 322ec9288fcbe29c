"""Writing a file so that a reader sees all of it, or what was there before."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path

__all__ = ["write_bytes"]


def write_bytes(content: bytes, path: str | os.PathLike[str]) -> Path:
    """Write a file, all of it or nothing; folders are made.

    The content goes to a temporary file in the same folder, is forced to the disk and then renamed
    over `path`.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(target)  # which a write to an open file does not say
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    return target
