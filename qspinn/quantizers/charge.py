"""How a quantised neuron charges, fires and resets: exact, with one rounding.

Each function computes the exact value before rounding, as integer hardware
would; :mod:`qspinn.steps.exactness` says which float type that takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qspinn.steps import neurons
from qspinn.steps.lowering import FilterNumbers, LeakyNumbers
from qspinn.steps.models import Step


def exact_step(
    step: Step, x: Tensor, state: Tensor, n: LeakyNumbers | FilterNumbers, dtype: torch.dtype
) -> Tensor:
    """The state after a step, before rounding, in ``dtype`` at least.

    Args:
        step: Of :mod:`qspinn.steps`: from state, input, draws and constants.
        x: Input ``[N, *]``.
        state: Such as the membrane potential ``[N, *]``.
        n: The constants, as real numbers.
        dtype: Float type that holds every intermediate result exactly.
    """
    x, state = widened((x, state), dtype)
    exact: Tensor = step(state, x, None, n._replace(leak=_like(n.leak, x)))
    return exact


class Firing(NamedTuple):
    """How a layer fires and resets."""

    threshold: float | Tensor  # A tensor is one for each part of the potential, as torch broadcasts
    # The potential after a spike; `None`: the threshold is subtracted (soft reset).
    reset: float | None
    detach_reset: bool  # whether the reset is left out of the gradient
    snaps: bool = False  # whether the surrogate misses 0 and 1 by some last bits
    counts: bool = False  # whether it spikes as often as thresholds fit
    # What 1 stands for: surrogate gradients are as wide as in the network that learns.
    gain: float | Tensor = 1.0


def fire_and_reset(
    h: Tensor, surrogate: Callable[[Tensor], Tensor], n: Firing
) -> tuple[Tensor, Tensor]:
    """Spikes where ``h >= threshold``, and the potential after them, both ``[N, *]``."""
    threshold = _like(n.threshold, h)
    # In float64 a quotient of two codes rounds to the right whole number, ties included.
    if n.counts:
        spike = surrogate(h.double() / threshold).to(h.dtype)
    else:
        above = h - threshold
        is_one = not isinstance(n.gain, Tensor) and n.gain == 1.0
        spike = surrogate(above if is_one else above * _like(n.gain, h))
    if n.snaps:
        spike = snapped(spike)
    fired = spike.detach() if n.detach_reset else spike
    if n.reset is None:
        return spike, neurons.reset_by(h, fired, threshold)
    return spike, neurons.reset_to(h, fired, n.reset)


def snapped(spike: Tensor) -> Tensor:
    """Spikes that are 0 or 1 up to some last bits, as 0 or 1, with the gradient that they had."""
    rest = spike.detach().round() - spike.detach()
    return spike + rest


def _like(constant: Any, value: Tensor) -> Any:
    """A constant in the type of ``value``, which holds every number of its grid."""
    return constant.to(value) if isinstance(constant, Tensor) else constant


def widened(values: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The values in ``dtype`` where that is wider than their own."""
    if dtype == torch.float64 or any(value.dtype == torch.float64 for value in values):
        return tuple(value.double() for value in values)
    return tuple(value.float() for value in values)
