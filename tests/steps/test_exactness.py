"""How many bits sums and charges need, against every case there is for tiny formats."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qspinn.fixed_point import FixedPointFormat, Format, PerChannelFormat, parse_format
from qspinn.steps.exactness import (
    accumulator_bits,
    accumulator_grid,
    accumulator_limit,
    bits_for,
    charge_bits,
    dtype_for,
    fraction_bits_of,
)


def numbers(fmt: FixedPointFormat) -> list[Fraction]:
    """All numbers of a format."""
    step = Fraction(2) ** -fmt.fraction_bits
    return [code * step for code in range(fmt.code_min, fmt.code_max + 1)]


def length(value: Fraction, grid: int) -> int:
    """Bits of the code of a number on a grid, without sign; it must lie there."""
    code = value * Fraction(2) ** grid
    assert code.denominator == 1
    return abs(code.numerator).bit_length()


@pytest.mark.parametrize("bias", [None, "Q0.2", "Q-1.4"])
@pytest.mark.parametrize("inputs", [None, "UQ0.2", "Q0.1"])
@pytest.mark.parametrize("weight", ["Q0.2", "Q1.0", "Q-1.3"])
@pytest.mark.parametrize("fan_in", [1, 2, 5])
def test_accumulators_by_enumeration(
    fan_in: int, weight: str, inputs: str | None, bias: str | None
) -> None:
    """The largest sum of all has exactly as many bits as stated."""
    w, x, b = (None if text is None else parse_format(text) for text in (weight, inputs, bias))
    assert isinstance(w, FixedPointFormat)
    seen = [Fraction(0), Fraction(1)] if x is None else numbers(x)
    products = [one * other for one, other in itertools.product(numbers(w), seen)]
    biases = [Fraction(0)] if b is None else numbers(b)
    sums = [fan_in * extreme + one for extreme in (min(products), max(products)) for one in biases]
    grid = accumulator_grid(w, b, x)
    assert 1 + max(length(one, grid) for one in sums) <= accumulator_bits(w, b, x, fan_in)
    bound = max(abs(one) for one in sums)
    assert bound <= accumulator_limit(w, b, x, fan_in)
    if b is None and x is None:
        assert 1 + length(bound, grid) == accumulator_bits(w, b, x, fan_in)


@pytest.mark.parametrize("order", [(2, 9, 4), (9, 2, 4), (4, 2, 9)])
def test_the_worst_channel_counts(order: tuple[int, ...]) -> None:
    """Biases on one grid: the channel with the finest weights has the longest sums."""
    weight: Format = PerChannelFormat(4, order)
    bias = FixedPointFormat(2, 1)
    each = [accumulator_bits(FixedPointFormat(3 - f, f), bias, None, 10) for f in order]
    assert accumulator_bits(weight, bias, None, 10) == max(each) > min(each)
    biases = PerChannelFormat(4, (3, 1, 12))
    pairs = zip(order, biases.formats, strict=True)
    each = [accumulator_bits(FixedPointFormat(3 - f, f), one, None, 10) for f, one in pairs]
    assert accumulator_bits(weight, biases, None, 10) == max(each)


@pytest.mark.parametrize("wraps", [False, True])
@pytest.mark.parametrize("decay_input", [False, True])
@pytest.mark.parametrize("decay", [None, "UQ0.2", "UQ1.1", "UQ-1.3"])
@pytest.mark.parametrize("current", ["Q1.2", "Q3.0", "Q0.4"])
def test_charges_by_enumeration(
    current: str, decay: str | None, decay_input: bool, wraps: bool
) -> None:
    """Every intermediate result of every charge that ends inside the range fits; or of all."""
    membrane, x_format = FixedPointFormat(0, 2), FixedPointFormat.parse(current)
    leak = None if decay is None else FixedPointFormat.parse(decay)
    largest = max(abs(x) for x in numbers(x_format))
    stated = charge_bits(
        membrane,
        x_format.fraction_bits,
        None if leak is None else (leak.fraction_bits, Fraction(leak.max)),
        decay_input,
        largest if wraps else None,
    )
    rest = Fraction(-1, 4)
    grid = max(x_format.fraction_bits, 2) + (0 if leak is None else leak.fraction_bits)
    if not decay_input and leak is not None:
        grid = max(x_format.fraction_bits, 2 + leak.fraction_bits)
    longest = 0
    leaks = [Fraction(0)] if leak is None else numbers(leak)
    for x, v, k in itertools.product(numbers(x_format), numbers(membrane), leaks):
        if leak is None:
            steps = [v + x]
        elif decay_input:
            steps = [k * (x - (v - rest)), v + k * (x - (v - rest))]
        else:
            steps = [v + x, k * (v - rest), v + x - k * (v - rest)]
        if wraps or membrane.min <= steps[-1] < membrane.max + membrane.step:
            longest = max(longest, *(length(step, grid) for step in steps))
    assert longest <= stated <= longest + 3


@given(st.integers(-(2**20), 2**20), st.integers(-30, 30))
def test_fraction_bits_of_a_number(odd: int, exponent: int) -> None:
    value = Fraction(2 * odd + 1) * Fraction(2) ** exponent
    assert fraction_bits_of(float(value)) == -exponent
    assert fraction_bits_of(0.0) == 0


def test_bits_and_types() -> None:
    assert [bits_for(Fraction(n), 0) for n in (0, 1, 2, 3, 4)] == [0, 1, 2, 2, 3]
    assert bits_for(Fraction(1, 2), 1) == 1
    assert dtype_for(24, "here") == torch.float32
    assert dtype_for(25, "here") == dtype_for(53, "here") == torch.float64
    with pytest.raises(ValueError, match="here: exact results need 54 bits, a float64 holds 53"):
        dtype_for(54, "here")
