"""Collects a sample of the values that pass a point of a network."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Observer:
    """Keeps the extremes and an evenly spaced sample of what it sees.

    Attributes:
        minimum: Smallest value so far.
        maximum: Largest value so far.
        finite: Whether every value so far was finite.
    """

    def __init__(self, sample_size: int = 65536, per_call: int = 8192) -> None:
        """Keeps at most ``sample_size`` values, ``per_call`` of each tensor."""
        self.sample_size = sample_size
        self.per_call = per_call
        self.minimum = float("inf")
        self.maximum = float("-inf")
        self.finite = True
        self._kept: list[Tensor] = []
        self._count = 0

    @property
    def empty(self) -> bool:
        """Whether nothing has been seen."""
        return self.finite and self.minimum > self.maximum

    def see(self, values: Tensor) -> None:
        """Takes in one tensor of any shape."""
        flat = values.detach().reshape(-1)
        if flat.numel() == 0:
            return
        low, high = torch.aminmax(flat)
        if not (math.isfinite(low.item()) and math.isfinite(high.item())):
            self.finite = False
            return
        self.minimum = min(self.minimum, low.item())
        self.maximum = max(self.maximum, high.item())
        kept = flat[:: max(1, flat.numel() // self.per_call)].float().cpu()
        self._kept.append(kept)
        self._count += kept.numel()
        if self._count > 2 * self.sample_size:
            self._thin()

    def sample(self) -> Tensor:
        """The sample, with both extremes in it; ``[n]``, float32."""
        self._thin()
        extremes = torch.tensor([self.minimum, self.maximum])
        return torch.cat([*self._kept, extremes])

    def _thin(self) -> None:
        joined = torch.cat(self._kept) if self._kept else torch.empty(0)
        step = -(-joined.numel() // self.sample_size) if joined.numel() else 1
        self._kept = [joined[::step]]
        self._count = self._kept[0].numel()
