"""The hypervolume of a front: one number for how good a set of trade-offs is."""

from __future__ import annotations

import math
from collections.abc import Iterable

from qspinn.selection.pareto import Point

REFERENCE: Point = (1.0, 0.0)
"""As large as the 32-bit network, and never right."""


def hypervolume(points: Iterable[Point], reference: Point = REFERENCE) -> float:
    """The area that the points dominate, up to a reference point.

    In two dimensions the exact area is a sum of rectangles: one sort, then one pass. With sizes as
    shares of the 32-bit network and the reference (1, 0) it lies in [0, 1], larger is better.

    Args:
        points: (size, accuracy) of each; a smaller size and a higher accuracy are better. Points
            that are not better than the reference in both respects add nothing; dominated ones and
            duplicates do no harm.
        reference: (size, accuracy).

    Raises:
        ValueError: A coordinate is NaN, which has no order.
    """
    largest, least = reference
    inside = []
    for point in points:
        if math.isnan(point[0]) or math.isnan(point[1]):
            raise ValueError(f"{point!r}: NaN cannot be compared, drop it first")
        if point[0] < largest and point[1] > least:
            inside.append(point)
    rectangles, reached = [], least
    for size, accuracy in sorted(inside):
        if accuracy > reached:
            rectangles.append((largest - size) * (accuracy - reached))
            reached = accuracy
    return math.fsum(rectangles)
