"""Which repairs there are, and how they are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

NONE: Final = "none"
EQUALIZE: Final = "equalize"
REPAIRS: Final = ("learned", "threshold", "bias")
"""In the order in which they are made in each layer."""


def as_repairs(given: object, place: str) -> tuple[str, ...]:
    """The repairs that are meant, in the order in which they are made.

    Args:
        given: ``"none"``, one name, several joined by ``"+"`` (``"bias+learned"``), or a list of
            names; ``None`` is ``"none"``.
        place: What is being read, for the error.

    Raises:
        ValueError: Something else.
    """
    wanted = f"write none, one of {', '.join(REPAIRS)}, or several, such as bias+learned"
    names = given.split("+") if isinstance(given, str) else [NONE] if given is None else given
    if not isinstance(names, Sequence) or not names or not all(isinstance(n, str) for n in names):
        raise ValueError(f"{place}={given!r}; {wanted}")
    stated = [name.strip() for name in names]
    if EQUALIZE in stated:
        raise ValueError(
            f"{place}={given!r}: moving scale from the weights of a channel into its threshold is "
            "no repair here; write scale=free and granularity=channel, which choose the scale, too"
        )
    unknown = [name for name in stated if name not in (NONE, *REPAIRS)]
    if unknown:
        raise ValueError(f"{place}={given!r}: unknown repair {unknown[0]!r}; {wanted}")
    if len(set(stated)) < len(stated):
        raise ValueError(f"{place}={given!r}: names a repair twice; {wanted}")
    if NONE in stated:
        if len(stated) > 1:
            raise ValueError(f"{place}={given!r}: none stands alone; {wanted}")
        return ()
    return tuple(name for name in REPAIRS if name in stated)
