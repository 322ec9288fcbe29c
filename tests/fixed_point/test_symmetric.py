"""Symmetric formats, ternary ones and signs among them, against exact rationals."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qspinn.fixed_point import (
    ROUNDINGS,
    FixedPointFormat,
    PerChannelFormat,
    fake_quantize,
    from_integers,
    parse_format,
    quantize,
    to_integers,
)
from tests.fixed_point.strategies import DETERMINISTIC, PADDED, same, values
from tests.reference.symmetric import passes_gradient, quantized

SIGN, TERNARY = FixedPointFormat.parse("SQ-3.3"), FixedPointFormat.parse("SQ-2.3")
STEP = 0.125


@st.composite
def formats(draw: st.DrawFn) -> FixedPointFormat:
    """Most of them signs or ternary, the binary point anywhere."""
    data_bits = draw(st.sampled_from((0, 0, 1, 1, 2, 7, 23)))
    fraction_bits = draw(st.integers(-3, data_bits + 3) | st.integers(data_bits - 64, 64))
    return FixedPointFormat(data_bits - fraction_bits, fraction_bits, symmetric=True)


@st.composite
def cases(draw: st.DrawFn) -> tuple[FixedPointFormat, Tensor]:
    fmt = draw(formats())
    drawn = draw(st.lists(values(fmt), min_size=1, max_size=20))
    return fmt, torch.tensor((drawn * PADDED)[:PADDED])


@pytest.mark.parametrize(
    ("text", "word_length", "numbers"),
    [
        ("SQ0.0", 1, (-1.0, 1.0)),
        ("SQ-3.3", 1, (-0.125, 0.125)),
        ("SQ4.-4", 1, (-16.0, 16.0)),
        ("SQ1.0", 2, (-1.0, 0.0, 1.0)),
        ("SQ0.1", 2, (-0.5, 0.0, 0.5)),
        ("SQ1.1", 3, (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)),
    ],
)
def test_numbers_of_known_formats(text: str, word_length: int, numbers: tuple[float, ...]) -> None:
    fmt = FixedPointFormat.parse(text)
    assert (fmt.word_length, fmt.min, fmt.max) == (word_length, numbers[0], numbers[-1])
    assert fmt.is_sign == (word_length == 1)
    x = torch.linspace(-20, 20, 801)
    assert tuple(quantize(x, fmt).unique().tolist()) == numbers
    codes = to_integers(torch.tensor(numbers), fmt)
    assert codes.tolist() == [round(one / fmt.step) for one in numbers]
    assert from_integers(codes, fmt).tolist() == list(numbers)


@given(formats())
def test_text_round_trip(fmt: FixedPointFormat) -> None:
    assert parse_format(str(fmt)) == fmt
    assert fmt != FixedPointFormat(fmt.integer_bits, fmt.fraction_bits)
    each = PerChannelFormat(fmt.word_length, (fmt.fraction_bits,) * 2, axis=1, symmetric=True)
    assert parse_format(str(each)) == each
    assert each.formats == (fmt, fmt)
    assert (each.code_min, each.code_max, each.is_sign) == (fmt.code_min, fmt.code_max, fmt.is_sign)


@pytest.mark.parametrize("rounding", DETERMINISTIC)
@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_is_exact(case: tuple[FixedPointFormat, Tensor], rounding: str) -> None:
    fmt, x = case
    word = (fmt.word_length, fmt.fraction_bits, rounding)
    wanted = [quantized(one, *word) for one in x.tolist()]
    assert same(quantize(x, fmt, rounding), wanted)
    assert same(quantize(x.double(), fmt, rounding), wanted)
    each = PerChannelFormat(fmt.word_length, (fmt.fraction_bits,) * 2, symmetric=True)
    assert same(quantize(x.expand(2, -1), each, rounding)[1], wanted)
    learned = x.clone().requires_grad_()
    fake_quantize(learned, fmt, rounding).sum().backward()
    passes = [float(passes_gradient(one, *word)) for one in x.tolist()]
    assert learned.grad is not None
    assert learned.grad.tolist() == passes


@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_stochastic_takes_a_neighbour(case: tuple[FixedPointFormat, Tensor]) -> None:
    fmt, x = case
    drawn = quantize(x, fmt, "stochastic").tolist()
    for one, found in zip(x.tolist(), drawn, strict=True):
        if math.isnan(one):
            assert math.isnan(found)
            continue
        low = quantized(one, fmt.word_length, fmt.fraction_bits, "truncate")
        assert found in (low, min(low + (2 if fmt.is_sign else 1) * fmt.step, fmt.max))


@pytest.mark.parametrize("fmt", [SIGN, TERNARY, FixedPointFormat.parse("SQ10.-10")], ids=str)
@pytest.mark.parametrize("steps", [-1.0, -0.75, -0.001, 0.0, 0.3, 0.999, 1.0])
def test_stochastic_is_unbiased(fmt: FixedPointFormat, steps: float) -> None:
    """The mean over n draws lies within 4.5 standard errors of the number itself."""
    n = 100_000
    x = torch.full((n,), steps * fmt.step)
    drawn = quantize(x, fmt, "stochastic", generator=torch.Generator().manual_seed(3))
    mean = float(drawn.double().mean()) / fmt.step
    low = -1 if fmt.is_sign else math.floor(steps)
    width = 2 if fmt.is_sign else 1
    chance = (steps - low) / width
    assert abs(mean - steps) <= 4.5 * width * math.sqrt(chance * (1 - chance) / n) + 1e-12


def test_a_saturated_weight_gets_the_gradient_that_leads_back() -> None:
    x = torch.tensor([-1.0, -0.1, 0.1, 1.0], requires_grad=True)
    fake_quantize(x, SIGN, returning=True).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("fmt", [SIGN, TERNARY], ids=str)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_nothing_wraps(fmt: FixedPointFormat, rounding: str) -> None:
    for function in (quantize, fake_quantize):
        x = torch.ones(2, requires_grad=function is fake_quantize)
        with pytest.raises(ValueError, match=r"'wrap' with SQ.*write overflow='saturate'"):
            function(x, fmt, rounding, "wrap")


def test_errors_say_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"0\.0 at index \[1\] .* are -0\.125 and 0\.125"):
        to_integers(torch.tensor([STEP, 0.0]), SIGN)
    with pytest.raises(ValueError, match=r"code 0 at index \[0\] is none of SQ-3\.3.* -1, 1"):
        from_integers(torch.tensor([0, 1]), SIGN)
    with pytest.raises(ValueError, match=r"code -2 at index \[0\] .*\[-1, 1\] of SQ-2\.3"):
        from_integers(torch.tensor([-2, 1]), TERNARY)
    with pytest.raises(ValueError, match="signed=False and symmetric=True"):
        FixedPointFormat(1, 1, signed=False, symmetric=True)
    with pytest.raises(ValueError, match=r"channel 1 .* all or none are symmetric"):
        parse_format("SQ0.1|Q0.1 @0")
