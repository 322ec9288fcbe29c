"""The errors that the application shows as a message instead of a traceback."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeGuard

from hydra.errors import InstantiationException

from qspinn.records import printable_lines

PACKAGE = Path(__file__).resolve().parents[1]

# Errors of a file system that is full or not writable.
_FULL = (errno.ENOSPC, errno.EDQUOT)
_STORAGE = (*_FULL, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)


class ConfigurationError(ValueError):
    """A value of the configuration, or the output folder, cannot be used.

    The message says what was given, where, and what to write instead.
    """


class RunError(RuntimeError):
    """A run cannot continue; the message says why and what to do about it.

    Unlike a :class:`ConfigurationError` it is raised after something has been computed.
    """


def print_error(error: object) -> None:
    """Print an error on standard error, without control characters."""
    print(printable_lines(f"error: {error}"), file=sys.stderr)


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number; booleans are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number; booleans are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def refused(place: str, value: object, wanted: str) -> ConfigurationError:
    """Return the error that names a key, its value, and what to write instead."""
    shown = "null" if value is None else repr(value)
    return ConfigurationError(f"{place}={shown}; write {wanted}")


def require(is_fine: bool, place: str, value: object, wanted: str) -> None:
    """Refuse a value that is not fine."""
    if not is_fine:
        raise refused(place, value, wanted)


def switch(place: str, value: object) -> bool:
    """Return a boolean; anything else is refused."""
    if not isinstance(value, bool):
        raise refused(place, value, "true or false")
    return value


def storage_trouble(error: BaseException) -> str | None:
    """Return the first error of the file system in a chain of errors.

    Returns:
        A sentence; None if no error of the chain comes from the file system.
    """
    chain = _of_storage(error)
    if not chain:
        return None
    # The last one was raised first. An error of an open file has no name: the next one may have it.
    names = [str(one.filename) for one in reversed(chain) if one.filename is not None]
    return f"{names[0] if names else 'a file'} cannot be written ({chain[-1].strerror})"


def is_full(error: BaseException) -> bool:
    """Whether an error comes from a full disk or an exhausted quota."""
    return any(one.errno in _FULL for one in _of_storage(error))


def _of_storage(error: BaseException) -> list[OSError]:
    """The errors of the file system in a chain of errors; the first one raised comes last."""
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
    """Whether an error was raised by qspinn itself as a message for the user, and is no bug."""
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
    except InstantiationException as error:  # Hydra wraps the error of the class
        cause = error.__cause__ or error
        raise ConfigurationError(f"{place}: {cause}") from error
    except Exception as error:
        raise ConfigurationError(f"{place}: {error}") from error
