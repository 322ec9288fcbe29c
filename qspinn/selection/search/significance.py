"""Significance: how much the accuracy depends on the precision of each role, or of each tensor.

It is read from runs in which one role (or one tensor) alone is in fixed point and all the rest in
32-bit.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from qspinn.records import RunRecord

FLOAT_BITS = 32


@dataclass(frozen=True)
class SweepPoint:
    """What was measured at one word length.

    Attributes:
        word_length: Bits.
        accuracy: Mean over the runs, in [0, 1].
        deviation: Standard deviation over the runs; 0 for one run.
        drop: Mean accuracy lost against the 32-bit network; negative: gained.
        runs: Their number.
    """

    word_length: int
    accuracy: float
    deviation: float
    drop: float
    runs: int


@dataclass(frozen=True)
class Significance:
    """How the accuracy depends on the precision of one role or tensor.

    Attributes:
        name: The role; with the tensor behind it where not the whole role was swept.
        role: The role.
        paths: The tensors that were swept.
        values: Numbers that a device holds for it, each of which takes a word length.
        points: By word length, ascending.
        smallest: The smallest word length from which on every longer one holds the target as well;
            None where not even the longest does.
    """

    name: str
    role: str
    paths: tuple[str, ...]
    values: int
    points: tuple[SweepPoint, ...]
    smallest: int | None

    def drop(self, word_length: int) -> float:
        """Accuracy lost at a word length, at least 0: as measured, else interpolated linearly.

        Outside of what was measured the nearest point counts.
        """
        below = [p for p in self.points if p.word_length <= word_length] or [self.points[0]]
        above = [p for p in self.points if p.word_length >= word_length] or [self.points[-1]]
        low, high = below[-1], above[0]
        span = high.word_length - low.word_length
        share = (word_length - low.word_length) / span if span > 0 else 0.0
        return max(0.0, low.drop + share * (high.drop - low.drop))

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        points = [vars(point) for point in self.points]
        return {**vars(self), "points": points}


_Runs = list[tuple[int, RunRecord]]
_Groups = dict[tuple[str, frozenset[str]], _Runs]
"""Role and tensors to word lengths and runs."""


def role_alone(record: RunRecord) -> tuple[str, int] | None:
    """The role that alone is in fixed point, and its word length; None: there are more of one."""
    roles = {entry["role"] for entry in record.formats.values()}
    lengths = {length for given in record.word_lengths.values() for length in given}
    return (roles.pop(), lengths.pop()) if len(roles) == len(lengths) == 1 else None


def significance(
    records: Iterable[RunRecord], max_drop: float = 0.01
) -> tuple[tuple[Significance, ...], int]:
    """Read the significance of roles and tensors from runs.

    Args:
        records: Runs of one network; those in which more than one role, or more than one word
            length, is in fixed point are left out.
        max_drop: The target: accuracy that may be lost against the 32-bit network.

    Returns:
        The most significant first (by the mean of what is lost), and how many runs were left out.

    Raises:
        ValueError: A run knows no 32-bit accuracy, or no run can be used.
    """
    groups: _Groups = defaultdict(list)
    left_out = 0
    for record in records:
        found_alone = role_alone(record)
        if found_alone is None:
            left_out += 1
            continue
        role, length = found_alone
        if record.drop is None:
            raise ValueError(
                f"a run of {record.network} has no baseline_accuracy, so what it loses is unknown: "
                "run it with a store of baselines (baselines.dir), or as scheme=ptq"
            )
        groups[role, frozenset(record.formats)].append((length, record))
    if not groups:
        raise ValueError(
            f"none of {left_out} runs has one role alone in fixed point; make such runs with "
            "python train.py experiment=significance"
        )
    found = [
        _of_group(role, paths, runs, groups, max_drop) for (role, paths), runs in groups.items()
    ]
    found.sort(key=lambda one: (-statistics.fmean(p.drop for p in one.points), one.name))
    return tuple(found), left_out


def _of_group(
    role: str, paths: frozenset[str], runs: _Runs, groups: _Groups, max_drop: float
) -> Significance:
    everything = frozenset().union(*(other for its_role, other in groups if its_role == role))
    name = role if paths == everything else f"{role} of {', '.join(sorted(paths))}"
    by_length: dict[int, list[RunRecord]] = defaultdict(list)
    for length, run in runs:
        by_length[length].append(run)
    points = tuple(_point(length, by_length[length]) for length in sorted(by_length))
    smallest = None
    for point in reversed(points):
        # The rounding of float32 must not decide: 0.01 may come as 0.010000000000000009.
        if point.drop > max_drop + 1e-9:
            break
        smallest = point.word_length
    return Significance(name, role, tuple(sorted(paths)), _values(runs, role), points, smallest)


def _point(word_length: int, runs: list[RunRecord]) -> SweepPoint:
    accuracies = [run.accuracy for run in runs]
    drops = [run.drop for run in runs if run.drop is not None]
    deviation = statistics.stdev(accuracies) if len(runs) > 1 else 0.0
    mean = statistics.fmean(accuracies)
    return SweepPoint(word_length, mean, deviation, statistics.fmean(drops), len(runs))


def _values(runs: _Runs, role: str) -> int:
    """How many numbers are in fixed point: each has saved 32 bits less its word length.

    With 32 bits nothing is saved: where there is nothing else, all numbers of the role count.
    """
    for length, run in runs:
        if length != FLOAT_BITS:
            saved = run.baseline_footprint_bits - run.footprint_bits
            return round(saved / (FLOAT_BITS - length))
    return round(runs[0][1].footprint_bits_by_role.get(role, 0) / FLOAT_BITS)
