"""How a quantised neuron charges, fires and resets: exact, with one rounding.

Each function computes the exact value before rounding, as integer hardware
would; :mod:`qspinn.steps.exactness` says which float type that takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qspinn.plan.neurons import Charge
from qspinn.steps import neurons
from qspinn.steps.lowering import FilterNumbers, LeakyNumbers
from qspinn.steps.models import MODELS
from qspinn.steps.traces import filtered


def exact_charge(
    charge: Charge,
    x: Tensor,
    v: Tensor,
    decay: float | Tensor | None,
    v_reset: float | None,
    decay_input: bool,
    dtype: torch.dtype,
) -> Tensor:
    """The membrane potential before rounding and firing, in ``dtype`` at least.

    Args:
        charge: ``"if"``, ``"lif"`` or ``"plif"``.
        x: Input current ``[N, *]``.
        v: Membrane potential ``[N, *]``.
        decay: ``1/tau``; ``None`` for ``"if"``.
        v_reset: Potential that the leak pulls towards; ``None`` means 0.
        decay_input: Whether the current decays too.
        dtype: Float type that holds every intermediate result exactly.
    """
    x, v = widened((x, v), dtype)
    n = LeakyNumbers(leak=_like(decay, x), rest=v_reset or 0.0)
    exact: Tensor = MODELS[charge].step(decay_input)(v, x, None, n)
    return exact


def exact_filter(x: Tensor, trace: Tensor, decay: float | Tensor) -> Tensor:
    """The trace of a synapse filter, before rounding, in float64.

    Args:
        x: Input ``[N, *]``, spikes as a rule.
        trace: The trace so far ``[N, *]``.
        decay: ``k = 1/tau``, in (0, 1].
    """
    x, trace = x.double(), trace.double()
    exact: Tensor = filtered(trace, x, None, FilterNumbers(leak=_like(decay, x)))
    return exact


def fire_and_reset(
    h: Tensor,
    threshold: float | Tensor,
    v_reset: float | None,
    surrogate: Callable[[Tensor], Tensor],
    detach_reset: bool,
    snaps: bool = False,
    counts: bool = False,
) -> tuple[Tensor, Tensor]:
    """Spikes where ``h >= threshold``, or as many as thresholds fit, and the potential after them.

    Hard reset to ``v_reset``; soft reset (``v_reset=None``) subtracts the threshold.

    A threshold that is a tensor is one for each part of ``h``, as torch broadcasts. ``snaps``
    where the surrogate misses 0 and 1 by some last bits.

    Returns:
        Spikes and potential, both ``[N, *]``.
    """
    threshold = _like(threshold, h)
    # In float64 a quotient of two codes rounds to the right whole number, ties included.
    spike = surrogate(h.double() / threshold).to(h.dtype) if counts else surrogate(h - threshold)
    if snaps:
        spike = snapped(spike)
    fired = spike.detach() if detach_reset else spike
    if v_reset is None:
        return spike, neurons.reset_by(h, fired, threshold)
    return spike, neurons.reset_to(h, fired, v_reset)


def snapped(spike: Tensor) -> Tensor:
    """Spikes that are 0 or 1 up to some last bits, as 0 or 1, with the gradient that they had."""
    rest = spike.detach().round() - spike.detach()
    return spike + rest


def _like(constant: Any, value: Tensor) -> Any:
    """A constant in the type of ``value``, which holds every number of its grid."""
    return constant.to(value.dtype) if isinstance(constant, Tensor) else constant


def widened(values: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The values in ``dtype`` where that is wider than their own."""
    if dtype == torch.float64 or any(value.dtype == torch.float64 for value in values):
        return tuple(value.double() for value in values)
    return tuple(value.float() for value in values)
