"""The words that steps are written in, for Python numbers, NumPy arrays and tensors.

On whole numbers (Python integers, integer arrays and tensors) they are what integer hardware does.
On real numbers (floats) there are no grids to change, so shifts change nothing. Other engines have
words of their own under the same names, see :mod:`qspinn.steps.targets`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from qspinn.fixed_point.rounding import ROUNDINGS

MODES = {name: mode for mode, name in enumerate(ROUNDINGS)}
TRUNCATE, NEAREST, STOCHASTIC = MODES["truncate"], MODES["nearest"], MODES["stochastic"]
TOWARD_ZERO, NEAREST_EVEN = MODES["toward_zero"], MODES["nearest_even"]
NEAREST_AWAY = MODES["nearest_away"]


class Rounding(NamedTuple):
    """How the results of one tensor are rounded and brought into range.

    Attributes:
        mode: One of the modes above.
        low: Smallest code.
        high: Largest code.
        wrap: Whether codes outside wrap around, modulo ``high - low + 1``, instead of saturating.
    """

    mode: int
    low: int
    high: int
    wrap: bool


def is_whole(x: Any) -> bool:
    """Whether these are codes, and not real numbers."""
    if isinstance(x, Tensor):
        return not x.is_floating_point()
    return not isinstance(x, float | np.floating) and getattr(x, "dtype", np.dtype(int)).kind != "f"


def up(x: Any, bits: Any) -> Any:
    """``x`` on a grid with so many more fraction bits."""
    return x << bits if is_whole(x) else x


def down(x: Any, bits: Any) -> Any:
    """``x`` on a grid with so many fraction bits less, rounded down."""
    return x >> bits if is_whole(x) else x


def chosen(condition: Any, a: Any, b: Any) -> Any:
    """``a`` where the condition holds, else ``b``.

    A condition that is 0 or 1 in real numbers, as spikes are, passes its gradient on.
    """
    if isinstance(condition, Tensor):
        if not condition.is_floating_point():
            return torch.where(condition, a, b)
        others = b * (1.0 - condition)
        return others + condition * a if isinstance(a, Tensor) or a else others
    return np.where(condition, a, b) if isinstance(condition, np.ndarray) else a if condition else b


def larger(x: Any, bound: Any) -> Any:
    """The larger of two numbers."""
    if isinstance(x, Tensor):
        return torch.maximum(x, bound) if isinstance(bound, Tensor) else x.clamp(min=bound)
    return np.maximum(x, bound) if isinstance(x, np.ndarray) else max(x, bound)


def clamped(x: Any, low: Any, high: Any) -> Any:
    """The number in ``[low, high]`` that is nearest to ``x``."""
    if isinstance(x, Tensor):
        if isinstance(high, Tensor):  # torch takes two numbers, or two tensors
            return torch.minimum(x.clamp(min=low), high)
        return x.clamp(low, high)
    return np.clip(x, low, high) if isinstance(x, np.ndarray) else min(max(x, low), high)


def quotient(a: Any, b: Any) -> Any:
    """``a / b``; of whole numbers, rounded down."""
    return a // b if is_whole(a) else a / b


def whole_quotient(a: Any, b: Any) -> Any:
    """``a / b``, rounded down to a whole number."""
    return a // b


def top_bits(random: Any, bits: int) -> Any:
    """The highest bits of a 64-bit word, as a whole number that is not negative."""
    return (random >> (64 - bits)) & ((1 << bits) - 1) if bits else 0
