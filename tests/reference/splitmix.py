"""SplitMix64 in Python integers (Steele, Lea & Flood, OOPSLA 2014), and draws numbered from it."""

from __future__ import annotations

MASK = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15


def scrambled(word: int) -> int:
    """The output function, of unsigned 64-bit words."""
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & MASK
    return word ^ (word >> 31)


class SplitMix64:
    """The generator as published: a state that grows by a constant, and is scrambled."""

    def __init__(self, seed: int) -> None:
        self.state = seed & MASK

    def __next__(self) -> int:
        self.state = (self.state + GAMMA) & MASK
        return scrambled(self.state)


def nth(seed: int, n: int) -> int:
    """Output n (from 0) of the generator, without those before it."""
    return scrambled((seed + (n + 1) * GAMMA) & MASK)


def words(key: int, first: int, count: int) -> list[int]:
    """So many draws of a key, from one on."""
    return [nth(key, n) for n in range(first, first + count)]


def stream(key: int, purpose: int) -> int:
    """The key of one of the streams of a key."""
    return scrambled((key & MASK) ^ scrambled(purpose + 1))
