"""The operations of a device model that goes on learning."""

from __future__ import annotations

from dataclasses import dataclass

from qspinn.export.learning import DeviceLearning, check_learning
from qspinn.export.model import (
    AdaptiveNeuron,
    DeviceModel,
    DeviceOperation,
    LabelSums,
    RandomSpikes,
    Synapse,
    Total,
)
from qspinn.plan.graph import Operand

__all__ = ["LearningLayers", "learning_layers"]


@dataclass(frozen=True)
class LearningLayers:
    """Numbers of operations.

    Attributes:
        spikes: The random spikes of the inputs.
        synapse: The weights that are learned.
        neurons: The neurons that they lead to.
        labels: The readout by labels of neurons; None: another one, or none.
    """

    spikes: int
    synapse: int
    neurons: int
    labels: int | None


def learning_layers(model: DeviceModel, learning: DeviceLearning) -> LearningLayers:
    """Finds what learns: inputs that spike at random, weights, and adaptive neurons.

    Raises:
        ValueError: There is another network, or constants for another number of neurons.
    """
    operations = model.operations
    neurons = [n for n, one in enumerate(operations) if isinstance(one.what, AdaptiveNeuron)]
    if len(neurons) != 1:
        raise ValueError(f"a network that learns has one layer of neurons, not {len(neurons)}")
    one = operations[neurons[0]]
    synapse = _source(one, "neurons that learn take their currents in the same step")
    what = operations[synapse].what
    if not isinstance(what, Synapse) or what.stride or what.bias is not None:
        raise ValueError("a network that learns has weights from all inputs to all neurons")
    spikes = _source(operations[synapse], "weights that are learned take spikes of the same step")
    plain = isinstance(operations[spikes].what, RandomSpikes)
    if not plain or _source(operations[spikes], _INPUTS) or model.frame_stride:
        raise ValueError(_INPUTS)
    weight = model.tensors[what.weight]
    if weight.shape != (one.size, operations[spikes].size):
        raise ValueError("a network that learns has weights from all inputs to all neurons")
    if any(operand != Operand(spikes) for operand in one.operands[1:]):
        raise ValueError("neurons that learn draw from the spikes that their weights take")
    if any(operations[n].is_final for n in (spikes, synapse, neurons[0])):
        raise ValueError("a network that learns computes its neurons in each step")
    if weight.format.signed:
        raise ValueError("weights that are learned are never negative; write an unsigned format")
    check_learning(learning, one.size)
    return LearningLayers(spikes, synapse, neurons[0], _labels(model, neurons[0]))


_INPUTS = "a network that learns has inputs that spike at random"


def _source(one: DeviceOperation, what: str) -> int:
    """What an operation takes first, in the same step."""
    if not one.operands or one.operands[0].delay:
        raise ValueError(what)
    return one.operands[0].source


def _labels(model: DeviceModel, neurons: int) -> int | None:
    """The readout by labels of these neurons, which takes the counts of their spikes."""
    labels = [n for n, one in enumerate(model.operations) if isinstance(one.what, LabelSums)]
    if not labels:
        return None
    counts = model.operations[_source(model.operations[labels[0]], _LABELLED)]
    is_plain = isinstance(counts.what, Total) and counts.what.first == 0
    if len(labels) > 1 or not is_plain or counts.operands != (Operand(neurons),):
        raise ValueError(_LABELLED)
    return labels[0]


_LABELLED = "a network that learns has one readout by labels at most, of the counts of its spikes"
