"""Random spikes by counters: each input spikes in each step with a probability of its own.

A probability is ``p / 2^16`` with a whole ``p``. 64 steps of an input are drawn at once, as the
bits of one word: with the binary digits of p from the lowest to the highest, and a random word
each, the word becomes ``word | random`` where the digit is 1 and ``word & random`` where it is 0,
which leaves each bit set with probability p / 2^16 exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from qspinn.fixed_point.random_bits import draw, mix, stream

PROBABILITY_BITS = 16
WORD = 64


class SpikeNumbers(NamedTuple):
    """Of random spikes whose probabilities are proportional to codes.

    Attributes:
        multiplier: Of a code.
        down: Bits by which the product is shifted down to units of 2^-16, rounded to nearest.
        key: Of all presentations, 64 bits as an int64.
        purpose: Of the stream of a presentation that spikes are drawn from.
        words: Of 64 steps each, that an input takes.
    """

    multiplier: int
    down: int
    key: int
    purpose: int
    words: int


def probabilities_of(codes: Tensor, n: SpikeNumbers) -> Tensor:
    """Probabilities of a spike in a step, in units of 2^-16, of codes ``[M, I]``."""
    half = (1 << n.down) >> 1
    exact = (codes * n.multiplier + half) >> n.down
    return exact.clamp_(max=(1 << PROBABILITY_BITS) - 1)


def content_keys(key: Tensor, probabilities: Tensor) -> Tensor:
    """Keys that depend on what is presented alone, int64 ``[M]``.

    So an image gets the same spikes whenever it is shown, whatever its batch.

    Args:
        key: Of all presentations, int64 ``[]``.
        probabilities: int64 ``[M, I]``.
    """
    places = torch.arange(probabilities.shape[1], device=probabilities.device)
    return mix(key + draw(probabilities, places).sum(1))


def spike_words(probabilities: Tensor, keys: Tensor, steps: int, purpose: int) -> Tensor:
    """The spikes of presentations, 64 steps to a word.

    Args:
        probabilities: int64 ``[M, I]``.
        keys: Of the presentations, int64 ``[M]``.
        steps: T.
        purpose: Of the stream that they are drawn from.

    Returns:
        int64 ``[M, I, ceil(T / 64)]``; bit k of word w is step ``64 w + k``; none after T.
    """
    inputs, words = probabilities.shape[1], -(-steps // WORD)
    places = torch.arange(inputs * words, device=keys.device).view(1, inputs, words)
    key = stream(keys, purpose).view(-1, 1, 1)
    p = probabilities.unsqueeze(2)
    word = torch.zeros(1, dtype=torch.int64, device=keys.device)
    for digit in range(PROBABILITY_BITS):
        random = draw(key, places * PROBABILITY_BITS + digit)
        word = torch.where(((p >> digit) & 1) == 1, word | random, word & random)
    used = steps - WORD * (words - 1)
    if used < WORD:
        word[:, :, -1] &= (1 << used) - 1
    return word
