"""The memories of well-known microcontrollers, from their data sheets, in `parts.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

from qspinn.selection.quantities import read_memory


@dataclass(frozen=True)
class Part:
    """A device.

    Attributes:
        name: As in `target.part`.
        flash: Bits.
        ram: Bits.
        about: What it is, in words.
        source: Its data sheet.
    """

    name: str
    flash: int
    ram: int
    about: str
    source: str


@cache
def parts() -> dict[str, Part]:
    """All parts of the table, by name."""
    text = resources.files("qspinn.selection").joinpath("parts.json").read_text(encoding="utf-8")
    found = {}
    for name, row in json.loads(text).items():
        flash, ram = (read_memory(f"{name}.{key}", row[key]) for key in ("flash", "ram"))
        found[name] = Part(name, flash, ram, row["about"], row["source"])
    return found


def find_part(name: object) -> Part:
    """The part of a name, in upper or lower case.

    Raises:
        ValueError: There is none; it names those that there are.
    """
    found = parts().get(name.lower()) if isinstance(name, str) else None
    if found is None:
        raise ValueError(
            f"target.part={name!r} is not in the table of parts; write one of "
            f"{', '.join(parts())}, or target.flash and target.ram of your device"
        )
    return found
