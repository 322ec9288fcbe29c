"""Gradients of learned step sizes from their definition: no torch, no automatic differentiation.

LSQ (Esser et al., ICLR 2020, arXiv 1902.08153), equations 1 to 3: a number `x` is held as
``step * code``, and ``d (step * code) / d step`` is ``code - x / step`` where `x` was rounded, and
the code, which is then an end of the range, where it was saturated.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np

from tests.reference.fixed_point import code_range, limited, power_of_two, rounded


def slope(
    x: Fraction, integer_bits: int, fraction_bits: int, rounding: str, overflow: str
) -> Fraction:
    """``d v / d ln(step)``: the derivative by the step, times the step."""
    low, high = code_range(integer_bits, fraction_bits, signed=True)
    step = power_of_two(-fraction_bits)
    free = rounded(x / step, rounding)
    code = limited(free, low, high, overflow)
    inside = low <= free <= high or overflow == "wrap"
    return step * (code - x / step) if inside else step * code


class LayerInItsOwnPotentials:
    """A linear layer and neurons with a hard reset, and how a step moves their potentials.

    Everything is counted from rest, in the potentials of the network: neuron j holds its weights as
    ``scale[j] * 2**-weight_bits[j] * code`` and its potential as ``scale[j] * code``. Derivatives
    are carried along with the values (forward mode), by ``ln(scale[j])``: once of what the rounding
    of weights adds, once of what the rounding of potentials adds.
    """

    def __init__(
        self,
        weight: np.ndarray,
        scale: np.ndarray,
        weight_bits: np.ndarray,
        weight_codes: tuple[int, int],
        codes: tuple[int, int],
        threshold: float,
        leak: float,
    ) -> None:
        self.scale, self.codes = scale, codes
        self.threshold, self.leak = threshold, leak
        step = (scale * 2.0**-weight_bits)[:, None]
        free = np.floor(weight / step + 0.5)
        code = free.clip(*weight_codes)
        # As multiples of the scale: such numbers are exact, and so is what is rounded of them.
        self.multiples = code * 2.0 ** -weight_bits[:, None]
        self.by_scale = step * code - np.where(code == free, weight, 0.0)

    def gradients(
        self, x: np.ndarray, asked: np.ndarray, surrogate: Callable[[np.ndarray], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of ``sum(asked * spikes)``: by what weights, and by what potentials, were rounded to.

        Args:
            x: Spikes ``[T, inputs]``.
            asked: ``[T, neurons]``.
            surrogate: Derivative of a spike by the potential above threshold.
        """
        u = np.zeros_like(self.scale)
        moved = np.zeros((2, len(self.scale)))
        found = np.zeros((2, len(self.scale)))
        fires_at = np.round(self.threshold / self.scale)
        for arrived, wanted in zip(x, asked, strict=True):
            charged = u - self.leak * u + self.multiples @ arrived
            moved = moved - self.leak * moved
            moved[0] += self.by_scale @ arrived
            free = np.floor(charged + 0.5)
            # What lies above the largest code spikes, and is not rounded while it learns.
            above, below = charged > self.codes[1], free < self.codes[0]
            u = np.where(above, charged, free.clip(self.codes[0], None))
            moved = np.where(below, 0.0, moved)
            by_rounding = u - np.where(below, 0.0, charged)
            moved[1] += np.where(above, 0.0, self.scale * by_rounding)
            found += wanted * surrogate(self.scale * u - self.threshold) * moved
            fires = u >= fires_at
            u, moved = np.where(fires, 0.0, u), np.where(fires, 0.0, moved)
        return found[0], found[1]
