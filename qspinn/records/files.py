"""Files that may hold anything: read only if they are files, of a size that makes sense."""

from __future__ import annotations

import os
import stat

MOST_BYTES = 64 << 20
"""Of a record: one of a network with 10,000 layers has about 10 MiB."""


def read_regular(path: str | os.PathLike[str], most_bytes: int = MOST_BYTES) -> bytes:
    """Read a file that is one: neither a pipe, nor a device, nor larger than it can be.

    Raises:
        OSError: It cannot be read whole, or is something else; the reason is in ``strerror``.
    """
    # Opening a pipe that nobody writes to would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            raise OSError(0, "it is no regular file", os.fspath(path))
        if state.st_size > most_bytes:
            reason = f"it has {state.st_size:,} bytes, and {most_bytes:,} at most make sense"
            raise OSError(0, reason, os.fspath(path))
        content = os.read(descriptor, state.st_size)
        while len(content) < state.st_size:  # as file systems of a network may answer
            more = os.read(descriptor, state.st_size - len(content))
            if not more:
                raise OSError(0, "it became shorter while it was read", os.fspath(path))
            content += more
        return content
    finally:
        os.close(descriptor)
