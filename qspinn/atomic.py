"""Atomic writing of files and folders: the one part that every package may import."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_file(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a path beside ``target`` to write to, which is renamed to ``target`` in the end.

    If the block raises, what was written is removed and ``target`` stays as it was. Folders are
    made.
    """
    target = Path(target)
    temporary = _beside(target)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        # An error of an open file has no name; one without a number would lose its text for it.
        if error.filename is None and error.errno is not None:
            error.filename = str(target)
        raise
    finally:
        with suppress(OSError):  # the first error is the one to show
            temporary.unlink(missing_ok=True)


def write_text(text: str, path: str | os.PathLike[str]) -> Path:
    """Write a text as UTF-8, all of it or nothing; folders are made."""
    return write_bytes(text.encode("utf-8"), path)


def write_bytes(content: bytes, path: str | os.PathLike[str]) -> Path:
    """Write a file, all of it or nothing; folders are made."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)
    return Path(path)


@contextmanager
def write_once_folder(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields an empty folder to fill, which is renamed to ``target`` in the end.

    Of several processes that make the same folder, the first one wins and the others discard
    theirs: ``target`` is never incomplete, and never changes once it exists. If the block raises,
    what was written is removed.
    """
    target = Path(target)
    temporary = _beside(target)
    temporary.mkdir()
    try:
        yield temporary
        for path in temporary.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        try:
            os.rename(temporary, target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _beside(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
