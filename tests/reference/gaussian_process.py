"""A Gaussian process over word lengths, written out: loops, sums over sets of roles, an inverse."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Mixtures = Sequence[tuple[int, ...]]


def covariance(first: Mixtures, second: Mixtures, scales: Sequence[float]) -> Any:
    """Of what is lost in two lists of mixtures: each role alone, each pair, each three, and so on.

    The motion of a role has covariance ``scale * min(step, other step)``; 32 stands for no step.
    """
    table = np.zeros((len(first), len(second)))
    for row, a in enumerate(first):
        for column, b in enumerate(second):
            single = [
                scale * min(0.0 if n == 32 else 0.5**n for n in pair)
                for scale, pair in zip(scales, zip(a, b, strict=True), strict=True)
            ]
            for count in range(1, len(single) + 1):
                for chosen in itertools.combinations(single, count):
                    table[row, column] += math.prod(chosen)
    return table


def conditioned(
    known: Any, crossed: Any, own: Any, residuals: Sequence[float], roughness: float
) -> tuple[Any, Any, float]:
    """Means and variances of what was not measured, and the logarithmic likelihood.

    Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006, eq. 2.25, 2.26 and 2.30;
    the roughness is part of what is predicted.
    """
    noisy = known + roughness**2 * np.eye(len(residuals))
    inverse = np.linalg.inv(noisy)
    values = np.array(residuals)
    means = crossed @ inverse @ values
    variances = np.diag(own - crossed @ inverse @ crossed.T) + roughness**2
    _, determinant = np.linalg.slogdet(noisy)
    likelihood = -0.5 * (
        values @ inverse @ values + determinant + len(values) * math.log(2 * math.pi)
    )
    return means, variances, float(likelihood)
