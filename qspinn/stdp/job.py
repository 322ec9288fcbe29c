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
    """What a backend is to do.

    Attributes:
        probabilities: int64 ``[M, I]``, see `encoding`.
        keys: int64 ``[M]``.
        weight: ``[I, N]``: float32, or codes in int64; changed in place where ``learning``.
        theta: ``[N]``, likewise.
        turns: int64 ``[N]``: how often the weights to each neuron were updated; likewise.
        seed: Of the draws that do not depend on the presentation.
        settings: Of the neurons.
        stdp: Of the plasticity.
        numbers: What is computed with.
        steps: T.
        learning: Whether weights and theta change.
        record: Whether every spike is wanted, not only their counts.
    """

    probabilities: Tensor
    keys: Tensor
    weight: Tensor
    theta: Tensor
    turns: Tensor
    seed: int
    settings: DiehlCookSettings
    stdp: STDP
    numbers: Numbers
    steps: int
    learning: bool
    record: bool


@dataclass
class Result:
    """What came of it.

    Attributes:
        spike_counts: int32 ``[M, N]``.
        spikes: bool ``[T, M, N]``, where wanted.
        input_spikes: Spikes of all inputs.
        updates: Synaptic changes tried.
        underflows: Those that rounding left without effect.
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
