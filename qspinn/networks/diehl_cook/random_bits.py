"""Counter-based random bits: any draw of a presentation by its number, on every backend.

A draw is a hash of a key and a counter, so no backend has a state to keep in step with another:
``draw(key, n) = mix(key + (n + 1) * GOLDEN)``, which is the n-th output of SplitMix64 seeded with
``key`` (Steele, Lea & Flood, OOPSLA 2014; ``mix`` is Stafford's variant 13).

Torch has no unsigned 64-bit arithmetic, so keys and draws are int64 there: the same 64 bits.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB

# Every purpose draws from a stream of its own.
PURPOSES = 10
INPUT, MEMBRANE, TRACE_PRE, TRACE_POST, PRE, POST, THETA, NORM, THETA_DECAY, WINNER = range(
    PURPOSES
)
TRAINING, EVALUATION, LASTING = 16, 17, 18


def signed(word: int) -> int:
    """The int64 with the bits of an unsigned 64-bit word."""
    return word - (1 << 64) if word >> 63 else word


def mix(z: Tensor) -> Tensor:
    """Scrambles int64 ``[*]``: a bijection of 64-bit words."""
    z = (z ^ _shifted(z, 30)) * signed(MIX_1)
    z = (z ^ _shifted(z, 27)) * signed(MIX_2)
    return z ^ _shifted(z, 31)


def draw(key: Tensor, counter: Tensor) -> Tensor:
    """64 random bits for each counter, int64; key and counter broadcast."""
    return mix(key + (counter + 1) * signed(GOLDEN))


def spread(key: Tensor, counter: Tensor, turn: Tensor) -> Tensor:
    """The draws of a counter, turn after turn, spread evenly: a Weyl sequence with phi."""
    return draw(key, counter) + turn * signed(GOLDEN)


def stream(key: Tensor, purpose: int) -> Tensor:
    """The key of one purpose within a presentation, int64 of the shape of ``key``."""
    return mix(key ^ mix(torch.tensor(purpose + 1, dtype=torch.int64, device=key.device)))


@functools.lru_cache(maxsize=256)
def root(seed: int, purpose: int, device: torch.device) -> Tensor:
    """The key of one purpose of a whole network, int64 scalar; kept, not to be changed."""
    return stream(torch.tensor(seed, dtype=torch.int64, device=device), purpose)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Logical shift to the right."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
