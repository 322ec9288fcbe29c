"""Shares, memory and energy as people write them: `1%`, `64KiB`, `5uJ`."""

from __future__ import annotations

import math
import re
import sys

_NUMBER = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(\S*)\s*")

# Kilobytes are 1,000 bytes, as SI has it; a data sheet's "64 KB" are 64KiB, which is a little more.
_MEMORY: dict[str, float] = {"bit": 1, "bits": 1, "b": 8, "byte": 8, "bytes": 8}
for _power, _prefix in enumerate("kmg", start=1):
    for _unit, _factor in (("b", 8), ("bit", 1)):
        _MEMORY[f"{_prefix}{_unit}"] = _factor * 1000**_power
        _MEMORY[f"{_prefix}i{_unit}"] = _factor * 1024**_power
_ENERGY = {"pJ": 1e-3, "nJ": 1.0, "uJ": 1e3, "µJ": 1e3, "μJ": 1e3, "mJ": 1e6, "J": 1e9}
_SHARES = {"": 1.0, "%": 0.01, "point": 0.01, "points": 0.01}


LARGEST = sys.float_info.max


def check_number(place: str, value: object, low: float, high: float, example: str) -> None:
    """Refuse what is no number in [low, high], by a ValueError that says what to write."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (is_number and low <= value <= high):  # type: ignore[operator]
        bounds = f"in [{low:g}, {high:g}]" if high < LARGEST else f"of at least {low:g}"
        raise ValueError(f"{place}={value!r} is not a number {bounds}; write for example {example}")


def read_share(name: str, value: object) -> object:
    """A fraction: `0.01`, `1%` or `1 point`. What is no text is returned as it is."""
    if not isinstance(value, str):
        return value
    number, unit = _split(value)
    if number is None or unit not in _SHARES:
        raise ValueError(
            f"{name}={value!r} is not a number; write for example 0.01 or 1%, or null for no such "
            "bound"
        )
    return number * _SHARES[unit]


def read_memory(name: str, value: object) -> int:
    """Bits: of `64KiB`, `16kB`, `512bit`; a ValueError for anything else."""
    example = "64KiB (1 KiB = 1,024 bytes), 64kB (1 kB = 1,000 bytes), 200B or 4096bit"
    return int(_amount(name, value, _MEMORY, "amount of memory", example))


def read_energy(name: str, value: object) -> float:
    """Nanojoules: of `5uJ`, `300nJ`; a ValueError for anything else."""
    return _amount(name, value, _ENERGY, "energy", "5uJ, 300nJ or 1.5mJ per sample")


def _amount(name: str, value: object, units: dict[str, float], kind: str, example: str) -> float:
    number, unit = _split(value) if isinstance(value, str) else (None, "")
    factor = units.get(
        unit, units.get(unit.lower())
    )  # of units of memory the case is not looked at
    if number is None or factor is None or not 0 < number * factor < math.inf:
        raise ValueError(
            f"{name}={value!r} is no {kind}; write it with its unit, for example {example}, or "
            "null for no such bound"
        )
    return number * factor


def _split(text: str) -> tuple[float | None, str]:
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None, ""
    return float(found[1]), found[2]


def shown_memory(bits: float) -> str:
    """Bits in the unit that fits: `700 bits`, `512 B`, `64.0 KiB`, `1.25 MiB`."""
    amount = bits / 8
    if abs(amount) < 128:
        return f"{bits:,.0f} bits"
    if abs(amount) < 1024:
        return f"{amount:,.0f} B"
    power = 1 if abs(amount) < 1000 * 1024 else 2 if abs(amount) < 1000 * 1024**2 else 3
    amount /= 1024**power
    return f"{amount:,.{_decimals(amount)}f} {'KMG'[power - 1]}iB"


def shown_energy(nanojoules: float) -> str:
    """Nanojoules in the unit that fits: `0.30 nJ`, `1.25 uJ`."""
    for unit, factor in (("nJ", 1.0), ("uJ", 1e3), ("mJ", 1e6)):
        amount = nanojoules / factor
        if abs(amount) < 1000:
            return f"{amount:.{_decimals(amount)}f} {unit}"
    return f"{nanojoules / 1e9:,.2f} J"


def _decimals(amount: float) -> int:
    """Three digits, at most two of them behind the point."""
    return 2 if abs(amount) < 10 else 1 if abs(amount) < 100 else 0
