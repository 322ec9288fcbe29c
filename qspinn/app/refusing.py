"""The error for an invalid value of the configuration."""

from __future__ import annotations

from typing import TypeGuard

from qspinn.app.errors import ConfigurationError


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number; booleans are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number; booleans are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def switch(place: str, value: object) -> bool:
    """Return a boolean; anything else is refused."""
    if not isinstance(value, bool):
        raise refused(place, value, "true or false")
    return value


def refused(place: str, value: object, wanted: str) -> ConfigurationError:
    """Return the error that names a key, its value, and what to write instead."""
    shown = "null" if value is None else repr(value)
    return ConfigurationError(f"{place}={shown}; write {wanted}")
