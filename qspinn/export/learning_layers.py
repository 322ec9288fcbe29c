"""The operations of a device model that goes on learning."""

from __future__ import annotations

from dataclasses import dataclass

from qspinn.export.learning import DeviceLearning, check_learning
from qspinn.export.model import (
    AdaptiveNeuron,
    DeviceModel,
    LabelSums,
    RandomSpikes,
    Synapse,
)

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
    synapse = one.operands[0].source
    what = operations[synapse].what
    if not isinstance(what, Synapse) or what.stride or what.bias is not None:
        raise ValueError("a network that learns has weights from all inputs to all neurons")
    spikes = operations[synapse].operands[0].source
    plain = isinstance(operations[spikes].what, RandomSpikes)
    if not plain or operations[spikes].operands[0].source or model.frame_stride:
        raise ValueError("a network that learns has inputs that spike at random")
    if model.tensors[what.weight].format.signed:
        raise ValueError("weights that are learned are never negative; write an unsigned format")
    check_learning(learning, one.size)
    labels = [n for n, one in enumerate(operations) if isinstance(one.what, LabelSums)]
    return LearningLayers(spikes, synapse, neurons[0], labels[0] if labels else None)
