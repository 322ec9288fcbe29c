"""What the property-based tests of qspinn.fixed_point draw: formats, and values that hurt."""

from __future__ import annotations

import math
from typing import Literal

import torch
from hypothesis import strategies as st
from torch import Tensor

from qspinn.fixed_point import FixedPointFormat, PerChannelFormat

DETERMINISTIC = ("truncate", "nearest", "toward_zero", "nearest_even", "nearest_away")
OVERFLOWS = ("saturate", "wrap")
LARGEST = torch.finfo(torch.float32).max
SPECIAL = (0.0, -0.0, math.inf, -math.inf, math.nan, LARGEST, -LARGEST)
TINY = (2.0**-149, -(2.0**-149), 2.0**-126, -(2.0**-126), 2.0**-126 - 2.0**-149)

PADDED = 83
"""Values are repeated to this length: vector instructions and their scalar remainder both run."""


@st.composite
def formats(draw: st.DrawFn, data_bits: int = 24) -> FixedPointFormat:
    """Formats with at most `data_bits` bits besides the sign, the binary point anywhere."""
    signed = draw(st.booleans())
    bits = draw(st.integers(0 if signed else 1, data_bits))
    bits = min(bits, 32 - int(signed))
    near = st.integers(-3, bits + 3)
    fraction_bits = draw(near | st.integers(bits - 64, 64))
    return FixedPointFormat(bits - fraction_bits, fraction_bits, signed)


@st.composite
def codes_near(draw: st.DrawFn, fmt: FixedPointFormat) -> int:
    """Codes in and around the range, most of them at its ends or at 0."""
    span = 2**fmt.word_length
    anchor = draw(st.sampled_from((fmt.code_min, fmt.code_max, 0, 2 * span, -3 * span)))
    return draw(
        st.integers(anchor - 3, anchor + 3) | st.integers(fmt.code_min - span, fmt.code_max + span)
    )


@st.composite
def values(draw: st.DrawFn, fmt: FixedPointFormat, width: Literal[32, 64] = 32) -> float:
    """Numbers of the dtype: on the grid, at quarters of a step, one ulp beside, and anything."""
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return draw(st.floats(width=width))
    if kind == 1:
        return draw(st.sampled_from(SPECIAL + TINY))
    quarters = 4 * draw(codes_near(fmt)) + draw(st.integers(-3, 3))
    dtype = torch.float32 if width == 32 else torch.float64
    exact = torch.tensor(quarters * fmt.step / 4, dtype=dtype)
    toward = torch.tensor(draw(st.sampled_from((-math.inf, math.inf))), dtype=dtype)
    return (exact if kind == 2 else torch.nextafter(exact, toward)).item()


@st.composite
def formats_and_values(
    draw: st.DrawFn, data_bits: int = 24, width: Literal[32, 64] = 32
) -> tuple[FixedPointFormat, Tensor]:
    fmt = draw(formats(data_bits))
    drawn = draw(st.lists(values(fmt, width), min_size=1, max_size=20))
    dtype = torch.float32 if width == 32 else torch.float64
    padded = (drawn * PADDED)[:PADDED]
    return fmt, torch.tensor(padded, dtype=dtype)


@st.composite
def per_channel_and_values(draw: st.DrawFn) -> tuple[PerChannelFormat, Tensor]:
    """A per-channel format for a tensor [2, C, 5] along axis 1 or -2, and the tensor."""
    first = draw(formats())
    data_bits = first.integer_bits + first.fraction_bits
    near = st.integers(-3, data_bits + 3) | st.integers(data_bits - 64, 64)
    bits = [first.fraction_bits, *draw(st.lists(near, max_size=3))]
    fmt = PerChannelFormat(
        first.word_length, tuple(bits), first.signed, draw(st.sampled_from((1, -2)))
    )
    slices = [
        torch.tensor(draw(st.lists(values(one), min_size=10, max_size=10))).view(2, 5)
        for one in fmt.formats
    ]
    return fmt, torch.stack(slices, dim=1)


def bits_of(fmt: FixedPointFormat) -> tuple[int, int, bool]:
    return fmt.integer_bits, fmt.fraction_bits, fmt.signed


def same(actual: Tensor, expected: list[float]) -> bool:
    """Equal to the last bit: shape, value, the sign of zero; NaN equals NaN."""
    return len(actual) == len(expected) and all(
        (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
        for a, b in zip(actual.tolist(), expected, strict=True)
    )


def identical(actual: Tensor, expected: Tensor) -> bool:
    """As `same`, for tensors, dtype included."""
    return (
        actual.dtype == expected.dtype
        and actual.shape == expected.shape
        and same(actual.flatten(), expected.flatten().tolist())
    )
