"""Single layers of any network in integers: sums of synapses, and numbers as integers.

Like :mod:`tests.reference.integer_network`, but for every layer shape and at the speed of NumPy's
64-bit integers. Floats enter as what they are exactly: an integer times a power of two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tests.reference.integer_network import Codes, Word

Reals = NDArray[np.float64]
_FORMAT = re.compile(r"(U?)Q(-?\d+)\.(-?\d+)")


def words_of(text: str) -> tuple[Word, ...]:
    """The word of a format such as ``Q1.6``; one for each channel of ``Q1.6|Q0.7 @0``."""
    found = _FORMAT.findall(text)
    assert found, text
    words = []
    for unsigned, integers, fractions in found:
        signed = not unsigned
        words.append(Word(int(integers) + int(fractions) + signed, int(fractions), signed))
    return tuple(words)


def nearest(values: Reals, word: Word) -> Codes:
    """Codes of numbers: rounded to nearest, ties upward, and saturated."""
    scaled = np.asarray(values, dtype=np.float64) * 2.0**word.fraction_bits
    below = np.floor(scaled)
    # Exact, unlike floor(scaled + 1/2): what is added to a long number may be lost.
    codes = below + (scaled - below >= 0.5)
    return np.clip(codes, word.low, word.high).astype(np.int64)


def stored(values: Reals, words: tuple[Word, ...]) -> tuple[Codes, tuple[int, ...]]:
    """Codes of a stored tensor and the fraction bits of each slice along its first axis."""
    if len(words) == 1:
        return nearest(values, words[0]), (words[0].fraction_bits,) * len(values)
    assert len(words) == len(values)
    codes = [nearest(one, word) for one, word in zip(values, words, strict=True)]
    return np.stack(codes), tuple(word.fraction_bits for word in words)


def as_integers(values: Reals) -> tuple[Codes, int]:
    """Any finite floats as integers of Python on their coarsest common grid, and its bits."""
    values = np.asarray(values, dtype=np.float64)
    mantissas, exponents = np.frexp(values)
    whole = (mantissas * 2.0**53).astype(np.int64)
    trailing = np.zeros_like(whole)
    trailing[whole != 0] = np.log2((whole & -whole)[whole != 0].astype(np.float64)).astype(int)
    fractions = np.where(whole == 0, 0, 53 - exponents - trailing)
    bits = max(0, int(fractions.max(initial=0)))
    places = bits - (53 - exponents - trailing)
    odd = (whole >> trailing).astype(object)
    return odd << np.where(whole == 0, 0, places).astype(object), bits


@dataclass(frozen=True)
class Layer:
    """A linear layer, or a convolution over 1 to 3 dimensions.

    Attributes:
        weight: codes, ``[out, in / groups, *kernel]``.
        weight_fractions: fraction bits of each output.
        bias: codes, or None.
        bias_fractions: fraction bits of each.
        stride, padding, dilation: of each spatial dimension.
        groups: of a convolution.
    """

    weight: Codes
    weight_fractions: tuple[int, ...]
    bias: Codes | None = None
    bias_fractions: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    def sums(self, codes: Codes, fraction_bits: int) -> tuple[Codes, int]:
        """The exact sums of inputs ``[N, in, *spatial]``, and the fraction bits they have."""
        grid = max(self.weight_fractions) + fraction_bits
        if self.bias is not None:
            grid = max(grid, *self.bias_fractions)
        total = self._products(codes.astype(np.int64))
        total = total << self._column(grid - fraction_bits, self.weight_fractions)
        if self.bias is not None:
            bias = self.bias.astype(np.int64).reshape(-1, *self._ones)
            total = total + (bias << self._column(grid, self.bias_fractions))
        self._check_range(codes, grid - fraction_bits)
        return total, grid

    @property
    def _ones(self) -> tuple[int, ...]:
        return (1,) * (self.weight.ndim - 2)

    def _column(self, grid: int, fractions: tuple[int, ...]) -> Codes:
        return np.array([grid - one for one in fractions]).reshape(-1, *self._ones)

    def _check_range(self, codes: Codes, places: int) -> None:
        """That no sum outgrew 64 bits."""
        products = int(np.abs(self.weight).sum(axis=tuple(range(1, self.weight.ndim))).max())
        largest = int(np.abs(codes).max(initial=0)) * products << max(places, 0)
        assert largest < 1 << 61, largest

    def _products(self, codes: Codes) -> Codes:
        weight = self.weight.astype(np.int64)
        if weight.ndim == 2:
            return codes @ weight.T
        kernel = weight.shape[2:]
        dimensions = len(kernel)
        axes = tuple(range(2, 2 + dimensions))
        edges = [(0, 0), (0, 0), *((one, one) for one in self.padding)]
        codes = np.pad(codes, edges)
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, kernel, strict=True)]
        windows: Any = sliding_window_view(codes, reach, axis=axes)
        steps = [slice(None, None, one) for one in self.stride]
        inner = [slice(None, None, one) for one in self.dilation]
        windows = windows[(slice(None), slice(None), *steps, *inner)]
        width, outputs = weight.shape[1], len(weight) // self.groups
        parts = []
        for group in range(self.groups):
            part = windows[:, group * width : (group + 1) * width]
            taps = weight[group * outputs : (group + 1) * outputs]
            over = (1, *range(2 + dimensions, 2 + 2 * dimensions))
            summed = np.tensordot(part, taps, axes=(over, tuple(range(1, taps.ndim))))
            parts.append(np.moveaxis(summed, -1, 1))
        return np.concatenate(parts, axis=1)
