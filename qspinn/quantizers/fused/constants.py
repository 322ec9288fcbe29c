"""What the kernels of both directions take, and share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from qspinn import fixed_point, steps
from qspinn.fixed_point.rebound import digest_of
from qspinn.steps.targets.numba import PART

__all__ = [
    "BLOCK",
    "F32",
    "INTEGRATE",
    "LEAK",
    "LEAK_ONLY",
    "SOURCES",
    "Charging",
    "Grid",
    "spread",
]

INTEGRATE, LEAK, LEAK_ONLY = range(3)
"""Kinds of charges."""
BLOCK = 1024
F32 = np.float32
ZERO, ONE, TWO = F32(0.0), F32(1.0), F32(2.0)
SOURCES = digest_of(
    *(Path(str(file)).parent for file in (__file__, steps.__file__, fixed_point.__file__))
)
"""Of the sources of the kernels, a part of the keys of numba's cache."""


class Charging(NamedTuple):
    """How potentials charge, fire and are reset; numpy numbers, for numba.

    Attributes:
        kind: `INTEGRATE`, `LEAK` or `LEAK_ONLY`.
        rest: What the leak pulls towards; of the type that the charge is computed in.
        soft: Whether the threshold is subtracted.
        reset: What a hard reset sets, float32.
        codes: How many codes there are, with those that stand for what was saturated.
    """

    kind: int
    rest: Any
    soft: bool
    reset: Any
    codes: int


class Grid(NamedTuple):
    """The grid of the potentials; numpy numbers, for numba.

    Attributes:
        scale: 1 / step, of the type that the charge is computed in.
        step: float32.
        low: Smallest code, float32.
        high: Largest code, float32.
        span: Width of the range where codes wrap around, as `scale`; 0: they saturate.
        mode: Of the rounding, index in `ROUNDINGS`.
        key: uint64: of the draws of a stochastic rounding.
        drawn: Draws that were taken before.
    """

    scale: Any
    step: Any
    low: Any
    high: Any
    span: Any
    mode: int
    key: Any
    drawn: int


@njit(**PART)
def spread(held, rows, first, block):  # type: ignore[no-untyped-def]
    """The constants of a block of neurons, of which there is one for all, or one for each row."""
    if held.shape[0] == 1:
        block[:] = held[0]
    else:
        for i in range(block.shape[0]):
            block[i] = held[rows[first + i]]
