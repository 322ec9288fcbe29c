"""Counter-based random bits: any draw by its number, on every engine.

A draw is a hash of a key and a counter, so no engine has a state to keep in step with another:
``draw(key, n) = mix(key + (n + 1) * GOLDEN)``, which is the n-th output of SplitMix64 seeded with
``key`` (Steele, Lea & Flood, OOPSLA 2014; ``mix`` is Stafford's variant 13).

Torch has no unsigned 64-bit arithmetic, so keys and draws are int64 here: the same 64 bits. Engines
with unsigned words take these functions with other `right`, `word` and constants, see
:mod:`qspinn.steps.targets`.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor


def signed(word: int) -> int:
    """The int64 with the bits of an unsigned 64-bit word."""
    return word - (1 << 64) if word >> 63 else word


UNSIGNED = {
    "GOLDEN": 0x9E3779B97F4A7C15,
    "MIX_1": 0xBF58476D1CE4E5B9,
    "MIX_2": 0x94D049BB133111EB,
}
"""The constants, for engines with unsigned words."""

ONE = 1
GOLDEN, MIX_1, MIX_2 = (signed(word) for word in UNSIGNED.values())


def right(z: Tensor, bits: int) -> Tensor:
    """Logical shift to the right."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def word(number: Any) -> Any:
    """A number as 64 bits."""
    return torch.as_tensor(number)


def mix(z: Any) -> Any:
    """Scrambles int64 ``[*]``: a bijection of 64-bit words."""
    z = (z ^ right(z, 30)) * MIX_1
    z = (z ^ right(z, 27)) * MIX_2
    return z ^ right(z, 31)


def draw(key: Any, counter: Any) -> Any:
    """64 random bits for each counter, int64; key and counter broadcast."""
    return mix(key + (word(counter) + ONE) * GOLDEN)


def spread(key: Any, counter: Any, turn: Any) -> Any:
    """The draws of a counter, turn after turn, spread evenly: a Weyl sequence with phi."""
    return draw(key, counter) + word(turn) * GOLDEN


def stream(key: Any, purpose: Any) -> Any:
    """The key of one purpose, int64 of the shape of ``key``."""
    return mix(key ^ mix(word(purpose) + ONE))


@functools.lru_cache(maxsize=256)
def root(seed: int, purpose: int, device: torch.device) -> Tensor:
    """The key of one purpose of a whole network, int64 scalar; kept, not to be changed."""
    key: Tensor = stream(torch.tensor(seed, dtype=torch.int64, device=device), purpose)
    return key
