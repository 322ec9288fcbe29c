"""Small DECOLLE layers with formats, and their integer twins."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from qspinn.fixed_point import FixedPointFormat, PerChannelFormat, parse_format
from qspinn.networks.decolle import DecolleLayer, DecolleSettings, LayerShape
from tests.reference.decolle_network import DecolleTwin, Held, stored_code
from tests.reference.integer_network import Word
from tests.reference.splitmix import words

ROUNDINGS = ("truncate", "nearest", "stochastic", "toward_zero", "nearest_even", "nearest_away")
SHAPES = {
    "dense": LayerShape((7,), 5),
    "conv": LayerShape((2, 6, 5), 3, 3),
    "strided": LayerShape((2, 6, 5), 3, 3, 2),
    "pooled": LayerShape((1, 7, 6), 4, 5, 1, 2),
}
CLASSES, BATCH, STEPS = 3, 2, 7


@dataclass(frozen=True)
class Quantized:
    """What a layer is told of one tensor."""

    path: str
    format: Any
    rounding: str
    overflow: str


@dataclass(frozen=True)
class Case:
    """A layer, its formats and its input.

    Attributes:
        shape: Name of a shape.
        formats: Name of a tensor -> text of a format.
        rounding: Of all tensors.
        overflow: Of all states.
        binary: Whether inputs are whole numbers.
        per_channel: Whether weights have a format per output.
        seed: Of parameters, inputs and random draws.
    """

    shape: str
    formats: dict[str, str]
    rounding: str
    overflow: str
    binary: bool
    per_channel: bool
    seed: int

    def layer(self) -> DecolleLayer:
        """The layer in fixed point, for evaluation."""
        torch.manual_seed(self.seed)
        settings = DecolleSettings(
            tau_membrane=4.0, tau_synapse=2.0, weight_gain=3.0, threshold=0.125, refractory=0.75
        )
        layer = DecolleLayer(
            SHAPES[self.shape], CLASSES, settings, input_max=3.0, whole_inputs=self.binary
        )
        with torch.no_grad():
            layer.bias.uniform_(-0.5, 0.5)
        layer.eval().use_fixed_point(self.quantizers())
        return layer

    def quantizers(self) -> dict[str, Quantized]:
        made = {}
        for name, text in self.formats.items():
            if name == "input" and self.binary:
                continue
            fmt: Any = parse_format(text)
            if name == "weight" and self.per_channel:
                bits = [fmt.fraction_bits - i % 3 for i in range(SHAPES[self.shape].outputs)]
                fmt = PerChannelFormat(fmt.word_length, tuple(bits), signed=True, axis=0)
            made[name] = Quantized(f"layer.{name}", fmt, self.rounding, self.overflow)
        return made

    def inputs(self) -> Tensor:
        """``[T, N, *]``: whole numbers up to 3, or multiples of 2^-6."""
        random = torch.Generator().manual_seed(self.seed)
        shape = (STEPS, BATCH, *SHAPES[self.shape].inputs)
        steps = 1 if self.binary else 64
        return torch.randint(0, 3 * steps + 1, shape, generator=random) / steps


def word_of(fmt: FixedPointFormat) -> Word:
    return Word(fmt.word_length, fmt.fraction_bits, fmt.signed)


def held(quantizer: Quantized, fmt: FixedPointFormat | None = None) -> Held:
    fmt = quantizer.format if fmt is None else fmt
    return Held(word_of(fmt), quantizer.rounding, quantizer.overflow)


def stored_noise(quantizer: Quantized, value: Tensor) -> np.ndarray:
    """What a device draws once for a stored tensor: its path is the key."""
    drawn = words(zlib.crc32(quantizer.path.encode()), 0, value.numel())
    bits = 24 if value.dtype == torch.float32 else 53
    noise = [Fraction(word >> (64 - bits), 1 << bits) for word in drawn]
    return np.array(noise, dtype=object).reshape(value.shape)


def codes_of(quantizer: Quantized, value: Tensor) -> tuple[np.ndarray, tuple[int, ...]]:
    """Codes of a stored tensor, and the fraction bits along its first axis."""
    noise, fmt = stored_noise(quantizer, value), quantizer.format
    rows = len(value)
    formats = fmt.formats if isinstance(fmt, PerChannelFormat) else (fmt,) * rows
    codes = np.empty(value.shape, dtype=object)
    for index in np.ndindex(*value.shape):
        one = held(quantizer, formats[index[0]])
        codes[index] = stored_code(float(value[index]), one, noise[index])
    return codes, tuple(one.fraction_bits for one in formats)


class Noise:
    """The random words that states are rounded with, by name."""

    def __init__(self, layer: DecolleLayer) -> None:
        self.layer = layer
        self.drawn: Counter[str] = Counter()

    def next(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        drawn = words(self.layer.draw_keys[name], self.drawn[name], math.prod(shape))
        self.drawn[name] += len(drawn)
        return np.array(drawn, dtype=object).reshape(shape)


def twin_of(case: Case, layer: DecolleLayer) -> DecolleTwin:
    quantizers = case.quantizers()
    weight, weight_fractions = codes_of(quantizers["weight"], layer.weight.detach())
    bias, bias_fractions = codes_of(quantizers["bias"], layer.bias.detach())
    constants = {}
    for name, value in layer.settings.constants.items():
        one = held(quantizers[name])
        if one.rounding == "stochastic":
            one = replace(one, rounding="nearest")
        constants[name] = (stored_code(value, one), one.fraction_bits)
    states = {name: held(quantizers[name]) for name in ("q", "p", "r", "u")}
    if not case.binary:
        states["input"] = held(quantizers["input"])
    shape = layer.shape
    return DecolleTwin(
        states, weight, weight_fractions, bias, bias_fractions, constants, shape.neurons,
        Noise(layer).next, shape.stride, shape.pool,
    )  # fmt: skip


def _format(draw: Any, signed: bool, integer: tuple[int, int], fraction: tuple[int, int]) -> str:
    bits = draw(st.integers(*integer)), draw(st.integers(*fraction))
    return f"{'Q' if signed else 'UQ'}{bits[0]}.{bits[1]}"


@st.composite
def cases(draw: Any, rounding: str, overflow: str) -> Case:
    """Cases of all sizes of formats, in which neurons can fire."""
    formats = {
        "weight": _format(draw, True, (0, 1), (2, 12)),
        "bias": _format(draw, True, (-1, 1), (3, 12)),
        "readout": _format(draw, True, (0, 0), (2, 9)),
        "input": _format(draw, False, (1, 2), (1, 8)),
        "q": _format(draw, False, (0, 2), (2, 14)),
        "p": _format(draw, False, (0, 2), (2, 14)),
        "r": _format(draw, False, (0, 2), (2, 10)),
        "u": _format(draw, True, (0, 2), (3, 12)),
        "threshold": _format(draw, False, (0, 0), (3, 8)),
        "refractory": _format(draw, False, (0, 1), (2, 8)),
        "leak_q": _format(draw, False, (0, 0), (2, 12)),
        "leak_p": _format(draw, False, (0, 0), (3, 12)),
        "leak_r": _format(draw, False, (0, 0), (2, 12)),
    }
    return Case(
        draw(st.sampled_from(sorted(SHAPES))),
        formats,
        rounding,
        overflow,
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.integers(0, 2**16)),
    )
