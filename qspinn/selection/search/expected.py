"""What a candidate is expected to add to a front, before it has been measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qspinn.selection.hypervolume import REFERENCE
from qspinn.selection.pareto import Point, pareto_front

Array = NDArray[np.float64]

_erf = np.vectorize(math.erf, otypes=[np.float64])


def expected_gain(
    points: Sequence[Point],
    sizes: Array,
    means: Array,
    deviations: Array,
    ceiling: float,
    reference: Point = REFERENCE,
) -> Array:
    """The hypervolume that each of some candidates is expected to add to what was measured.

    The size of a candidate is known, its accuracy normally distributed; above the ceiling it
    counts as the ceiling. At the accuracy ``t`` the candidate moves the front to the left by a
    width that is constant between two steps of the front, so the expectation, the integral of
    width times ``P(accuracy > t)``, is a finite sum: the expected hypervolume improvement
    (Emmerich, Giannakoglou, Naujoks, IEEE Trans. Evol. Comput. 10(4), 2006) with one coordinate
    known exactly.

    Args:
        points: (size, accuracy) of what was measured.
        sizes: ``[N]``.
        means: ``[N]``, of the accuracies.
        deviations: ``[N]``, of the accuracies; above 0.
        ceiling: Accuracy that no candidate is expected to exceed.
        reference: As of `hypervolume`.

    Returns:
        ``[N]``, at least 0.
    """
    largest, least = reference
    front = sorted({points[index] for index in pareto_front(points)})
    steps = [step for step in front if step[0] < largest and step[1] > least]
    bounds = np.minimum([least, *(accuracy for _, accuracy in steps), ceiling], ceiling)
    lefts = np.array([*(size for size, _ in steps), largest])
    widths = np.maximum(0.0, lefts[None, :] - sizes[:, None])
    excess = _excess(means[:, None], deviations[:, None], bounds[None, :])
    gained: Array = np.sum(widths * (excess[:, :-1] - excess[:, 1:]), axis=1)
    return gained


def _excess(mean: Array, deviation: Array, bound: Array) -> Array:
    """``E[max(accuracy - bound, 0)]`` of normally distributed accuracies."""
    above = (mean - bound) / deviation
    density = np.exp(-0.5 * above**2) / math.sqrt(2 * math.pi)
    excess: Array = deviation * (above * 0.5 * (1 + _erf(above / math.sqrt(2))) + density)
    return excess
