"""quantize against exact rationals, value by value, to the last bit."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from qspinn.fixed_point import FixedPointFormat, PerChannelFormat, quantize
from tests.fixed_point.strategies import (
    DETERMINISTIC,
    OVERFLOWS,
    SPECIAL,
    TINY,
    bits_of,
    formats_and_values,
    identical,
    per_channel_and_values,
    same,
)
from tests.reference.fixed_point import neighbours, quantized

MODES = list(itertools.product(DETERMINISTIC, OVERFLOWS))
modes = pytest.mark.parametrize(("rounding", "overflow"), MODES)


def expected(x: Tensor, fmt: FixedPointFormat, rounding: str, overflow: str) -> list[float]:
    return [quantized(value, *bits_of(fmt), rounding, overflow) for value in x.tolist()]


@modes
@settings(max_examples=30, deadline=None)
@given(case=formats_and_values())
def test_float32_is_exact(
    case: tuple[FixedPointFormat, Tensor], rounding: str, overflow: str
) -> None:
    fmt, x = case
    wanted = expected(x, fmt, rounding, overflow)
    before = x.clone()
    assert same(quantize(x, fmt, rounding, overflow), wanted)
    assert identical(x, before), "the input was changed"


@modes
@settings(max_examples=20, deadline=None)
@given(case=formats_and_values(data_bits=32, width=64))
def test_float64_is_exact(
    case: tuple[FixedPointFormat, Tensor], rounding: str, overflow: str
) -> None:
    fmt, x = case
    wanted = expected(x, fmt, rounding, overflow)
    assert same(quantize(x, fmt, rounding, overflow), wanted)


@modes
@settings(max_examples=15, deadline=None)
@given(case=per_channel_and_values())
def test_per_channel_is_exact(
    case: tuple[PerChannelFormat, Tensor], rounding: str, overflow: str
) -> None:
    fmt, x = case
    result = quantize(x, fmt, rounding, overflow)
    for channel, one in enumerate(fmt.formats):
        wanted = expected(x[:, channel].flatten(), one, rounding, overflow)
        assert same(result[:, channel].flatten(), wanted)


@modes
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("data_bits", [1, 2, 3, 5])
@pytest.mark.parametrize("integer_bits", [-3, 0, 1, 3, 7])
def test_every_eighth_of_a_step_over_four_ranges(
    rounding: str, overflow: str, signed: bool, data_bits: int, integer_bits: int
) -> None:
    fmt = FixedPointFormat(integer_bits, data_bits - integer_bits, signed)
    reach = 16 * 2**fmt.word_length
    x = torch.arange(-reach, reach + 1, dtype=torch.float32) * (fmt.step / 8)
    assert same(quantize(x, fmt, rounding, overflow), expected(x, fmt, rounding, overflow))


@pytest.mark.few(0.25, "campaign")
@modes
@pytest.mark.parametrize(
    "text", ["Q0.24", "Q24.0", "UQ24.0", "UQ-40.64", "Q64.-40", "Q64.-64", "Q-64.64", "Q11.-10"]
)
def test_random_bit_patterns(rounding: str, overflow: str, text: str) -> None:
    """Every exponent, subnormals included; large enough for vectorised kernels."""
    fmt = FixedPointFormat.parse(text)
    generator = torch.Generator().manual_seed(20)
    bits = torch.randint(-(2**31), 2**31 - 1, (3001,), generator=generator)
    x = torch.cat([bits.to(torch.int32).view(torch.float32), torch.tensor(SPECIAL + TINY)])
    assert same(quantize(x, fmt, rounding, overflow), expected(x, fmt, rounding, overflow))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("text", "rounding", "overflow"),
    [
        ("Q1.6", "nearest", "saturate"),
        ("UQ3.5", "nearest_even", "wrap"),
        ("Q9.-2", "truncate", "saturate"),
        ("Q-2.20", "toward_zero", "wrap"),
    ],
)
def test_halves_are_exact_in_float32(
    dtype: torch.dtype, text: str, rounding: str, overflow: str
) -> None:
    patterns = torch.arange(-(2**15), 2**15, 5, dtype=torch.int32)
    x = patterns.to(torch.int16).view(dtype)
    fmt = FixedPointFormat.parse(text)
    result = quantize(x, fmt, rounding, overflow)
    assert result.dtype == torch.float32
    assert same(result, expected(x, fmt, rounding, overflow))


@pytest.mark.parametrize(
    ("rounding", "wanted"),
    [
        ("truncate", [-2.0, -2.0, -1.0, 0.0, 0.0, 1.0, 2.0, 2.0]),
        ("nearest", [-2.0, -1.0, 0.0, 0.0, 1.0, 2.0, 3.0, 3.0]),
        ("toward_zero", [-2.0, -1.0, 0.0, 0.0, 0.0, 1.0, 2.0, 2.0]),
        ("nearest_even", [-2.0, -2.0, 0.0, 0.0, 0.0, 2.0, 2.0, 3.0]),
        ("nearest_away", [-2.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 3.0]),
    ],
)
def test_halves_by_hand(rounding: str, wanted: list[float]) -> None:
    x = torch.tensor([-2.0, -1.5, -0.5, 0.0, 0.5, 1.5, 2.5, 2.75])
    assert same(quantize(x, FixedPointFormat(4, 0), rounding), wanted)


def test_where_adding_a_half_is_not_exact() -> None:
    below_half = 0.5 - 2.0**-25
    x = torch.tensor([below_half, 2.0**23 + 1, 2.0**24 - 1, -(2.0**23) - 1])
    assert same(
        quantize(x, FixedPointFormat(24, 0)), [0.0, 2.0**23 + 1, 2.0**24 - 1, -(2.0**23) - 1]
    )


def test_wrap_by_hand() -> None:
    x = torch.tensor([127.0, 128.0, 255.0, 256.0, -129.0, 300.5, 2.0**40, -(2.0**40) - 2.0**17])
    wanted = [127.0, -128.0, -1.0, 0.0, 127.0, 45.0, 0.0, 0.0]
    assert same(quantize(x, FixedPointFormat(7, 0), "nearest", "wrap"), wanted)
    # two's complement of 8 bits, by the machine
    codes = torch.arange(-1000, 1000)
    machine = codes.to(torch.int8).to(torch.float32)
    assert identical(quantize(codes.float(), FixedPointFormat(7, 0), "nearest", "wrap"), machine)
    unsigned = codes.to(torch.uint8).to(torch.float32)
    fmt = FixedPointFormat(8, 0, signed=False)
    assert identical(quantize(codes.float(), fmt, "nearest", "wrap"), unsigned)


@pytest.mark.parametrize("rounding", [*DETERMINISTIC, "stochastic"])
@pytest.mark.parametrize("overflow", OVERFLOWS)
def test_nan_stays_and_infinities_saturate(rounding: str, overflow: str) -> None:
    fmt = FixedPointFormat(2, 5)
    x = torch.tensor([math.nan, math.inf, -math.inf])
    assert same(quantize(x, fmt, rounding, overflow), [math.nan, fmt.max, fmt.min])


@pytest.mark.parametrize("rounding", [*DETERMINISTIC, "stochastic"])
@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("text", ["Q1.3", "UQ2.4", "Q9.-2", "Q-3.9", "Q0.0"])
def test_numbers_of_the_format_never_move(rounding: str, overflow: str, text: str) -> None:
    fmt = FixedPointFormat.parse(text)
    grid = torch.arange(fmt.code_min, fmt.code_max + 1, dtype=torch.float32) * fmt.step
    for _ in range(20 if rounding == "stochastic" else 1):
        assert identical(quantize(grid, fmt, rounding, overflow), grid)


@pytest.mark.parametrize("overflow", OVERFLOWS)
@settings(max_examples=100, deadline=None)
@given(case=formats_and_values())
def test_stochastic_gives_one_of_the_two_neighbours(
    case: tuple[FixedPointFormat, Tensor], overflow: str
) -> None:
    fmt, x = case
    result = quantize(x, fmt, "stochastic", overflow).tolist()
    for value, got in zip(x.tolist(), result, strict=True):
        if math.isnan(value):
            assert math.isnan(got)
        else:
            lower, upper, chance = neighbours(value, *bits_of(fmt), overflow)
            possible = {lower} if chance < 2**-60 else {lower, upper}
            assert got in possible, (value, fmt)
            assert math.copysign(1, got) == 1 or got < 0
