"""Put it together: target, Pareto front, reward, winner, each with its reason."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from qspinn.selection.baselines import fill_baselines
from qspinn.selection.pareto import pareto_front
from qspinn.selection.reward import LinearReward, Reward
from qspinn.selection.runs import Run, check_comparable
from qspinn.selection.target import Dropped, Target, candidates

__all__ = ["Row", "Selection", "select"]


@dataclass(frozen=True)
class Row:
    """A candidate with its place.

    Attributes:
        run: The run.
        reward: Its reward.
        dominated_by: Path of a run on the front that is at least as good in footprint and
            accuracy and better in one; None for runs on the front.
    """

    run: Run
    reward: float
    dominated_by: str | None = None

    @property
    def on_front(self) -> bool:
        """Whether no other candidate dominates this one."""
        return self.dominated_by is None

    def to_dict(self) -> dict[str, Any]:
        """Plain types; the record itself stays in its file."""
        values = _summary(self.run)
        return values | {"reward": self.reward, "dominated_by": self.dominated_by}


@dataclass(frozen=True)
class Selection:
    """What was chosen among which runs, and why.

    Attributes:
        rows: The candidates, best first: those on the front by reward, then the dominated by
            reward. Ties: smaller footprint, then path.
        dropped: Runs that miss the target, the nearest first (least accuracy missing, then
            fewest bits too many, then highest accuracy, smallest footprint, path).
        target: What the candidates had to meet.
        reward: How they were weighed, in words.
        notes: What a reader should know about the baselines.
    """

    rows: tuple[Row, ...]
    dropped: tuple[Dropped, ...]
    target: Target
    reward: str
    notes: tuple[str, ...] = ()

    @property
    def front(self) -> tuple[Row, ...]:
        """The Pareto front of the candidates, best reward first."""
        return tuple(row for row in self.rows if row.on_front)

    @property
    def winner(self) -> Row | None:
        """The candidate on the front with the best reward; None without candidates."""
        return self.rows[0] if self.rows else None

    @property
    def reason(self) -> str:
        """Why the winner won, or how far the best run is from the target."""
        if self.winner is None:
            best = self.dropped[0]
            return (
                f"No run meets the target ({self.target}): {len(self.dropped)} dropped. "
                f"The nearest is {best.run.path}: {'; '.join(best.reasons)}."
            )
        record = self.winner.run.record
        text = (
            f"{self.winner.run.path} has the best reward ({self.winner.reward:.4f}) of "
            f"{len(self.front)} on the Pareto front: accuracy {100 * record.accuracy:.2f}%, "
            f"footprint {record.footprint_bits:,} bits, {record.reduction:.1f}x smaller"
        )
        if record.drop is not None:
            side = "above" if record.drop < 0 else "below"
            text += f", {abs(100 * record.drop):.2f} points {side} the 32-bit baseline"
        if self.winner.run.is_reference:
            text += ". It is the 32-bit network itself: no quantised run is worth more"
        return text + "."

    def to_dict(self) -> dict[str, Any]:
        """Plain types for `selection.json`."""
        return {
            "target": {
                "max_drop": self.target.max_drop,
                "min_accuracy": self.target.min_accuracy,
                "max_bits": self.target.max_bits,
            },
            "reward": self.reward,
            "winner": None if self.winner is None else self.winner.run.path,
            "reason": self.reason,
            "front": [row.run.path for row in self.front],
            "candidates": [row.to_dict() for row in self.rows],
            "dropped": [
                _summary(item.run) | {"reasons": list(item.reasons)} for item in self.dropped
            ],
            "notes": list(self.notes),
        }


def select(
    runs: Iterable[Run],
    target: Target | None = None,
    reward: Reward | None = None,
    allow_mixed: bool = False,
) -> Selection:
    """Select among runs: fill baselines, drop what misses the target, rank the rest.

    The front is that of the candidates: minimise the inference footprint, maximise the accuracy,
    a run is off it when another candidate is at least as good in both and better in one. 32-bit
    runs compete like any other.

    Args:
        runs: At least one.
        target: Default: at most one point below the baseline.
        reward: Gives a finite number for a record, the highest wins. Default: `LinearReward()`.
        allow_mixed: Compare runs of different data or network.

    Raises:
        ValueError: No runs, or a reward that is not a finite number.
        MixedRunsError: Different data or network without `allow_mixed`.
    """
    runs = list(runs)
    if not runs:
        raise ValueError("there are no runs to select from")
    if not allow_mixed:
        check_comparable(runs)
    target = Target() if target is None else target
    reward = LinearReward() if reward is None else reward
    filled, notes = fill_baselines(runs)
    split = candidates(filled, target)
    rows = _rank(split.kept, reward)
    dropped = sorted(split.dropped, key=_distance)
    return Selection(tuple(rows), tuple(dropped), target, _describe(reward), tuple(notes))


def _distance(item: Dropped) -> tuple[float, int, float, int, str]:
    record = item.run.record
    accuracy, bits = -record.accuracy, record.footprint_bits
    return item.missing_accuracy, item.excess_bits, accuracy, bits, item.run.path


def _rank(kept: Sequence[Run], reward: Reward) -> list[Row]:
    points = [(run.record.footprint_bits, run.record.accuracy) for run in kept]
    front = pareto_front(points)
    # Along the front, ascending in footprint, the accuracy ascends as well: the last one that is
    # not larger than a dominated run is the most accurate that can dominate it.
    stairs = sorted(front, key=lambda index: (points[index][0], kept[index].path))
    sizes = [points[index][0] for index in stairs]
    on_front = set(front)
    rows = []
    for index, run in enumerate(kept):
        dominator = None
        if index not in on_front:
            dominator = kept[stairs[bisect_right(sizes, points[index][0]) - 1]].path
        rows.append(Row(run, _reward(run, reward), dominator))
    return sorted(rows, key=lambda row: (not row.on_front, -row.reward, *_size_and_path(row)))


def _size_and_path(row: Row) -> tuple[int, str]:
    return row.run.record.footprint_bits, row.run.path


def _reward(run: Run, reward: Reward) -> float:
    value: object = reward(run.record)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(
            f"the reward ({_describe(reward)}) of {run.path} is {value!r}, not a finite number"
        )
    return float(value)


def _describe(reward: Reward) -> str:
    """The reward in words: its own, or its name where it has only Python's `<... at 0x...>`."""
    shown = str(reward)
    if " at 0x" not in shown:
        return shown
    named = reward if hasattr(reward, "__qualname__") else type(reward)
    return f"{named.__module__}.{named.__qualname__}"


def _summary(run: Run) -> dict[str, Any]:
    record = run.record
    return {
        "path": run.path,
        "scheme": record.scheme,
        "rounding": record.rounding,
        "word_lengths": record.word_lengths,
        "network": record.network,
        "data": record.data,
        "seed": record.seed,
        "accuracy": record.accuracy,
        "baseline_accuracy": record.baseline_accuracy,
        "baseline_path": run.baseline_path,
        "footprint_bits": record.footprint_bits,
        "baseline_footprint_bits": record.baseline_footprint_bits,
        "reduction": record.reduction,
    }
