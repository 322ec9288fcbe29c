"""What a device would hold of a DECOLLE layer and compute, by the protocols of `qspinn.plan`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qspinn.networks.decolle.fixed_point import FixedPoint, per_unit
from qspinn.networks.decolle.settings import DecolleSettings, LayerShape
from qspinn.networks.reporting import ReportsWork

ROLES = {
    "threshold": "threshold",
    "refractory": "membrane",
    "leak_q": "decay",
    "leak_p": "decay",
    "leak_r": "decay",
}
SCORE_BITS = 32
"""Of the sum of a class's readouts over all steps."""
TRACE_ADDITIONS = 2
"""Of ``p + k (q - p)``."""
REFRACTORY_ADDITIONS = 4
"""Of ``u - r``, of its comparison with the threshold, and of ``r - k r + refractory``."""


class DeclaresLayer(ReportsWork):
    """Says what a device would hold of a layer and, where somebody asks, what steps compute.

    Traces are no spikes: each one that is not 0 is multiplied by the weights of all the sums that
    it is part of. The readout adds up a column of its weights for each spike. Only the last layer
    is read out on a device that classifies.
    """

    shape: LayerShape
    settings: DecolleSettings
    weight: nn.Parameter
    bias: nn.Parameter
    readout: Tensor
    peaks: Tensor
    num_classes: int
    is_last: bool
    input_max: float
    whole_inputs: bool
    _fixed: FixedPoint | None

    def follow_weights(self) -> None:
        """Counts in the unit that suits the weights as they are now, where it has a unit."""
        raise NotImplementedError

    def device_tensors(self) -> Sequence[Mapping[str, Any]]:
        """The tensors of the layer, by the protocol of `qspinn.plan`.

        To classify, a device holds weights and biases, both traces of every input, the refractory
        state of every neuron, five constants, and in the last layer the readout and the sums of
        what it said. Potentials pass through: a neuron is compared with the threshold as soon as
        its sum is complete.

        To learn on the device, every layer needs its readout, and its potentials too: the surrogate
        gradient is taken when the error of the readout is known, after all neurons have fired. With
        the plain rule that is all, since a weight changes by error, surrogate and trace at hand;
        moments of an optimizer and master copies of weights are not counted.

        A layer that counts in a unit of its own declares numbers in units. It holds as many.
        """
        self.follow_weights()
        shape, settings = self.shape, self.settings
        weight, bias = self.weight.detach(), self.bias.detach()
        units, unit = None if self._fixed is None else self._fixed.units, 1.0
        constants = settings.constants
        if units is not None:
            unit, constants = units.unit, units.settings.constants
            weight, bias = per_unit(weight, unit), per_unit(bias, unit)
        reach = settings.membrane_bound / unit
        # While it learns, a bias may double, and it has room to begin.
        room = max(2.0 * float(bias.abs().max()), reach / 4.0)
        declared: list[dict[str, Any]] = [
            _tensor("weight", "weight", shape.weight, value=weight, channel_axis=0),
            _tensor(
                "bias", "bias", (shape.outputs,), value=bias, channel_axis=0, low=-room, high=room
            ),
            _tensor(
                "readout",
                "weight",
                tuple(self.readout.shape),
                value=self.readout,
                channel_axis=0,
                training_only=not self.is_last,
                powers_of_two="what it reads out is compared, and leaves the network",
            ),
        ]
        if not self.whole_inputs:
            declared.append(_tensor("input", "input", shape.traces, low=0.0, high=self.input_max))
        longest = settings.refractory / settings.leak(settings.tau_refractory)
        bounds = {"q": self.input_max, "p": self.input_max, "r": longest / unit}
        q, p, r = self.peaks.tolist()
        for (name, bound), peak in zip(bounds.items(), (q, p, r / unit), strict=True):
            role, sizes = ("membrane", shape.neurons) if name == "r" else ("trace", shape.traces)
            high = min(bound, peak) if peak > 0.0 else bound
            # Traces are part of the neuron model here: a device that only classifies has them too.
            declared.append(_tensor(name, role, sizes, low=0.0, high=high, training_only=False))
        declared.append(
            _tensor("u", "membrane", shape.neurons, low=-reach, high=reach, training_only=True)
        )
        for name, value in constants.items():
            declared.append(_tensor(name, ROLES[name], (), value=value, constant=True))
        if self.is_last:
            scores = (self.num_classes,)
            declared.append(_tensor("scores", None, scores, word_length=SCORE_BITS, state=True))
        return declared

    def _tell_traces(self, samples: int) -> None:
        if self._report is not None:
            for name in ("q", "p"):
                leak = f"leak_{name}"
                self._report.updates(name, samples=samples, additions=TRACE_ADDITIONS, leak=leak)

    def _tell_neurons(self, samples: int) -> None:
        if self._report is not None:
            additions = REFRACTORY_ADDITIONS
            self._report.updates("r", samples=samples, additions=additions, leak="leak_r")

    def _tell_sums(self, p: Tensor) -> None:
        """Of membrane traces ``[N, *]``."""
        if self._report is None:
            return
        shape = self.shape
        sizes = (self._sums_of(torch.ones_like(p[:1])), p[0].numel(), math.prod(shape.neurons))
        operations = self._sums_of((p != 0).to(p.dtype))
        self._report.synapses("weight", operations, sizes=sizes, samples=len(p), factor="p")

    def _tell_readout(self, spikes: Tensor, steps: int) -> None:
        """Of spikes ``[N, *]``, or of their sums over so many steps."""
        if self._report is None or not self.is_last:
            return
        features, classes = spikes[0].numel(), self.num_classes
        operations, sizes = int(spikes.sum()) * classes, (features * classes, features, classes)
        size = {"samples": len(spikes), "steps": steps}
        self._report.synapses("readout", operations, sizes=sizes, **size)

    def _sums_of(self, active: Tensor) -> int:
        """Of how many sums the ones in ``[N, *]`` are part, added up."""
        shape = self.shape
        if shape.kernel_size is None:
            return int(active.sum(dtype=torch.float64)) * shape.outputs
        kernel = torch.ones(1, *shape.weight[1:], dtype=torch.float64, device=active.device)
        met = F.conv2d(active.double(), kernel, None, shape.stride, shape.kernel_size // 2)
        return round(float(met.sum())) * shape.outputs


def _tensor(name: str, role: str | None, shape: tuple[int, ...], **more: Any) -> dict[str, Any]:
    return {"name": name, "role": role, "shape": shape, **more}
