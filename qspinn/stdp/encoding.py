"""Poisson coding: each input spikes in each step with a probability of its own.

How the spikes are drawn says :mod:`qspinn.steps.random_spikes`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qspinn.fixed_point.random_bits import draw, root
from qspinn.stdp.numbers import EVALUATION, INPUT, TRAINING
from qspinn.steps import random_spikes
from qspinn.steps.random_spikes import PROBABILITY_BITS, WORD


def spike_probabilities(inputs: Tensor, max_rate: float) -> Tensor:
    """The probability of a spike in a step of 1 ms, in units of 2^-16, rounded to nearest.

    Args:
        inputs: ``[M, I]`` in [0, 1].
        max_rate: Rate of an input of 1, in Hz.

    Returns:
        int64 ``[M, I]``, 0 to 2^16 - 1.

    Raises:
        ValueError: An input outside [0, 1], or NaN.
    """
    if inputs.numel() and not (float(inputs.amin()) >= 0.0 and float(inputs.amax()) <= 1.0):
        low, high = float(inputs.amin()), float(inputs.amax())
        raise ValueError(
            f"the inputs of DiehlCook lie in [{low}, {high}]: scale them to [0, 1], where 1 spikes "
            f"at max_rate={max_rate} Hz"
        )
    scale = max_rate * 1e-3 * (1 << PROBABILITY_BITS)
    p = (inputs.to(torch.float64) * scale + 0.5).floor().to(torch.int64)
    return p.clamp_(max=(1 << PROBABILITY_BITS) - 1)


def training_keys(seed: int, first: int, count: int, device: torch.device) -> Tensor:
    """Keys of presentations ``first`` to ``first + count - 1`` of a training, int64 ``[count]``."""
    numbers = torch.arange(first, first + count, dtype=torch.int64, device=device)
    return draw(root(seed, TRAINING, device), numbers)


def content_keys(seed: int, probabilities: Tensor) -> Tensor:
    """Keys that depend on what is presented alone, int64 ``[M]``.

    So an image gets the same spikes in every evaluation, whatever its batch.
    """
    return random_spikes.content_keys(root(seed, EVALUATION, probabilities.device), probabilities)


def poisson_words(probabilities: Tensor, keys: Tensor, steps: int) -> Tensor:
    """The spikes of presentations, 64 steps to a word.

    Args:
        probabilities: int64 ``[M, I]``, see :func:`spike_probabilities`.
        keys: int64 ``[M]``.
        steps: T.

    Returns:
        int64 ``[M, I, ceil(T / 64)]``; bit k of word w is step ``64 w + k``; none after T.
    """
    return random_spikes.spike_words(probabilities, keys, steps, INPUT)


def poisson_spikes(probabilities: Tensor, keys: Tensor, steps: int) -> Tensor:
    """The same spikes as a tensor of 0 and 1, float32 ``[T, M, I]``."""
    words = poisson_words(probabilities, keys, steps)
    bits = torch.arange(WORD, device=keys.device)
    spikes = (words.unsqueeze(3) >> bits) & 1
    return spikes.flatten(2)[:, :, :steps].permute(2, 0, 1).to(torch.float32)
