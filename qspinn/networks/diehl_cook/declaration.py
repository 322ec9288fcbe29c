"""What a device would hold of the network, for plans and footprints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from qspinn.stdp.constants import bounds, constants
from qspinn.stdp.numbers import Numbers
from qspinn.stdp.settings import STDP, DiehlCookSettings

ROLES = {
    "threshold": "threshold",
    "reset": "membrane",
    "inhibition": "membrane",
    "leak": "decay",
    "leak_pre": "decay",
    "leak_post": "decay",
}
TURN_BITS = 16
"""Of the counter of a neuron's updates, which spreads the draws of stochastic rounding."""
LEARNING_CONSTANTS = 6
"""rate_pre, rate_post, trace_target, weight_sum, theta_plus and the decay of theta."""


def device_tensors(
    settings: DiehlCookSettings, stdp: STDP, weight: Tensor, theta: Tensor
) -> Sequence[Mapping[str, Any]]:
    """The tensors of a network, by the protocol of `qspinn.plan`.

    Inference holds weights, theta, potentials, refractory counters, spikes on their way through the
    inhibitory layer, and four constants; learning holds traces, their leaks and the constants of
    the rule as well.

    Args:
        settings: Of the neurons.
        stdp: Of the plasticity.
        weight: ``[inputs, neurons]``.
        theta: ``[neurons]``.
    """
    inputs, neurons = weight.shape
    ranges = bounds(settings, stdp)
    values = {"weight": weight, "theta": theta}
    shapes = {
        "weight": ("weight", (inputs, neurons)),
        "theta": ("theta", (neurons,)),
        "v": ("membrane", (neurons,)),
        "trace_pre": ("trace", (inputs,)),
        "trace_post": ("trace", (neurons,)),
    }
    declared: list[dict[str, Any]] = []
    for name, (role, shape) in shapes.items():
        low, high = ranges[name]
        tensor = {"name": name, "role": role, "shape": shape, "low": low, "high": high}
        if name in values:
            tensor["value"] = values[name]
        declared.append(tensor)
    declared[0]["channel_axis"] = 1
    for name, value in constants(settings, stdp).items():
        single = {"name": name, "role": ROLES[name], "shape": (), "value": value, "constant": True}
        declared.append({**single, "training_only": name in ("leak_pre", "leak_post")})
    return [*declared, *_counters(settings, neurons)]


def _counters(settings: DiehlCookSettings, neurons: int) -> list[dict[str, Any]]:
    """What is no fixed-point number: the same bits in every plan and in the baseline."""
    shared: dict[str, Any] = {"role": None, "state": True}
    counters = []
    if settings.refractory > 0:
        bits = math.ceil(math.log2(settings.refractory + 1))
        counters.append({"name": "refractory", "shape": (neurons,), "word_length": bits, **shared})
    pending = (settings.inhibition_delay, neurons)
    counters.append({"name": "pending_spikes", "shape": pending, "word_length": 1, **shared})
    counters.append(
        {"name": "turns", "shape": (neurons,), "word_length": TURN_BITS, "training_only": True}
        | shared
    )
    counters.append(
        {
            "name": "learning_constants",
            "role": None,
            "shape": (LEARNING_CONSTANTS,),
            "training_only": True,
        }
    )
    return counters


def accumulator_bits(numbers: Numbers, inputs: int) -> dict[str, int]:
    """Bits of the exact sums in the worst case, sign included.

    ``current``: all inputs spike at once with the largest weights. ``charge``: leak, current and
    inhibition on their common grid.
    """
    neuron = numbers.neuron
    current = inputs * int(numbers.weight.to.high)
    charge = max(abs(neuron.v.low), neuron.v.high) << neuron.down
    charge += current << int(neuron.current_up.max())
    charge += int(neuron.inhibition)
    return {"current": current.bit_length(), "charge": charge.bit_length() + 1}
