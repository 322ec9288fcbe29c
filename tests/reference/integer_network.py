"""A spiking network in integers alone: what a fixed-point device computes, without floats.

Every number is a code, an integer that stands for ``code * 2^-fraction_bits``. Products and sums
are exact; a neuron rounds once per time step, the exact charge to the grid of its membrane, by
shifts. NumPy arrays of ``object`` hold Python integers where a sum may outgrow 64 bits.

Layouts: inputs ``[N, features]`` or ``[N, C, H, W]``, one time step at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[Any]


@dataclass(frozen=True)
class Word:
    """A word of `bits` bits whose binary point lies `fraction_bits` from the right."""

    bits: int
    fraction_bits: int
    signed: bool = True

    @property
    def low(self) -> int:
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        return (1 << (self.bits - 1 if self.signed else self.bits)) - 1


def shifted(codes: Codes, places: int, rounding: str) -> Codes:
    """``round(codes / 2^places)``; a negative number of places shifts left, exactly."""
    if places <= 0:
        return codes << -places
    floor = codes >> places
    rest = codes - (floor << places)
    half = 1 << (places - 1)
    if rounding == "truncate":
        return floor
    if rounding == "toward_zero":
        return floor + ((codes < 0) & (rest > 0))
    if rounding == "nearest":
        return (codes + half) >> places
    if rounding == "nearest_away":
        return floor + ((rest > half) | ((rest == half) & (codes > 0)))
    if rounding == "nearest_even":
        return floor + ((rest > half) | ((rest == half) & (floor & 1 == 1)))
    raise AssertionError(rounding)


def limited(codes: Codes, word: Word, overflow: str) -> Codes:
    """Codes brought into the range of a word."""
    if overflow == "saturate":
        return np.minimum(np.maximum(codes, word.low), word.high)
    assert overflow == "wrap"
    return ((codes - word.low) & ((1 << word.bits) - 1)) + word.low


def stored(codes: Codes, fraction_bits: int, word: Word, rounding: str, overflow: str) -> Codes:
    """Codes on one grid, rounded to the grid of a word and limited to its range."""
    return limited(shifted(codes, fraction_bits - word.fraction_bits, rounding), word, overflow)


@dataclass(frozen=True)
class Synapses:
    """Weights and biases of a linear (``[out, in]``) or convolutional (``[out, in, h, w]``) layer.

    Attributes:
        weight: codes of the weights.
        weight_fractions: fraction bits of each output channel.
        bias: codes of the biases, or None.
        bias_fractions: fraction bits of each bias.
        input_word: word of a non-binary input; None for spikes.
        input_rounding, input_overflow: how that input is brought to its word.
        stride, padding, groups: of a convolution.
    """

    weight: Codes
    weight_fractions: tuple[int, ...]
    bias: Codes | None = None
    bias_fractions: tuple[int, ...] = ()
    input_word: Word | None = None
    input_rounding: str = "nearest"
    input_overflow: str = "saturate"
    stride: int = 1
    padding: int = 0
    groups: int = 1

    @property
    def fraction_bits(self) -> int:
        """The grid of the sums."""
        inputs = 0 if self.input_word is None else self.input_word.fraction_bits
        sums = max(self.weight_fractions) + inputs
        return max(sums, *self.bias_fractions) if self.bias is not None else sums

    def currents(self, codes: Codes, fraction_bits: int) -> Codes:
        """The exact sums of one time step, on the grid of `fraction_bits`.

        `codes` are spikes, or numbers on the grid 2^-`fraction_bits` that the layer brings to the
        word of its input.
        """
        inputs = 0
        if self.input_word is not None:
            codes = stored(
                codes, fraction_bits, self.input_word, self.input_rounding, self.input_overflow
            )
            inputs = self.input_word.fraction_bits
        codes = codes.astype(object)
        sums = self._products(codes)
        tail = (1,) * (sums.ndim - 2)
        places = [self.fraction_bits - f - inputs for f in self.weight_fractions]
        sums = sums << np.array(places, dtype=object).reshape(1, -1, *tail)
        if self.bias is not None:
            places = [self.fraction_bits - f for f in self.bias_fractions]
            bias = self.bias.astype(object) << np.array(places, dtype=object)
            sums = sums + bias.reshape(1, -1, *tail)
        return sums

    def _products(self, codes: Codes) -> Codes:
        weight = self.weight.astype(object)
        if weight.ndim == 2:
            return codes.dot(weight.T)
        edge = self.padding
        codes = np.pad(codes, ((0, 0), (0, 0), (edge, edge), (edge, edge)), constant_values=0)
        out, inner, high, wide = weight.shape
        rows = (codes.shape[2] - high) // self.stride + 1
        columns = (codes.shape[3] - wide) // self.stride + 1
        result = np.zeros((codes.shape[0], out, rows, columns), dtype=object)
        for channel in range(out):
            first = channel // (out // self.groups) * inner
            group = codes[:, first : first + inner]
            for row in range(rows):
                for column in range(columns):
                    top, left = row * self.stride, column * self.stride
                    patch = group[:, :, top : top + high, left : left + wide]
                    result[:, channel, row, column] = (patch * weight[channel]).sum(axis=(1, 2, 3))
        return result


@dataclass
class Neurons:
    """A layer of IF or LIF neurons with one membrane word each.

    Attributes:
        membrane: word of the membrane potential.
        threshold: code of the threshold, or one for each part of the layer.
        threshold_fraction: its fraction bits.
        decay: code of 1/tau, or one for each part; None for a neuron without leak.
        decay_fraction: its fraction bits.
        decay_input: whether the current decays too.
        reset: code that a spike resets to, on the membrane's grid; None for a soft reset.
        initial: code of the membrane before the first step.
        rounding, overflow: of the membrane.
    """

    membrane: Word
    threshold: int | Codes
    threshold_fraction: int
    decay: int | Codes | None = None
    decay_fraction: int = 0
    decay_input: bool = True
    reset: int | None = 0
    initial: int = 0
    rounding: str = "nearest"
    overflow: str = "saturate"
    potential: Codes | None = None

    def step(self, current: Codes, fraction_bits: int) -> tuple[Codes, Codes]:
        """One time step; returns spikes and the codes of the membrane after the reset."""
        if self.potential is None:
            self.potential = np.full(current.shape, self.initial, dtype=object)
        exact, grid = self.charged(current, self.potential, fraction_bits)
        h = stored(exact, grid, self.membrane, self.rounding, self.overflow)
        threshold = self.threshold << (self.membrane.fraction_bits - self.threshold_fraction)
        fires = (h >= threshold).astype(bool)
        if self.reset is None:
            after = limited(h - threshold, self.membrane, self.overflow)
        else:
            after = np.full(h.shape, self.reset, dtype=object)
        self.potential = np.where(fires, after, h)
        return fires.astype(np.int64), self.potential

    def charged(self, x: Codes, v: Codes, x_fraction: int) -> tuple[Codes, int]:
        """The exact charge and its grid."""
        leak = 0 if self.decay is None else self.decay_fraction
        common = max(x_fraction, self.membrane.fraction_bits)
        x = x << (common - x_fraction)
        v = v << (common - self.membrane.fraction_bits)
        if self.decay is None:
            return v + x, common
        rest = (self.reset or 0) << (common - self.membrane.fraction_bits)
        if self.decay_input:
            return (v << leak) + self.decay * (x - (v - rest)), common + leak
        return ((v + x) << leak) - self.decay * (v - rest), common + leak


def max_pooled(spikes: Codes, size: int) -> Codes:
    """The largest spike of each `size` x `size` window (stride `size`) of ``[N, C, H, W]``."""
    count, channels, high, wide = spikes.shape
    rows, columns = high // size, wide // size
    cut = spikes[:, :, : rows * size, : columns * size]
    return cut.reshape(count, channels, rows, size, columns, size).max(axis=(3, 5))


def flattened(spikes: Codes) -> Codes:
    """``[N, *]`` as ``[N, features]``."""
    return spikes.reshape(spikes.shape[0], -1)
