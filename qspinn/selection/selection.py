"""The selection: target, Pareto front, reward and winner, each with its reason."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from qspinn.selection.baselines import fill_baselines
from qspinn.selection.chosen_by import runs_chosen_by
from qspinn.selection.groups import Group, beside, group_runs
from qspinn.selection.hypervolume import hypervolume
from qspinn.selection.intervals import difference_margin
from qspinn.selection.mu import Choice, choices
from qspinn.selection.naming import CandidateNames
from qspinn.selection.pareto import pareto_front
from qspinn.selection.reward import LinearReward, Reward
from qspinn.selection.runs import Run, check_comparable
from qspinn.selection.target import Dropped, Target, candidates


@dataclass(frozen=True)
class Row:
    """A candidate with its place.

    Attributes:
        group: The runs; mostly those of several seeds, or one.
        reward: Its reward: the mean of its runs' rewards.
        dominated_by: Path of a candidate on the front that is at least as good in footprint and
            accuracy and better in one; None for those on the front.
    """

    group: Group
    reward: float
    dominated_by: str | None = None

    @property
    def on_front(self) -> bool:
        """Whether no other candidate dominates this one."""
        return self.dominated_by is None


@dataclass(frozen=True)
class Selection:
    """What was chosen among which runs, and why.

    Attributes:
        rows: The candidates, best first: those on the front by reward, then the dominated by
            reward. Ties: smaller footprint, then path.
        dropped: What misses the target, the nearest first (least accuracy missing, then
            fewest bits too many, then highest accuracy, smallest footprint, path).
        target: What the candidates had to meet.
        reward: How they were weighed, in words.
        hypervolume: Of the front, in shares of the 32-bit footprint and fractions of accuracy; the
            reference is the 32-bit footprint and accuracy 0.
        choices: Indices into `rows`, with the weights `mu` of the linear reward for which each
            wins, by ascending `mu`; independent of the reward that is used.
        notes: What a reader should know about baselines and seeds.
        chosen_by: The data that chose, `validation` or `test`.
        mu: Weight of the footprint in the linear reward; None where the reward is another one.
    """

    rows: tuple[Row, ...]
    dropped: tuple[Dropped, ...]
    target: Target
    reward: str
    hypervolume: float = 0.0
    choices: tuple[Choice, ...] = ()
    notes: tuple[str, ...] = ()
    chosen_by: str = "test"
    mu: float | None = None

    @property
    def front(self) -> tuple[Row, ...]:
        """The Pareto front of the candidates, best reward first."""
        return tuple(row for row in self.rows if row.on_front)

    @property
    def compared(self) -> tuple[Row | Dropped, ...]:
        """Everything that was compared: the candidates, best first, then what was dropped."""
        return (*self.rows, *self.dropped)

    @cached_property
    def names(self) -> CandidateNames:
        """Numbers and names of all that were compared: the winner is number 1."""
        return CandidateNames.of([row.group for row in self.compared])

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
                f"The nearest is {best.group.path}: {'; '.join(best.reasons)}."
            )
        group = self.winner.group
        text = (
            f"{group.path} has the best reward ({self.winner.reward:.4f}) of "
            f"{len(self.front)} on the Pareto front: {self.chosen_by} accuracy "
            f"{group.accuracy_in_words}, footprint {group.footprint_bits:,.0f} bits, "
            f"{group.reduction:.1f}x smaller"
        )
        if len(group.runs) > 1:
            text += f" (mean of {len(group.runs)} seeds)"
        if group.drop is not None:
            text += f", {beside(group.drop)} the 32-bit baseline"
        if group.is_reference:
            text += ". It is the 32-bit network itself: no quantised run has a higher reward"
        return text + "."

    @property
    def report(self) -> str:
        """What the winner does on test data, which had no part in the choice; else empty."""
        if self.winner is None or self.chosen_by == "test":
            return ""
        reported = self.winner.group.reported
        text = f"On the test data, which chose nothing: accuracy {reported.accuracy_in_words}"
        drop = reported.drop
        if drop is not None and not reported.is_reference:
            text += f", {beside(drop)} the 32-bit baseline"
        return f"{text}."


def select(
    runs: Iterable[Run],
    target: Target | None = None,
    reward: Reward | None = None,
    allow_mixed: bool = False,
    group_seeds: bool = True,
    chosen_by: str = "validation",
) -> Selection:
    """Select among runs: fill baselines, take seeds together, drop what misses the target, rank.

    The front is that of the candidates: minimise the inference footprint, maximise the accuracy
    (means over seeds). A candidate is off it when another one is at least as good in both and
    better in one; equal ones are both on it. 32-bit runs compete like any other.

    Args:
        runs: At least one.
        target: Default: at most one point below the baseline.
        reward: Gives a finite number for a record, the highest wins. Default: `LinearReward()`.
        allow_mixed: Compare runs of different data or network.
        group_seeds: Take runs together that differ in the seed only (see `group_runs`).
        chosen_by: The data whose accuracies choose and have to meet the target, `validation` or
            `test`; see `runs_chosen_by` for records that have only test figures.

    Raises:
        ValueError: No runs, other data, or a reward that is not a finite number.
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
    choosing = runs_chosen_by(filled, chosen_by)
    if choosing.chosen_by != "test":  # find twins for the test accuracy as well
        filled, notes = fill_baselines(choosing.runs)
    groups, more = group_runs(filled, group_seeds)
    split = candidates(groups, target)
    rows = _rank(split.kept, reward)
    shares = [(row.group.share, row.group.accuracy) for row in rows]
    return Selection(
        rows=tuple(rows),
        dropped=tuple(sorted(split.dropped, key=_distance)),
        target=target,
        reward=_describe(reward),
        hypervolume=hypervolume(shares),
        choices=tuple(choices(shares)),
        notes=(*choosing.notes, *notes, *more, *_chance(groups, target)),
        chosen_by=choosing.chosen_by,
        mu=reward.mu if isinstance(reward, LinearReward) else None,
    )


def _chance(groups: Iterable[Group], target: Target) -> Iterator[str]:
    """A note where the data are too few to tell a difference as small as the target allows."""
    known = [(group, group.samples) for group in groups if group.samples is not None]
    if target.max_drop is None or not known:
        return
    group, samples = max(known, key=lambda one: one[0].accuracy)
    margin = difference_margin(group.accuracy, samples)
    if margin > target.max_drop:
        yield (
            f"{samples:,} samples cannot tell a difference of target.max_drop = "
            f"{target.max_drop:g} from chance, which may make up to {margin:.3f}"
        )


def _distance(item: Dropped) -> tuple[float, float, float, float, str]:
    group = item.group
    nearness = item.missing_accuracy, item.excess_bits + item.excess_energy
    return *nearness, -group.accuracy, group.footprint_bits, group.path


def _rank(kept: Sequence[Group], reward: Reward) -> list[Row]:
    points = [(group.footprint_bits, group.accuracy) for group in kept]
    front = pareto_front(points)
    # Along the front, ascending in footprint, the accuracy ascends as well: the last one that is
    # not larger than a dominated candidate is the most accurate that can dominate it.
    stairs = sorted(front, key=lambda index: (points[index][0], kept[index].path))
    sizes = [points[index][0] for index in stairs]
    on_front = set(front)
    rows = []
    for index, group in enumerate(kept):
        dominator = None
        if index not in on_front:
            dominator = kept[stairs[bisect_right(sizes, points[index][0]) - 1]].path
        rewards = [_reward(run, reward) for run in group.runs]
        rows.append(Row(group, rewards[0] if len(rewards) == 1 else fmean(rewards), dominator))
    return sorted(rows, key=lambda row: (not row.on_front, -row.reward, *_size_and_path(row)))


def _size_and_path(row: Row) -> tuple[float, str]:
    return row.group.footprint_bits, row.group.path


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
