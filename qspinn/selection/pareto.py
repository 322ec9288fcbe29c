"""The Pareto front of the trade-off: smallest footprint, highest accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[float, float]


def dominates(a: Point, b: Point) -> bool:
    """Whether `a` is at least as good as `b` in both respects and better in one.

    Args:
        a: (footprint, accuracy); a smaller footprint and a higher accuracy are better.
        b: The same.

    Equal points do not dominate each other.
    """
    return a[0] <= b[0] and a[1] >= b[1] and a != b


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Indices, ascending, of the points that no other point dominates (see `dominates`).

    Equal points are all kept or all left out. One sort, then one pass: O(n log n).

    Args:
        points: (footprint, accuracy) of each.

    Raises:
        ValueError: A coordinate is NaN, which has no order.
    """
    for index, point in enumerate(points):
        if math.isnan(point[0]) or math.isnan(point[1]):
            raise ValueError(f"point {index} is {point!r}: NaN cannot be compared, drop it first")
    front: list[int] = []
    last: Point | None = None
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        point = points[index]
        if last is None or point[1] > last[1] or point == last:
            front.append(index)
            last = point
    return sorted(front)
