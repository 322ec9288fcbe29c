"""What a device would hold of a DECOLLE layer, for plans and footprints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from qspinn.networks.decolle.fixed_point import FixedPoint
from qspinn.networks.decolle.reporting import ReportsSteps
from qspinn.networks.decolle.settings import DecolleSettings, LayerShape

ROLES = {
    "threshold": "threshold",
    "refractory": "membrane",
    "leak_q": "decay",
    "leak_p": "decay",
    "leak_r": "decay",
}
SCORE_BITS = 32
"""Of the sum of a class's readouts over all steps."""


class DeclaresLayer(ReportsSteps):
    """Says what a device would hold of a layer."""

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
        """
        shape, settings = self.shape, self.settings
        weight, bias = self.weight.detach(), self.bias.detach()
        # While it learns, a bias may double, and it has room to begin.
        room = max(2.0 * float(bias.abs().max()), settings.membrane_bound / 4.0)
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
            ),
        ]
        if not self.whole_inputs:
            declared.append(_tensor("input", "input", shape.traces, low=0.0, high=self.input_max))
        longest = settings.refractory / settings.leak(settings.tau_refractory)
        bounds = {"q": self.input_max, "p": self.input_max, "r": longest}
        for (name, bound), peak in zip(bounds.items(), self.peaks.tolist(), strict=True):
            role, sizes = ("membrane", shape.neurons) if name == "r" else ("trace", shape.traces)
            high = min(bound, peak) if peak > 0.0 else bound
            # Traces are part of the neuron model here: a device that only classifies has them too.
            declared.append(_tensor(name, role, sizes, low=0.0, high=high, training_only=False))
        reach = settings.membrane_bound
        declared.append(
            _tensor("u", "membrane", shape.neurons, low=-reach, high=reach, training_only=True)
        )
        for name, value in settings.constants.items():
            declared.append(_tensor(name, ROLES[name], (), value=value, constant=True))
        if self.is_last:
            scores = (self.num_classes,)
            declared.append(_tensor("scores", None, scores, word_length=SCORE_BITS, state=True))
        return declared


def accumulator_bits(fixed: FixedPoint) -> dict[str, int]:
    """Bits of the exact sums in the worst case, sign included, where all formats are known."""
    names = {"u": "potential", "readout": "readout"}
    return {names[name]: bits + 1 for name, bits in fixed.worst_bits.items()}


def _tensor(name: str, role: str | None, shape: tuple[int, ...], **more: Any) -> dict[str, Any]:
    return {"name": name, "role": role, "shape": shape, **more}
