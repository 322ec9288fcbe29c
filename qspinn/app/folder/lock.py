"""One run at a time in a folder: a lock that dies with the process that holds it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qspinn.app.folder.ownership import FolderError, regular_descriptor

LOCK_NAME = ".qspinn.lock"
SHORTEST_WAIT, LONGEST_WAIT = 0.1, 2.0  # seconds between two looks at a lock that another one has
MOST_LOOKS = 10  # at a lock whose holder does not say who it is: it is about to, or to go
MOST_BYTES = 1 << 22

# Descriptors of the locks of this process. A lock lives as long as any process has its descriptor
# open, so that children which are forked (workers of a data loader) close theirs at once.
_OPEN: set[int] = set()
_HELD = threading.local()


@dataclass(frozen=True)
class Holder:
    """The holder of a folder.

    Attributes:
        process: Its number.
        host: The machine's name.
        config: The recorded part of the configuration that it runs; None: not known.
    """

    process: int
    host: str
    config: dict[str, Any] | None = None

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


Waiting = Callable[[Holder | None], None]


def _close_in_child() -> None:
    for descriptor in _OPEN:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _OPEN.clear()
    _HELD.__dict__.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


@contextlib.contextmanager
def locked(folder: Path, config: Mapping[str, Any] | None, waiting: Waiting) -> Iterator[bool]:
    """Lock a folder; wait for its holder.

    Reentrant within a thread. Threads of one process exclude each other as processes do, and so do
    machines that share the folder, if its file system supports locks (NFS does).

    Args:
        folder: An existing folder.
        config: What others are told about the run; the recorded part of its configuration.
        waiting: Called with the :class:`Holder` (None: it has not said yet who it is) each time
            that another one has the folder, before the next try. May raise.

    Yields:
        Whether the thread did not have it before.

    Raises:
        FolderError: The file system cannot lock, or the folder cannot be written.
    """
    held = _held()
    key = os.path.realpath(folder)
    if key in held:
        yield False
        return
    descriptor, pause = _try(folder, config), SHORTEST_WAIT
    while descriptor is None:
        waiting(holder_of(folder))
        time.sleep(pause)
        descriptor, pause = _try(folder, config), min(pause * 1.3, LONGEST_WAIT)
    held.add(key)
    try:
        yield True
    finally:
        held.discard(key)
        _release(folder / LOCK_NAME, descriptor)


@contextlib.contextmanager
def try_locked(folder: Path) -> Iterator[bool]:
    """Lock a folder if it is free; yields whether it was."""

    class Taken(Exception):
        pass

    looks = 0

    def give_up(holder: Holder | None) -> None:
        nonlocal looks
        looks += 1
        if holder is not None or looks == MOST_LOOKS:
            raise Taken

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder, None, give_up))
        except Taken:
            yield False
            return
        yield True


def holder_of(folder: str | os.PathLike[str]) -> Holder | None:
    """Return the holder of a folder; None if it is free, or the holder is not known yet.

    A launcher may use this to do something else in the meantime; only the lock itself is reliable.
    """
    path = Path(folder) / LOCK_NAME
    try:
        descriptor = regular_descriptor(path, os.O_RDWR)
    except OSError:
        return None
    try:
        if _take(descriptor):
            return None
        values = json.loads(os.pread(descriptor, MOST_BYTES, 0))
        return Holder(int(values["process"]), str(values["host"]), values["config"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    finally:
        os.close(descriptor)


def _held() -> set[str]:
    """The folders that this thread has locked."""
    if not hasattr(_HELD, "folders"):
        _HELD.folders = set()
    folders: set[str] = _HELD.folders
    return folders


def _try(folder: Path, config: Mapping[str, Any] | None) -> int | None:
    """Lock a folder and write the holder into the lock file; None if it is locked already."""
    path = folder / LOCK_NAME
    try:
        descriptor = regular_descriptor(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise FolderError(
            f"{path} cannot be opened ({error.strerror or error}), and a run locks its folder; "
            "write hydra.run.dir=FOLDER with a folder that can be written"
        ) from error
    _OPEN.add(descriptor)
    try:
        # A holder deletes the lock file before it releases the lock: this may have been that file.
        if _take(descriptor) and _is_at(path, descriptor):
            holder = Holder(
                os.getpid(), socket.gethostname(), None if config is None else {**config}
            )
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(asdict(holder), default=str).encode(), 0)
            os.fsync(descriptor)  # visible to other machines
            return descriptor
    except OSError as error:
        _close(descriptor)
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL):
            raise FolderError(
                f"the file system of {folder} cannot lock files ({error.strerror}), and two runs "
                "at a time would mix their files there; write hydra.run.dir=FOLDER on another one"
            ) from error
        raise
    except BaseException:
        _close(descriptor)
        raise
    _close(descriptor)
    return None


def _take(descriptor: int) -> bool:
    """Lock an open file, unless it is locked already."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK):
            return False
        raise
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether a path still refers to the file that was opened."""
    try:
        there = os.lstat(path)
    except OSError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))


def _release(path: Path, descriptor: int) -> None:
    if descriptor in _OPEN:  # not in a child that was forked in the meantime
        if _is_at(path, descriptor):
            path.unlink(missing_ok=True)
        _close(descriptor)


def _close(descriptor: int) -> None:
    _OPEN.discard(descriptor)
    os.close(descriptor)
