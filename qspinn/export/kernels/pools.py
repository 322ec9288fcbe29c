"""Arrays that are laid out one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Numbers", "Pool"]

Numbers = NDArray[np.int64]


class Pool:
    """Arrays of whole numbers, one after the other in a single one."""

    def __init__(self) -> None:
        self.parts: list[Numbers] = []
        self.size = 0

    def add(self, numbers: Any) -> int:
        """Where these numbers begin."""
        flat = np.asarray(numbers, np.int64).ravel()
        self.parts.append(flat)
        self.size += flat.size
        return self.size - flat.size

    def joined(self, dtype: Any) -> NDArray[Any]:
        """All numbers; int32 sums of weights are right modulo 2^32."""
        return np.concatenate([np.zeros(0, np.int64), *self.parts]).astype(dtype)
