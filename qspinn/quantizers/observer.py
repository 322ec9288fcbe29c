"""Collects a sample of the values that pass a point of a network."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor


class Sees(Protocol):
    """What takes in the values that pass."""

    def see(self, values: Tensor) -> None:
        """Takes in one tensor of any shape."""


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


def stride(count: int, most: int) -> int:
    """The step through ``count`` values that meets no regular pattern of theirs."""
    step = -(-count // most)
    while math.gcd(step, count) != 1:
        step += 1
    return step


def any_not_binary(values: Tensor) -> Tensor:
    """Whether any value is neither 0 nor 1, as a tensor: no device is waited for."""
    held = values.detach()
    return ((held != 0) & (held != 1)).any()


@dataclass
class Glimpse:
    """What one training batch shows of a tensor: extremes and a small sample.

    Unlike :class:`Observer`, it waits for no device while the batch is computed.

    Attributes:
        watches: Whether it notes if every value was 0 or 1.
        per_call: How many values it keeps of each tensor that it sees.
        most: How many values it hands on.
    """

    watches: bool = False
    per_call: int = 1024
    most: int = 4096
    _extremes: list[Tensor] = field(default_factory=list, repr=False)
    _kept: list[Tensor] = field(default_factory=list, repr=False)
    _others: list[Tensor] = field(default_factory=list, repr=False)

    @property
    def empty(self) -> bool:
        """Whether nothing has been seen."""
        return not self._extremes

    def see(self, values: Tensor) -> None:
        """Takes in one tensor of any shape."""
        flat = values.detach().reshape(-1)
        if flat.numel() == 0:
            return
        self._extremes.append(torch.stack(torch.aminmax(flat)))
        if self.watches:
            self._others.append(any_not_binary(flat))
        self._kept.append(flat[:: stride(flat.numel(), self.per_call)])

    def extremes(self) -> tuple[float, float]:
        """Smallest and largest value; not finite where any value was not."""
        held = torch.stack(self._extremes)
        if not bool(torch.isfinite(held).all()):
            return math.nan, math.nan
        return float(held[:, 0].min()), float(held[:, 1].max())

    def sample(self) -> Tensor:
        """The sample; ``[n]``, float64, on the CPU."""
        joined = torch.cat(self._kept)
        return joined[:: -(-joined.numel() // self.most)].double().cpu()

    def is_binary(self, training: bool) -> bool:
        """Whether all of it was 0 or 1; in training, also as dropout scales it: 0 or above 1."""
        if not self._others or not bool(torch.stack(self._others).any()):
            return True
        low, high = self.extremes()
        if not training or low != 0.0 or not high > 1.0:
            return False
        return all(bool(((kept == 0) | (kept == high)).all()) for kept in self._kept)
