"""The single numbers of the network that have formats of their own, and bounds of its states."""

from __future__ import annotations

import math

from qspinn.fixed_point import FixedPointFormat, TensorQuantizer, covering_integer_bits
from qspinn.stdp.numbers import WIDEST
from qspinn.stdp.settings import STDP, DiehlCookSettings


def constants(settings: DiehlCookSettings, stdp: STDP) -> dict[str, float]:
    """Name -> value of every single number that has a format of its own."""
    return {
        "threshold": settings.threshold - settings.rest,
        "reset": settings.reset - settings.rest,
        "inhibition": settings.inhibition,
        "leak": -math.expm1(-1.0 / settings.tau),
        "leak_pre": -math.expm1(-1.0 / stdp.tau_pre),
        "leak_post": -math.expm1(-1.0 / stdp.tau_post),
    }


def bounds(settings: DiehlCookSettings, stdp: STDP) -> dict[str, tuple[float, float]]:
    """Name -> the bounds of every state and of what is learned.

    A potential below ``-inhibition`` saturates there: the neuron is out of the running either way.
    """
    highest = settings.threshold - settings.rest + settings.theta_max
    return {
        "weight": (0.0, stdp.weight_max),
        "theta": (0.0, settings.theta_max),
        "v": (-max(settings.inhibition, 1.0), highest),
        "trace_pre": (0.0, 1.0),
        "trace_post": (0.0, 1.0),
    }


def wide(name: str, settings: DiehlCookSettings, stdp: STDP) -> TensorQuantizer:
    """How a tensor that the plan leaves at 32 bits is held beside quantised ones."""
    values = constants(settings, stdp)
    if name in values:
        value = values[name]
        low, high = min(value, 0.0), abs(value)
    else:
        low, high = bounds(settings, stdp)[name]
    bits = covering_integer_bits(max(-low, high))
    signed = low < 0
    return TensorQuantizer(name, FixedPointFormat(bits, WIDEST - int(signed) - bits, signed))
