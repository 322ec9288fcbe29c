"""Rules for candidates that cannot be chosen any more, however their evaluation continues.

Pure rules over footprints and validation accuracies. Each of them compares the most that a
candidate can be expected to reach with what is asked for, or with what others have reached already.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from qspinn.selection.hypervolume import hypervolume
from qspinn.selection.pareto import Point, dominates
from qspinn.selection.quantities import LARGEST, check_number
from qspinn.selection.target import TOLERANCE

Curve = Mapping[float, float]
"""Progress of a training, in (0, 1], to the validation accuracy at that point."""

DOUBT = 0.001
"""How likely a network may be to do as badly on a few samples by chance, and still be stopped."""


@dataclass(frozen=True)
class GateRules:
    """What a candidate has to be able to reach to be evaluated in full.

    Attributes:
        max_drop: Accuracy that may be lost against the 32-bit network, a fraction; None: any. It
            should be no smaller than the `target.max_drop` that is selected with.
        tolerance: Share of the hypervolume of the front that a candidate has to be able to add.
        chance: Standard errors by which a quantised network may be more accurate than its 32-bit
            twin, see `Standing.ceiling`. The larger, the fewer candidates are stopped.
        mu: Weight of the footprint in the reward that is selected with (see `LinearReward`).
        behind: How many times the errors of a network that is no larger, at the same point of
            training, are too many; above 1.

    Raises:
        ValueError: An invalid value; it says what to write.
    """

    max_drop: float | None = 0.01
    tolerance: float = 0.005
    chance: float = 2.0
    mu: float = 0.1
    behind: float = 1.5

    def __post_init__(self) -> None:
        if self.max_drop is not None:
            check_number(
                "max_drop", self.max_drop, -1.0, 1.0, "0.01 for one point, or null for no bound"
            )
        check_number("tolerance", self.tolerance, 0.0, 1.0, "0.005 for half a percent")
        check_number("chance", self.chance, 0.0, LARGEST, "2 for two standard errors")
        check_number("mu", self.mu, 0.0, LARGEST, "0.1, as reward.mu in conf/select.yaml")
        check_number("behind", self.behind, 1.0, LARGEST, "2 for twice the errors")


@dataclass(frozen=True)
class Standing:
    """What is known when a candidate is to be judged.

    Each rule returns the reason why the candidate is hopeless, or None.

    Attributes:
        rules: What it has to be able to reach.
        baseline: Validation accuracy of the 32-bit network.
        samples: Validation samples.
        points: (footprint as a share of the 32-bit one, validation accuracy) of each candidate that
            was evaluated in full.
    """

    rules: GateRules
    baseline: float
    samples: int
    points: tuple[Point, ...] = ()

    @property
    def target(self) -> float:
        """The smallest accuracy that meets the target."""
        drop = self.rules.max_drop
        return 0.0 if drop is None else self.baseline - drop

    @property
    def ceiling(self) -> float:
        """The most that a quantised network is taken to reach.

        That is what its 32-bit twin has, and what chance may add. Two networks that answer the same
        samples differ in the errors that only one of them makes. If those are half of the errors of
        each, they are about as many as the 32-bit network makes in all, and the difference has a
        standard error of ``sqrt(errors / samples)``, both as shares (McNemar, Psychometrika
        12:153-157, 1947).
        """
        deviation = math.sqrt((1 - self.baseline) / self.samples)
        return min(1.0, self.baseline + self.rules.chance * deviation)

    @cached_property
    def front(self) -> tuple[Point, ...]:
        """The points that meet the target."""
        return tuple(point for point in self.points if point[1] >= self.target - TOLERANCE)

    def misses_target(self, most: float) -> str | None:
        """Whether an accuracy of at most `most` cannot meet the target."""
        if most >= self.target - TOLERANCE:
            return None
        return f"reaches {_points(most)}% at most, and {_points(self.target)}% are needed"

    def adds_too_little(self, share: float, most: float) -> str | None:
        """Whether a full evaluation would gain nothing, even if the accuracy reached `most`.

        Nothing is gained if it would add less than `tolerance` to the hypervolume of the front and
        have no higher reward than the best so far (accuracy - mu * share).

        Args:
            share: Its footprint over that of the 32-bit network.
            most: Accuracy that it reaches at most.
        """
        if not self.front:
            return None
        area = hypervolume(self.front)
        gain = hypervolume([*self.front, (share, most)]) - area
        best = max(accuracy - self.rules.mu * size for size, accuracy in self.front)
        if gain >= self.rules.tolerance * area or most - self.rules.mu * share > best:
            return None
        smaller = [accuracy for size, accuracy in self.front if size <= share]
        beside = f": one that is no larger has {_points(max(smaller))}%" if smaller else ""
        return f"would add {100 * gain / area:.2f}% to the front at most{beside}"

    def dominated(self, share: float, accuracy: float) -> str | None:
        """Whether another one is at least as small and as accurate, and better in one."""
        better = [point for point in self.points if dominates(point, (share, accuracy))]
        if not better:
            return None
        size, best = max(better, key=lambda point: point[1])
        return (
            f"has {_points(accuracy)}%, and one of {100 * size / share:.0f}% of its size "
            f"{_points(best)}%"
        )

    def most_after(self, accuracy: float, count: int) -> float:
        """The most that the accuracy on all samples can be after some of them.

        It is the largest one at which so few right answers among samples that are drawn without
        replacement have a probability of at least `DOUBT`: the exact bound of the hypergeometric
        distribution (Buonaccorsi, Annals of Statistics 15:1226-1231, 1987).

        Args:
            accuracy: On the first samples.
            count: How many these were; they have to be drawn at random.
        """
        if count >= self.samples:
            return accuracy
        right = round(accuracy * count)
        low, high = right, right + self.samples - count
        while low < high:  # the more are right in all, the less likely is so few of them
            middle = (low + high + 1) // 2
            if _at_most(right, count, middle, self.samples) >= DOUBT:
                low = middle
            else:
                high = middle - 1
        return low / self.samples

    def most_agreeing(self, agreement: float, count: int) -> float:
        """The most that the accuracy can be of a network that seldom agrees with its 32-bit twin.

        It is right where both are, and at best wherever the twin is wrong: its accuracy is at most
        the agreement plus the errors of the twin.

        Args:
            agreement: Share of the first samples that both put into the same class.
            count: How many these were; they have to be drawn at random.
        """
        return min(1.0, self.most_after(agreement, count) + 1 - self.baseline)

    def falls_behind(
        self,
        share: float,
        progress: float,
        accuracy: float,
        others: Iterable[tuple[float, Curve]],
        count: int | None = None,
    ) -> str | None:
        """Whether a training makes many times the errors that another one made at this point.

        Trainings differ in how fast they begin, so that a lower accuracy alone says little: errors
        have to be `behind` times those of a network that is no larger, and two standard errors
        more.

        Args:
            share: The footprint of the network that is being trained.
            progress: How much of the training is done, in (0, 1].
            accuracy: Validation accuracy at this point.
            others: Footprint and curve of other trainings.
            count: Samples that it was measured on; None: all.
        """
        at = [curve[progress] for size, curve in others if size <= share and curve.get(progress, 0)]
        if not at:
            return None
        best = max(at)
        samples = self.samples if count is None else min(count, self.samples)
        deviation = math.sqrt((accuracy * (1 - accuracy) + best * (1 - best)) / samples)
        if 1 - accuracy <= self.rules.behind * (1 - best) + 2 * deviation:
            return None
        return (
            f"has {_points(accuracy)}% after {100 * progress:.0f}% of its training, where one that "
            f"is no larger had {_points(best)}%"
        )

    def will_miss_target(
        self, progress: float, accuracy: float, twin: Curve, count: int | None = None
    ) -> str | None:
        """Whether a training is so far behind that of the 32-bit network that it misses the target.

        From this point on the 32-bit network made its errors fewer by some factor. A training is
        hopeless where it would have to do better than that by `behind` times, and two standard
        errors.

        Args:
            progress: How much of the training is done.
            accuracy: Validation accuracy at this point.
            twin: The curve of the 32-bit network.
            count: Samples that `accuracy` was measured on; None: all.
        """
        if progress >= 1 or progress not in twin or self.baseline >= 1 or twin[progress] >= 1:
            return None
        left = (1 - self.baseline) / (1 - twin[progress])
        samples = self.samples if count is None else min(count, self.samples)
        deviation = math.sqrt(accuracy * (1 - accuracy) / samples)
        fewest = min(1.0, left) * (1 - accuracy - 2 * deviation) / self.rules.behind
        if fewest <= 1 - self.target + TOLERANCE:
            return None
        return (
            f"has {_points(accuracy)}% after {100 * progress:.0f}% of its training, where the "
            f"32-bit network had {_points(twin[progress])}%, and has to end with "
            f"{_points(self.target)}%"
        )


def _at_most(right: int, count: int, all_right: int, samples: int) -> float:
    """The probability of at most `right` right answers in `count`, when `all_right` are in all."""
    wrong = samples - all_right

    def chosen(among: int, number: int) -> float:
        return math.lgamma(among + 1) - math.lgamma(number + 1) - math.lgamma(among - number + 1)

    ways = chosen(samples, count)
    numbers = range(max(0, count - wrong), min(right, all_right) + 1)
    return math.fsum(
        math.exp(chosen(all_right, k) + chosen(wrong, count - k) - ways) for k in numbers
    )


def _points(fraction: float) -> str:
    return f"{100 * fraction:.2f}"
