"""The weights `mu` of the linear reward at which the choice changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from qspinn.selection.pareto import Point, pareto_front


@dataclass(frozen=True)
class Choice:
    """A point and the weights for which its reward is the highest.

    Attributes:
        index: Of the point.
        low: Smallest weight, at which its reward equals that of the previous choice.
        high: The weight at which the next choice takes over; infinite for the last.
    """

    index: int
    low: float
    high: float


def choices(points: Sequence[Point]) -> list[Choice]:
    """The points that maximise `accuracy - mu * size` for some `mu >= 0`, by ascending `mu`.

    These are the corners of the front's upper convex hull, and the weights at which one follows
    the other are the slopes between them: computed, not sampled, with exact rational arithmetic.
    Of points with equal rewards the smallest wins, then the first: a point on a straight line
    between two corners has the highest reward only where they tie.

    Args:
        points: (size, accuracy) of each.

    Raises:
        ValueError: A coordinate is NaN.
    """
    stairs: dict[Point, int] = {}
    for index in pareto_front(points):
        stairs.setdefault(points[index], index)
    hull: list[tuple[Fraction, Fraction, int]] = []
    for point in sorted(stairs):
        corner = (Fraction(point[0]), Fraction(point[1]), stairs[point])
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-1], corner):
            hull.pop()
        hull.append(corner)
    # Ascending in size the slopes fall; ascending in mu one goes from the largest size down.
    found, low = [], 0.0
    for position in range(len(hull) - 1, -1, -1):
        high = _rounded(_slope(hull[position - 1], hull[position])) if position else math.inf
        found.append(Choice(hull[position][2], low, high))
        low = high
    return found


def _slope(a: tuple[Fraction, Fraction, int], b: tuple[Fraction, Fraction, int]) -> Fraction:
    return (b[1] - a[1]) / (b[0] - a[0])


def _rounded(slope: Fraction) -> float:
    try:
        return float(slope)
    except OverflowError:  # of two sizes that almost agree
        return math.inf
