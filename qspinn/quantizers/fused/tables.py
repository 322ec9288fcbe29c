"""What gradients need to know of each code of a potential, of which there are few."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["LARGEST", "Fires", "tables_of"]

LARGEST = 1 << 18
"""How many entries a table may have."""


@dataclass(frozen=True)
class Fires:
    """How a layer fires, as its tables depend on it.

    Attributes:
        low: Smallest code of the potential.
        high: Largest.
        step: The potential of a code of 1.
        wraps: Whether codes wrap around.
        reset: The potential after a spike; None: the threshold is subtracted.
        detached: Whether the reset is left out of the gradient.
        known: All that the surrogate function depends on.
        surrogate: The function.
    """

    low: int
    high: int
    step: float
    wraps: bool
    reset: float | None
    detached: bool
    known: object
    surrogate: Callable[[Tensor], Tensor] = field(compare=False, repr=False)

    @property
    def codes(self) -> int:
        """Entries for each threshold: one for each code, and one beyond either end."""
        return self.high - self.low + 3


def tables_of(fires: Fires, thresholds: Tensor) -> Tensor | None:
    """The tables of :mod:`qspinn.quantizers.fused.backward`, float32 ``[5, K]``.

    Args:
        fires: How the layer fires.
        thresholds: float32 ``[R]``.

    Returns:
        None where the surrogate function spikes at other potentials than those that reach the
        threshold.
    """
    if len(thresholds) > 1:
        return _made(fires, thresholds)
    return _kept(fires, float(thresholds))


@functools.lru_cache(maxsize=128)
def _kept(fires: Fires, threshold: float) -> Tensor | None:
    return _made(fires, torch.tensor([threshold]))


@torch.inference_mode(False)
def _made(fires: Fires, thresholds: Tensor) -> Tensor | None:
    codes = torch.arange(fires.low - 1, fires.high + 2).clamp_(fires.low, fires.high)
    h = (codes.to(torch.float32) * fires.step).repeat(len(thresholds), 1)
    threshold = thresholds.detach().clone().unsqueeze(1)
    with torch.enable_grad():
        above = (h - threshold).requires_grad_()
        spike = fires.surrogate(above)
        (slope,) = torch.autograd.grad(spike.sum(), above)
    fired = (h >= threshold).to(torch.float32)
    if not torch.equal(spike, fired):
        return None
    after = h - fired * threshold if fires.reset is None else torch.where(fired > 0, fires.reset, h)
    # What a spike changes of the potential after the step, where that has a gradient.
    by_reset = -threshold.expand_as(h) if fires.reset is None else fires.reset - h
    through = torch.zeros_like(h) if fires.detached else by_reset * slope
    straight = 1.0 - fired if fires.reset is not None else torch.ones_like(h)
    direct = torch.zeros_like(h) if fires.reset is not None else fired
    passes = torch.ones_like(h)
    if not fires.wraps:
        passes[:, 0] = passes[:, -1] = 0.0
    entries = ((straight + through) * passes, slope * passes, -direct - through, -slope, after)
    return torch.stack([entry.reshape(-1) for entry in entries])
