"""The target that a run must meet to be a candidate, and how far it is from it otherwise."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from qspinn.selection.groups import Group

__all__ = ["Candidates", "Dropped", "Target", "candidates"]

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
    """

    max_drop: float | None = 0.01
    min_accuracy: float | None = None
    max_bits: int | None = None

    def __post_init__(self) -> None:
        _check("max_drop", self.max_drop, -1.0, 1.0, "0.01 for one point")
        _check("min_accuracy", self.min_accuracy, 0.0, 1.0, "0.97 for 97 %")
        _check("max_bits", self.max_bits, 1, math.inf, "800000 for 100 kB")

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
        return ", ".join(parts) or "none"


def _check(name: str, value: object, low: float, high: float, example: str) -> None:
    if value is None:
        return
    if isinstance(value, (int, float)) and type(value) is not bool and low <= value <= high:
        return
    bounds = f"in [{low:g}, {high:g}]" if math.isfinite(high) else f"of at least {low:g}"
    raise ValueError(
        f"target.{name}={value!r} is not a number {bounds}; write for example {example}, "
        "or null for no such bound"
    )


@dataclass(frozen=True)
class Dropped:
    """A group of runs (or a single one) that misses the target.

    Attributes:
        group: The runs.
        reasons: Each bound that is not kept, with by how much.
        missing_accuracy: What it would need on top, a fraction; infinite where the baseline or a
            finished training is missing, so that nothing can be said.
        excess_bits: Bits above the largest footprint.
    """

    group: Group
    reasons: tuple[str, ...]
    missing_accuracy: float
    excess_bits: float


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
    missing, excess, drop, status = 0.0, 0.0, group.drop, group.record.status
    if status != "completed":
        reasons.append(f"the run is {status}: its training did not reach the planned end")
        missing = math.inf
    if target.max_drop is not None:
        if drop is None:
            reasons.append(
                "no 32-bit baseline: run the same command with quantization.scheme=none, or set "
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
    if target.max_bits is not None and group.footprint_bits > target.max_bits:
        excess = group.footprint_bits - target.max_bits
        reasons.append(f"footprint {group.footprint_bits:,.0f} bits, {excess:,.0f} too many")
    return Dropped(group, tuple(reasons), missing, excess) if reasons else None


def _points(fraction: float) -> str:
    """A fraction as points with two decimals; more where two would show a difference as zero."""
    points = 100 * fraction
    return f"{points:.2f}" if abs(points) >= 0.005 else f"{points:.2g}"
