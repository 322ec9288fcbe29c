"""How a tensor is held in fixed point, as those who compute with it want to know it."""

from __future__ import annotations

import zlib
from typing import Protocol

import torch

from qspinn.fixed_point.format import Format
from qspinn.fixed_point.noise import Draws
from qspinn.fixed_point.quantize import quantize


class Quantizer(Protocol):
    """How one tensor is held."""

    @property
    def path(self) -> str:
        """Its path, for errors and for what is drawn for it."""

    @property
    def format(self) -> Format:
        """Its format."""

    @property
    def rounding(self) -> str:
        """Its rounding."""

    @property
    def overflow(self) -> str:
        """Its overflow."""


def stored_draws(quantizer: Quantizer) -> Draws | None:
    """The random numbers for a value that a device has stored, where its rounding needs any.

    What is stored was drawn once: the path of the tensor seeds it, so it is the same at every use.
    """
    if quantizer.rounding != "stochastic":
        return None
    return Draws(zlib.crc32(quantizer.path.encode()))


def stored_constant(value: float, fmt: Format, rounding: str, overflow: str = "saturate") -> float:
    """A single number that a device stores, such as a threshold or a leak, on its grid.

    It is rounded once, so that stochastic rounding would only make it worse: it takes the nearest.

    Raises:
        ValueError: As `quantize`.
    """
    rounding = "nearest" if rounding == "stochastic" else rounding
    return float(quantize(torch.tensor([value], dtype=torch.float64), fmt, rounding, overflow))
