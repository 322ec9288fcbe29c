"""What a run is worth: one number from its accuracy and its footprint."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from qspinn.records import RunRecord

__all__ = ["LinearReward", "Reward"]

Reward = Callable[[RunRecord], float]
"""Any callable that gives a finite number for a record; the highest wins."""


@dataclass(frozen=True)
class LinearReward:
    """`accuracy - mu * footprint / baseline_footprint`, with the accuracy in [0, 1].

    Attributes:
        mu: The accuracy that one would give up to save the whole 32-bit footprint. At 0.1,
            going from 8 bits to 4 (an eighth of the baseline) is worth 1.25 points of accuracy.
    """

    mu: float = 0.1

    def __post_init__(self) -> None:
        mu: object = self.mu
        number = isinstance(mu, (int, float)) and not isinstance(mu, bool)
        if not (number and 0 <= self.mu < math.inf):
            raise ValueError(
                f"reward.mu={mu!r} is not a finite number of at least 0; write for example 0.1"
            )

    def __call__(self, record: RunRecord) -> float:
        """The reward of a record."""
        return record.accuracy - self.mu * record.footprint_bits / record.baseline_footprint_bits

    def __str__(self) -> str:
        return f"accuracy - {self.mu:g} * footprint / baseline footprint"
