"""A model of the accuracy of mixed precisions, fitted to the few that were measured."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from qspinn.selection.search.significance import FLOAT_BITS, Significance

Array = NDArray[np.float64]

ROUGHNESS = (0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.012, 0.016, 0.032)
"""Standard deviations to choose from, of unexplained differences between neighbouring mixtures."""
LEAST_LOSS = 0.001
"""Loss that a role is assumed to be capable of, however little it lost in the measurements."""


class Kriging:
    """A Gaussian process over word lengths.

    What a role loses is a Brownian motion over its rounding step ``2**-word_length``: nothing at
    32 bits, and between two measured word lengths a straight line over the step, the less certain
    the farther from both. Roles act together as in an analysis of variance (each alone, each pair,
    and so on), by the kernel ``prod(1 + k_i) - 1`` (Durrande et al., J. Multivariate Anal. 115,
    2013): roles that lose little alone are assumed to interact little. On top lies a
    roughness without correlation. It belongs to the mixtures, since the same run gives the same
    accuracy again, so that it adds to the predictions of others. Its size maximises the likelihood
    (Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006, eq. 2.30;
    the predictions are their eq. 2.25 and 2.26).

    Args:
        found: The significance of each group; gives how much it is expected to lose.
        word_lengths: ``[N, len(found)]`` of what was measured, 32 for what was in 32-bit.
        accuracies: ``[N]``.
        baseline: Accuracy of the 32-bit network.

    Attributes:
        roughness: Standard deviation.
    """

    def __init__(
        self,
        found: Sequence[Significance],
        word_lengths: Array,
        accuracies: Array,
        baseline: float,
    ) -> None:
        self.baseline = baseline
        self._scales = np.array([_scale(one) for one in found])
        self._steps = _step(word_lengths)
        kernel = self._kernel(self._steps)
        residuals = accuracies - baseline
        best = -np.inf
        for roughness in ROUGHNESS:
            root = np.linalg.cholesky(kernel + roughness**2 * np.eye(len(residuals)))
            weights = np.linalg.solve(root, residuals)
            likelihood = -0.5 * weights @ weights - np.log(np.diag(root)).sum()
            if likelihood > best:
                best = likelihood
                self.roughness, self._root, self._weights = roughness, root, weights

    def predict(self, word_lengths: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the accuracy of mixtures that were not measured.

        Args:
            word_lengths: ``[M, len(found)]``.

        Returns:
            ``[M]`` and ``[M]``.
        """
        steps = _step(word_lengths)
        known = np.linalg.solve(self._root, self._kernel(steps).T)
        alone = np.prod(1 + steps * self._scales, axis=1) - 1
        variances = np.maximum(0.0, alone - np.sum(known**2, axis=0))
        means: Array = self.baseline + known.T @ self._weights
        return means, np.sqrt(variances + self.roughness**2)

    def _kernel(self, steps: Array) -> Array:
        """Covariances ``[M, N]`` of mixtures with those that were measured, without roughness."""
        product = np.ones((len(steps), len(self._steps)))
        for group, scale in enumerate(self._scales):
            product *= 1 + scale * np.minimum.outer(steps[:, group], self._steps[:, group])
        return product - 1


def _step(word_lengths: Array) -> Array:
    """The rounding step, in units of the largest number that the format holds; 0 for 32-bit."""
    return np.where(word_lengths >= FLOAT_BITS, 0.0, 2.0 ** -np.asarray(word_lengths, float))


def _scale(one: Significance) -> float:
    """Variance per step: the quadratic variation of what was lost, over the largest step."""
    drops = [0.0, *(point.drop for point in reversed(one.points))]
    variation = sum((then - now) ** 2 for now, then in pairwise(drops))
    return max(variation, LEAST_LOSS**2) * 2.0 ** one.points[0].word_length
