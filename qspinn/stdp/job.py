"""What an engine of the network is asked to do, and what comes of it."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from qspinn.fixed_point.random_bits import root, stream
from qspinn.stdp.numbers import LASTING, NORM, POST, Numbers
from qspinn.stdp.settings import STDP, DiehlCookSettings


@dataclass
class Job:
    """What a backend is to do."""

    probabilities: Tensor  # int64 `[M, I]`, see `encoding`
    keys: Tensor  # int64 `[M]`
    weight: Tensor  # `[I, N]`: float32, or codes in int64; changed in place where `learning`
    theta: Tensor  # `[N]`, likewise
    turns: Tensor  # int64 `[N]`: how often the weights to each neuron were updated; likewise
    seed: int  # of the draws that do not depend on the presentation
    settings: DiehlCookSettings  # of the neurons
    stdp: STDP  # of the plasticity
    numbers: Numbers  # what is computed with
    steps: int  # T
    learning: bool  # whether weights and theta change
    record: bool  # whether every spike is wanted, not only their counts


@dataclass
class Presentation:
    """What came of showing images to the network.

    Attributes:
        spike_counts: Spikes of each neuron to each image, int32 ``[M, N]``.
        spikes: All of them, bool ``[T, M, N]``, where they were asked for.
        input_spikes: Spikes of all inputs.
        updates: Changes of synapses that were tried.
        underflows: Those that rounding swallowed: the weight stayed what it was.
    """

    spike_counts: Tensor
    spikes: Tensor | None
    input_spikes: int
    updates: int
    underflows: int


@functools.lru_cache(maxsize=64)
def lasting_keys(seed: int, device: torch.device) -> Tensor:
    """Keys of the draws at updates and at normalisations of weights, int64 ``[2]``."""
    key = root(seed, LASTING, device)
    return torch.stack([stream(key, POST), stream(key, NORM)])
