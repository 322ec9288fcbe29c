"""What a device would hold of the network and compute, by the protocols of `qspinn.plan`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from qspinn.networks.reporting import ReportsWork
from qspinn.stdp.constants import bounds, constants
from qspinn.stdp.job import Presentation
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
HEADROOM = 2.0**-6
"""By how much the largest threshold may grow when it is rounded."""
CHARGE_ADDITIONS = 2
"""Of a potential in a step: the current, and the comparison with its threshold."""


class ReportsPresentations(ReportsWork):
    """Says what presentations without learning compute, where somebody asks.

    Each spike of an input is added to the current of every neuron, and each spike of a neuron
    lowers the potential of every other one. Each step updates all potentials and refractory
    counters, and the spikes on their way.
    """

    settings: DiehlCookSettings
    weight: nn.Parameter
    neurons: int

    def _tell_presented(self, samples: int, steps: int, result: Presentation) -> None:
        self._tell_sequence(samples)
        self._tell(samples, steps, result.input_spikes, result.spike_counts)

    def _tell(self, samples: int, steps: int, arrived: Tensor | int, fired: Tensor) -> None:
        """What some presentations took.

        Args:
            samples: Presentations.
            steps: Time steps of each.
            arrived: Spikes of all inputs, or their number.
            fired: Spikes of all neurons, or how many of each.
        """
        report = self._report
        if report is None:
            return
        inputs, neurons, others = len(self.weight), self.neurons, self.neurons - 1
        size = {"samples": samples, "steps": steps}
        spikes = int(arrived.sum()) if isinstance(arrived, Tensor) else arrived
        sizes = (inputs * neurons, inputs, neurons)
        report.synapses("weight", spikes * neurons, sizes=sizes, **size)
        sizes = (neurons * others, neurons, neurons)
        lowered = int(fired.sum()) * others
        report.synapses("inhibition", lowered, sizes=sizes, recurrent=True, **size)
        report.updates("v", additions=CHARGE_ADDITIONS, leak="leak", **size)
        if self.settings.refractory > 0:
            report.updates("refractory", additions=1, **size)
        report.updates("pending_spikes", additions=0, **size)


def device_tensors(
    settings: DiehlCookSettings, stdp: STDP, weight: Tensor, theta: Tensor, in_units: bool = False
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
        in_units: Whether neurons have units of their own, and have learned.
    """
    inputs, neurons = weight.shape
    ranges = bounds(settings, stdp)
    if in_units:
        ranges |= _unit_bounds(settings, theta)
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


def _unit_bounds(settings: DiehlCookSettings, theta: Tensor) -> dict[str, tuple[float, float]]:
    """Bounds in units of the neurons: a potential has to reach what its neuron fires at."""
    low, high = (float(end) for end in theta.aminmax())
    total = max(high + settings.threshold - settings.rest, 0.0) * (1.0 + HEADROOM)
    return {"theta": (min(low, 0.0), high), "v": (-max(settings.inhibition, 1.0), total)}


def _counters(settings: DiehlCookSettings, neurons: int) -> list[dict[str, Any]]:
    """What is no fixed-point number: the same bits in every plan and in the baseline."""
    bits = math.ceil(math.log2(settings.refractory + 1))
    pending, each = (settings.inhibition_delay, neurons), (neurons,)
    counters: list[dict[str, Any]] = [
        {"name": "pending_spikes", "shape": pending, "word_length": 1, "state": True},
        {"name": "turns", "shape": each, "word_length": TURN_BITS, "state": True},
        {"name": "learning_constants", "shape": (LEARNING_CONSTANTS,)},
    ]
    for one in counters[1:]:
        one["training_only"] = True
    if bits > 0:
        counters.insert(
            0, {"name": "refractory", "shape": each, "word_length": bits, "state": True}
        )
    return [{"role": None, **one} for one in counters]


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
