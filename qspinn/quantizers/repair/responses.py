"""How a layer of neurons answers currents, and how far its answers are from the float network's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qspinn.quantizers.matching import MEMORY


def responses(node: Any, currents: Tensor) -> Tensor:
    """What a neuron layer sends in answer to currents, from fresh states; ``[T, N, *]``.

    Its own quantised step computes it. States are reset before and after; hooks see nothing.

    Args:
        node: With its quantizer attached.
        currents: ``[T, N, *]``.
    """
    node.reset()
    try:
        if getattr(node, "step_mode", "s") == "m":
            return torch.as_tensor(node.forward(currents))
        return torch.stack([node.forward(current) for current in currents])
    finally:
        node.reset()


def difference(sent: Tensor, wanted: Tensor, shape: torch.Size) -> Tensor:
    """The squared difference between two answers ``[T, N, *]``, summed up to ``shape``; float64.

    Differences add up over time before they are squared, so that a spike some steps late weighs
    little, and one that is missing or too much weighs for long.

    Args:
        sent: An answer.
        wanted: The one that it should be.
        shape: Of the result; broadcasts to ``[N, *]``, such as ``[C, 1, 1]``.
    """
    level = torch.zeros_like(wanted[0], dtype=torch.float64)
    total = torch.zeros_like(level)
    for one, other in zip(sent.double(), wanted.double(), strict=True):
        level = MEMORY * level + (one - other)
        total += level.square()
    return total.sum_to_size(shape)
