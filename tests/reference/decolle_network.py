"""A DECOLLE layer in integers alone: what a fixed-point device computes at every step.

Every number is a code. Products and sums are Python integers in NumPy arrays of ``object``, so they
are exact at any size; each state is rounded once per step, by shifts. Stochastic rounding takes
the random numbers from outside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.reference.integer_network import Codes, Synapses, Word, limited, shifted

Noise = Callable[[str], NDArray[np.float64]]
"""Name of a state -> the uniform numbers of its next rounding, in its shape."""


@dataclass(frozen=True)
class Held:
    """How one tensor is held."""

    word: Word
    rounding: str
    overflow: str

    @property
    def fraction_bits(self) -> int:
        return self.word.fraction_bits

    def kept(
        self, codes: Codes, fraction_bits: int, noise: Callable[[tuple[int, ...]], Any]
    ) -> Codes:
        """Codes on the grid of ``fraction_bits``, rounded once and limited."""
        places = fraction_bits - self.fraction_bits
        if self.rounding != "stochastic":
            return limited(shifted(codes, places, self.rounding), self.word, self.overflow)
        if places <= 0:
            return limited(codes << -places, self.word, self.overflow)
        # As Python's integers, which the padding of a convolution need not be.
        exact = np.vectorize(int, otypes=[object])(codes)
        return limited(
            (exact + (noise(codes.shape) >> (64 - places))) >> places, self.word, self.overflow
        )


def stored_code(value: float, held: Held, noise: Fraction | None = None) -> int:
    """The code of one stored number."""
    exact = Fraction(value) * Fraction(2) ** held.fraction_bits
    if held.rounding == "stochastic":
        assert noise is not None
        floor = exact.numerator // exact.denominator
        code = floor + (exact - floor >= 1 - noise)
    else:
        # In halves of 2^-60 of a step, so that ties and signs survive.
        scaled = exact * (1 << 60)
        assert scaled.denominator == 1
        code = int(shifted(np.array(int(scaled), dtype=object), 60, held.rounding))
    return int(limited(np.array(code, dtype=object), held.word, held.overflow))


@dataclass
class DecolleTwin:
    """One layer.

    Attributes:
        held: How ``q``, ``p``, ``r``, ``u`` (and ``input``) are held.
        weight: codes, ``[out, in]`` or ``[out, C, k, k]``.
        weight_fractions: fraction bits of each output.
        bias: codes.
        bias_fractions: fraction bits of each.
        constants: name -> code and fraction bits, of ``threshold``, ``refractory``, ``leak_q``,
            ``leak_p`` and ``leak_r``.
        neurons: shape of the potentials.
        noise: gives the random words, of a shape, that a state is rounded with.
        stride, pool: of a convolution.
    """

    held: dict[str, Held]
    weight: Codes
    weight_fractions: tuple[int, ...]
    bias: Codes
    bias_fractions: tuple[int, ...]
    constants: dict[str, tuple[int, int]]
    neurons: tuple[int, ...]
    noise: Noise
    stride: int = 1
    pool: int = 1
    states: dict[str, Codes] = field(default_factory=dict)

    def trace(self, x: Codes, input_fractions: int = 0) -> Codes:
        """Takes an input, codes on the grid of ``input_fractions``, and gives p."""
        x = x.astype(object)
        if not self.states:
            zero = np.zeros_like(x)
            rest = np.zeros((len(x), *self.neurons), dtype=object)
            self.states = {"q": zero, "p": zero, "r": rest}
        if "input" in self.held:
            x = self.held["input"].kept(x, input_fractions, partial(self.noise, "input"))
            input_fractions = self.held["input"].fraction_bits
        old = self.states["q"]
        self.states["p"] = self._leaky("p", "leak_p", old, self.held["q"].fraction_bits)
        self.states["q"] = self._leaky("q", "leak_q", x, input_fractions)
        return self.states["p"]

    def fire(self, p: Codes) -> Codes:
        """Gives the spikes after pooling; ``states["u"]`` are the potentials."""
        u_held, r_held = self.held["u"], self.held["r"]
        padding = self.weight.shape[-1] // 2 if self.weight.ndim == 4 else 0
        synapses = Synapses(self.weight, self.weight_fractions, stride=self.stride, padding=padding)
        p_grid = max(self.weight_fractions) + self.held["p"].fraction_bits
        grid = max(p_grid, *self.bias_fractions, r_held.fraction_bits)
        total = synapses.currents(p, 0) << (grid - p_grid)
        places = np.array([grid - f for f in self.bias_fractions], dtype=object)
        tail = (1,) * (total.ndim - 2)
        total = total + (self.bias.astype(object) << places).reshape(1, -1, *tail)
        total = total - (self.states["r"] << (grid - r_held.fraction_bits))
        u = u_held.kept(total, grid, partial(self.noise, "u"))
        self.states["u"] = u
        fired = self._at_least(u)
        self.states["r"] = self._refractory(fired)
        return self._at_least(self._pooled(u)).astype(np.int64)

    def _leaky(self, name: str, leak: str, target: Codes, target_fractions: int) -> Codes:
        held, (k, k_bits) = self.held[name], self.constants[leak]
        grid = max(held.fraction_bits, target_fractions)
        state = self.states[name] << (grid - held.fraction_bits)
        total = state * ((1 << k_bits) - k) + (target << (grid - target_fractions)) * k
        return held.kept(total, grid + k_bits, partial(self.noise, name))

    def _refractory(self, fired: Codes) -> Codes:
        held, (k, k_bits) = self.held["r"], self.constants["leak_r"]
        added, added_bits = self.constants["refractory"]
        grid = max(held.fraction_bits + k_bits, added_bits)
        total = self.states["r"] * ((1 << k_bits) - k) << (grid - held.fraction_bits - k_bits)
        total = total + fired.astype(object) * (added << (grid - added_bits))
        return held.kept(total, grid, partial(self.noise, "r"))

    def _at_least(self, u: Codes) -> Codes:
        threshold, bits = self.constants["threshold"]
        grid = max(bits, self.held["u"].fraction_bits)
        return (u << (grid - self.held["u"].fraction_bits)) >= (threshold << (grid - bits))

    def _pooled(self, u: Codes) -> Codes:
        if self.pool == 1:
            return u
        rows, columns = (size // self.pool for size in u.shape[2:])
        cut = u[:, :, : rows * self.pool, : columns * self.pool]
        squares = cut.reshape(*u.shape[:2], rows, self.pool, columns, self.pool)
        return squares.max(axis=(3, 5))


def readouts(spikes: Codes, weight: Codes, fractions: tuple[int, ...]) -> tuple[Codes, int]:
    """Exact sums of readout codes ``[classes, features]``, and their fraction bits."""
    grid = max(fractions)
    sums = spikes.reshape(len(spikes), -1).astype(object).dot(weight.astype(object).T)
    return sums << np.array([grid - f for f in fractions], dtype=object), grid
