"""Second moments of a layer's inputs: all that its squared error depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qspinn.quantizers.repair.windows import windows

MOST_POSITIONS = 1 << 13
"""Output positions of a layer and batch that are looked at; beyond that, evenly spaced ones."""
MOST_VALUES = 1 << 23
"""Values in their windows."""


@dataclass
class Moments:
    """Means over output positions, samples and time steps; all in float64.

    With an input of constant 1 behind the others, for the bias: K is the fan-in plus 1.

    Attributes:
        second: Of the quantised network's inputs, ``x x^T``: ``[groups, K, K]``.
        cross: Of the float network's with these, ``x_float x^T``: ``[groups, K, K]``.
        count: Positions.
    """

    second: Tensor
    cross: Tensor
    count: int = 0

    @classmethod
    def seen(cls, layer: Any, floats: Tensor, held: Tensor) -> Moments:
        """The moments of one batch.

        Args:
            layer: A linear or convolutional layer.
            floats: Its input in the float network, ``[*, C, spatial]``.
            held: Its input in the quantised network, of the same shape.
        """
        of_one = layer.weight.numel() // layer.weight.shape[0]  # at least the fan-in
        most = min(MOST_POSITIONS, max(1, MOST_VALUES // of_one))
        x = _with_one(windows(layer, held.double(), most))
        other = _with_one(windows(layer, floats.double(), most))
        return cls(x.mT @ x / x.shape[1], other.mT @ x / x.shape[1], x.shape[1])

    @classmethod
    def mean(cls, several: list[Moments]) -> Moments:
        """The moments of several batches together."""
        count = sum(one.count for one in several)
        second = torch.stack([one.second * (one.count / count) for one in several]).sum(0)
        cross = torch.stack([one.cross * (one.count / count) for one in several]).sum(0)
        return cls(second, cross, count)

    def of_weights(self) -> Moments:
        """Without the constant input."""
        return Moments(self.second[:, :-1, :-1], self.cross[:, :-1, :-1], self.count)


def _with_one(rows: Tensor) -> Tensor:
    """``[groups, positions, K]`` from ``[positions, groups, K - 1]``."""
    return torch.cat([rows, rows.new_ones(*rows.shape[:2], 1)], -1).transpose(0, 1)
