"""What engines answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from qspinn.export.model import Codes

__all__ = ["Answers", "largest"]


@dataclass(frozen=True, eq=False)
class Answers:
    """What a device answers.

    Attributes:
        sums: ``[N, answers]``; ``[T, N, answers]`` where each step answers.
        fraction_bits: Of the sums.
        overflows: Operation -> results that its accumulator could not hold.
        divisors: Of the answers; empty: none.
    """

    sums: Codes
    fraction_bits: int
    overflows: Mapping[int, int] = field(default_factory=dict)
    divisors: tuple[int, ...] = ()

    @property
    def classes(self) -> Codes:
        """The class with the largest sum, by its divisor; the first of several: ``[N]``."""
        totals = self.sums.sum(0) if self.sums.ndim == 3 else self.sums
        return largest(totals, self.divisors)


def largest(sums: Codes, divisors: tuple[int, ...] = ()) -> Codes:
    """The answer that is largest when divided by its divisor, the first of several: ``[N]``."""
    if not divisors:
        return sums.argmax(-1)
    best = np.zeros(len(sums), np.int64)
    by, rows = np.array(divisors, np.int64), np.arange(len(sums))
    for answer in range(1, sums.shape[1]):
        wins = sums[:, answer] * by[best] > sums[rows, best] * by[answer]
        best = np.where(wins, answer, best)
    return best
