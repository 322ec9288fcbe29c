"""The errors that the application shows as a message instead of a traceback."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import InstantiationException

from qspinn.records import printable_lines

__all__ = [
    "ConfigurationError",
    "RunError",
    "is_full",
    "is_message",
    "naming",
    "print_error",
    "storage_trouble",
]

PACKAGE = Path(__file__).resolve().parents[1]

# What a file system says that is full, or that may not be written to.
_FULL = (errno.ENOSPC, errno.EDQUOT)
_STORAGE = (*_FULL, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)


class ConfigurationError(ValueError):
    """A value of the configuration, or the output folder, cannot be used.

    The message says what was given, where, and what to write instead.
    """


class RunError(RuntimeError):
    """A run that cannot go on, for a reason that one sentence says, and what to do about it.

    Unlike a :class:`ConfigurationError` it comes when something has been computed already.
    """


def print_error(error: object) -> None:
    """Print what went wrong on standard error, as text that does nothing to a terminal."""
    print(printable_lines(f"error: {error}"), file=sys.stderr)


def storage_trouble(error: BaseException) -> str | None:
    """Return what a disk said first, in a chain of errors that follow from it.

    Returns:
        A sentence; None where no error of the chain is a disk's.
    """
    chain = _of_storage(error)
    if not chain:
        return None
    # The last one came first. What a write to an open file says has no name: the next one may.
    names = [str(one.filename) for one in reversed(chain) if one.filename is not None]
    return f"{names[0] if names else 'a file'} cannot be written ({chain[-1].strerror})"


def is_full(error: BaseException) -> bool:
    """Whether an error came of a disk, or a quota, that is full."""
    return any(one.errno in _FULL for one in _of_storage(error))


def _of_storage(error: BaseException) -> list[OSError]:
    """What disks have said, in a chain of errors that follow from it; the first one last."""
    chain: list[OSError] = []
    seen: set[int] = set()
    now: BaseException | None = error
    while now is not None and id(now) not in seen:
        seen.add(id(now))
        if isinstance(now, OSError) and now.errno in _STORAGE:
            chain.append(now)
        now = now.__cause__ or now.__context__
    return chain


def is_message(error: BaseException) -> bool:
    """Whether an error was raised by qspinn itself, with words for the user: no bug of a class."""
    if not isinstance(error, ValueError) or error.__traceback__ is None:
        return False
    frames = list(traceback.walk_tb(error.__traceback__))
    return Path(frames[-1][0].f_code.co_filename).is_relative_to(PACKAGE)


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Turn what is raised inside into a :class:`ConfigurationError` that names the place.

    Args:
        place: The group or key of the configuration that is being used, such as ``data``.
    """
    try:
        yield
    except ConfigurationError:
        raise
    except InstantiationException as error:  # Hydra's words around those of the class
        cause = error.__cause__ or error
        raise ConfigurationError(f"{place}: {cause}") from error
    except Exception as error:
        raise ConfigurationError(f"{place}: {error}") from error
