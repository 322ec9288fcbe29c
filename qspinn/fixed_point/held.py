"""How a tensor is held in fixed point, as those who compute with it want to know it."""

from __future__ import annotations

import zlib
from typing import Protocol

import torch

from qspinn.fixed_point.format import Format


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


def stored_draws(quantizer: Quantizer, device: torch.device) -> torch.Generator | None:
    """The random numbers for a value that a device has stored, where its rounding needs any.

    What is stored was drawn once: the path of the tensor seeds it, so it is the same at every use.
    """
    if quantizer.rounding != "stochastic":
        return None
    return torch.Generator(device).manual_seed(zlib.crc32(quantizer.path.encode()))
