"""The target that a run must meet to be a candidate, and how far it is from it otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from qspinn.selection.groups import Group
from qspinn.selection.parts import find_part
from qspinn.selection.quantities import (
    check_number,
    read_energy,
    read_memory,
    read_share,
    shown_energy,
    shown_memory,
)

# Accuracies come as float32: two of them, subtracted, are off by at most 1.2e-7.
TOLERANCE = 1.5e-7


@dataclass(frozen=True)
class Target:
    """Bounds that a candidate keeps; None leaves a bound out. Bounds themselves are allowed.

    Attributes:
        max_drop: Accuracy that may be lost against the 32-bit baseline, a fraction (0.01 is one
            point). May be negative: then a gain is asked for.
        min_accuracy: Smallest accuracy, a fraction in [0, 1].
        max_bits: Largest inference footprint in bits.
        flash: Bits that the device has in flash for the network.
        ram: Bits that it has in RAM for it.
        energy: Nanojoules that a sample may take.
        learning: Whether the device learns, so that it holds what learning changes in RAM.
    """

    max_drop: float | None = 0.01
    min_accuracy: float | None = None
    max_bits: int | None = None
    flash: int | None = None
    ram: int | None = None
    energy: float | None = None
    learning: bool = False

    def __post_init__(self) -> None:
        for name, low, high, example in (
            ("max_drop", -1.0, 1.0, "0.01 or 1% for one point"),
            ("min_accuracy", 0.0, 1.0, "0.97 or 97%"),
            ("max_bits", 1, math.inf, "800000 for 100 kB"),
            ("flash", 1, math.inf, "64KiB"),
            ("ram", 1, math.inf, "16KiB"),
            ("energy", 0.0, math.inf, "5uJ"),
        ):
            value, wanted = getattr(self, name), f"{example}, or null for no such bound"
            if value is not None:
                check_number(f"target.{name}", value, low, high, wanted)
        if not isinstance(self.learning, bool):
            raise ValueError(f"target.learning={self.learning!r}; write true or false")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Target:
        """The target of values as people write them: `{"flash": "64KiB", "max_drop": "1%"}`.

        Args:
            values: By name; what is not there is no bound. `part` is the name of a device, whose
                memories are the bounds that are not given otherwise.

        Raises:
            ValueError: An unknown name, or an invalid value.
        """
        known = [item.name for item in fields(cls)]
        for name in values:
            if name not in (*known, "part"):
                raise ValueError(f"target.{name}: the keys are {', '.join(known)}, part")
        bounds: dict[str, Any] = {**dict.fromkeys(known), "learning": False}
        bounds |= {name: value for name, value in values.items() if name != "part"}
        bounds["learning"] = bounds["learning"] or False
        for name, read in _READ.items():
            if bounds[name] is not None:
                bounds[name] = read(f"target.{name}", bounds[name])
        if values.get("part") is not None:
            part = find_part(values["part"])
            for name, has in (("flash", part.flash), ("ram", part.ram)):
                bounds[name] = has if bounds[name] is None else bounds[name]
        return cls(**bounds)

    def __str__(self) -> str:
        parts = []
        if self.max_drop is not None:
            allowed = 100 * self.max_drop
            unit = "point" if allowed == 1 else "points"
            parts.append(f"accuracy at most {allowed:g} {unit} below the baseline")
        if self.min_accuracy is not None:
            parts.append(f"accuracy at least {100 * self.min_accuracy:g}%")
        if self.max_bits is not None:
            parts.append(f"footprint at most {self.max_bits:,} bits")
        if self.flash is not None:
            parts.append(f"flash at most {shown_memory(self.flash)}")
        if self.ram is not None:
            parts.append(f"RAM at most {shown_memory(self.ram)}")
        if self.energy is not None:
            parts.append(f"energy at most {shown_energy(self.energy)} per sample")
        if self.learning and (self.flash is not None or self.ram is not None):
            parts.append("on a device that learns")
        return ", ".join(parts) or "none"


_READ: dict[str, Callable[[str, object], object]] = {
    "max_drop": read_share,
    "min_accuracy": read_share,
    "flash": read_memory,
    "ram": read_memory,
    "energy": read_energy,
}
"""How bounds are read that people write with a unit."""


@dataclass(frozen=True)
class Dropped:
    """A group of runs (or a single one) that misses the target.

    Attributes:
        group: The runs.
        reasons: Each bound that is not kept, with by how much.
        missing_accuracy: What it would need on top, a fraction; infinite where the baseline or a
            finished training is missing, so that nothing can be said.
        excess_bits: Bits above the largest footprint and above what flash and RAM hold; infinite
            where it is not known.
        excess_energy: Nanojoules above what a sample may take; infinite where it is not known.
    """

    group: Group
    reasons: tuple[str, ...]
    missing_accuracy: float
    excess_bits: float
    excess_energy: float = 0.0


@dataclass(frozen=True)
class Candidates:
    """Groups that meet the target, in the given order, and those that do not."""

    kept: tuple[Group, ...]
    dropped: tuple[Dropped, ...]


def candidates(groups: Iterable[Group], target: Target) -> Candidates:
    """Split groups by the target; what counts is their means.

    Fill the baselines first (`fill_baselines`).
    """
    kept, dropped = [], []
    for group in groups:
        missed = _miss(group, target)
        if missed is None:
            kept.append(group)
        else:
            dropped.append(missed)
    return Candidates(tuple(kept), tuple(dropped))


def _miss(group: Group, target: Target) -> Dropped | None:
    """What the group misses, or None when it meets the target."""
    reasons: list[str] = []
    missing = _miss_accuracy(group, target, reasons)
    excess = _miss_memory(group, target, reasons)
    energy = 0.0
    if target.energy is not None:
        if group.energy_nj is None:
            reasons.append(f"its energy is not known: {_RUN_AGAIN}")
            energy = math.inf
        elif group.energy_nj > target.energy:
            energy = group.energy_nj - target.energy
            shown = shown_energy(group.energy_nj), shown_energy(energy)
            reasons.append(f"takes {shown[0]} per sample, {shown[1]} too many")
    return Dropped(group, tuple(reasons), missing, excess, energy) if reasons else None


_RUN_AGAIN = "its record does not hold it; run it again with this qspinn"


def _miss_accuracy(group: Group, target: Target, reasons: list[str]) -> float:
    """The accuracy that it would need on top; what it misses is added to the reasons."""
    missing, drop, status = 0.0, group.drop, group.record.status
    if status != "completed":
        reasons.append(f"the run is {status}: its training did not reach the planned end")
        missing = math.inf
    if target.max_drop is not None:
        if drop is None:
            reasons.append(
                "no 32-bit baseline; run the same command with quantization.scheme=none, or set "
                "target.max_drop=null"
            )
            missing = math.inf
        elif drop > target.max_drop + TOLERANCE:
            gap = drop - target.max_drop
            missing = max(missing, gap)
            reasons.append(f"loses {_points(drop)} points of accuracy, {_points(gap)} too many")
    if target.min_accuracy is not None and group.accuracy < target.min_accuracy - TOLERANCE:
        gap = target.min_accuracy - group.accuracy
        missing = max(missing, gap)
        reasons.append(f"accuracy {_points(group.accuracy)}%, {_points(gap)} points too low")
    return missing


def _miss_memory(group: Group, target: Target, reasons: list[str]) -> float:
    """The bits that are too many; what it misses is added to the reasons."""
    excess = 0.0
    if target.max_bits is not None and group.footprint_bits > target.max_bits:
        excess = group.footprint_bits - target.max_bits
        reasons.append(f"footprint {group.footprint_bits:,.0f} bits, {excess:,.0f} too many")
    memory = group.memory(target.learning)
    for name, place, has in (("flash", "flash", target.flash), ("ram", "RAM", target.ram)):
        if has is None:
            continue
        needed = memory[name]
        if needed is None:
            reasons.append(f"how much {place} it needs is not known: {_RUN_AGAIN}")
            excess = math.inf
        elif needed > has:
            excess += needed - has
            shown = shown_memory(needed), shown_memory(needed - has)
            reasons.append(f"needs {shown[0]} of {place}, {shown[1]} too many")
    return excess


def _points(fraction: float) -> str:
    """A fraction as points with two decimals; more where two would show a difference as zero."""
    points = 100 * fraction
    return f"{points:.2f}" if abs(points) >= 0.005 else f"{points:.2g}"
