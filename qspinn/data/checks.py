"""The check of a setting that all data sets here share."""

from __future__ import annotations


def check(fits: bool, name: str, value: object, wanted: str) -> None:
    """Raises ``ValueError`` for a setting that does not fit, and says what to write instead."""
    if not fits:
        shown = repr(value) if isinstance(value, str) else value
        raise ValueError(f"{name}={shown}; write {wanted}")
