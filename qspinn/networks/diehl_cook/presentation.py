"""What comes of showing images to the network of Diehl and Cook."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Presentation:
    """What came of showing images to the network.

    Attributes:
        spike_counts: Spikes of each neuron to each image, int32 ``[M, neurons]``.
        spikes: All of them, bool ``[T, M, neurons]``, where they were asked for.
        input_spikes: Spikes of all inputs.
        updates: Changes of synapses that were tried.
        underflows: Those that rounding swallowed: the weight stayed what it was.
    """

    spike_counts: Tensor
    spikes: Tensor | None
    input_spikes: int
    updates: int
    underflows: int
