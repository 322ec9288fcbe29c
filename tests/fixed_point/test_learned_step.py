"""The gradient of a learned step is LSQ's, whatever the format, the rounding and the overflow."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from qspinn.fixed_point import (
    FixedPointFormat,
    LearnedStep,
    PerChannelFormat,
    TensorQuantizer,
    fake_quantize,
    learned_quantize,
)
from tests.reference.learned_step import slope

ROUNDINGS = ("truncate", "nearest", "toward_zero", "nearest_even", "nearest_away")
# Off the grids' ties, so that no rounding is a matter of the last bit.
VALUES = st.lists(st.floats(-9.0, 9.0).map(lambda x: x + 1e-3), min_size=1, max_size=8)


def step_of(bits: list[int], gain: float = 1.0) -> LearnedStep:
    return LearnedStep(nn.Parameter(-torch.tensor(bits, dtype=torch.float64)), gain)


@given(
    values=VALUES,
    weights=st.lists(st.floats(-2.0, 2.0), min_size=8, max_size=8),
    length=st.integers(1, 8),
    bits=st.integers(-2, 6),
    rounding=st.sampled_from(ROUNDINGS),
    overflow=st.sampled_from(["saturate", "wrap"]),
    returning=st.booleans(),
)
def test_against_exact_rationals(
    values: list[float],
    weights: list[float],
    length: int,
    bits: int,
    rounding: str,
    overflow: str,
    returning: bool,
) -> None:
    fmt = FixedPointFormat(length - 1 - bits, bits)
    gain = 0.25
    step = step_of([bits], gain)
    x = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    asked = torch.tensor(weights[: len(values)], dtype=torch.float64)
    held = learned_quantize(x, step, fmt, rounding, overflow, returning=returning)
    (held * asked).sum().backward()
    expected = sum(
        Fraction(one) * slope(Fraction(value), fmt.integer_bits, bits, rounding, overflow)
        for one, value in zip(asked.tolist(), values, strict=True)
    )
    assert step.log2.grad is not None
    found = float(step.log2.grad) / (gain * math.log(2.0))
    assert found == pytest.approx(float(expected), rel=1e-9, abs=1e-9)
    again = x.detach().clone().requires_grad_()
    plain = fake_quantize(again, fmt, rounding, overflow, returning=returning)
    (plain * asked).sum().backward()
    assert torch.equal(held, plain)
    assert x.grad is not None
    assert again.grad is not None
    assert torch.equal(x.grad, again.grad)


def test_signs_and_ternary_numbers() -> None:
    """Two and three numbers; what lies further away than half a step from all is outside."""
    x = torch.tensor([0.1, -0.7, 5.0, -3.0], dtype=torch.float64)
    for text, held, outside in (
        ("SQ0.0", [1.0, -1.0, 1.0, -1.0], [False, False, True, True]),
        ("SQ1.0", [0.0, -1.0, 1.0, -1.0], [False, False, True, True]),
    ):
        step, fmt = step_of([0]), FixedPointFormat.parse(text)
        found = learned_quantize(x, step, fmt)
        found.sum().backward()
        assert found.tolist() == held
        slopes = [v if out else v - float(y) for v, out, y in zip(held, outside, x, strict=True)]
        assert step.log2.grad is not None
        assert float(step.log2.grad) == pytest.approx(math.log(2.0) * sum(slopes))


def test_a_step_for_each_channel() -> None:
    x = torch.randn(3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    fmt = PerChannelFormat(3, (1, 4), axis=1)
    step = step_of([1, 4])
    asked = torch.randn(3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (learned_quantize(x, step, fmt) * asked).sum().backward()
    assert step.log2.grad is not None
    for channel, bits in enumerate((1, 4)):
        one = step_of([bits])
        held = learned_quantize(x[:, channel], one, FixedPointFormat(2 - bits, bits))
        (held * asked[:, channel]).sum().backward()
        assert torch.allclose(one.log2.grad[0], step.log2.grad[channel], rtol=1e-12)


def test_what_is_no_number_teaches_nothing() -> None:
    step = step_of([2])
    x = torch.tensor([float("nan"), float("inf"), 0.3], dtype=torch.float64)
    held = learned_quantize(x, step, FixedPointFormat(1, 2))
    held.backward(torch.ones(3, dtype=torch.float64))
    assert step.log2.grad is not None
    expected = math.log(2.0) * (1.75 + 0.25 - 0.3)  # the end of the range, and what 0.3 became
    assert float(step.log2.grad) == pytest.approx(expected)


def test_without_gradients_it_is_fake_quantisation() -> None:
    step, x = step_of([2]), torch.randn(9)
    with torch.no_grad():
        held = learned_quantize(x, step, FixedPointFormat(1, 2))
    assert not held.requires_grad
    step.log2.requires_grad_(False)
    assert torch.equal(learned_quantize(x, step, FixedPointFormat(1, 2)), held)


def test_several_steps_need_a_format_for_each() -> None:
    with pytest.raises(ValueError, match=r"2 steps are learned.*Q1\.2 has one; write a PerChannel"):
        learned_quantize(torch.zeros(2), step_of([2, 2]), FixedPointFormat(1, 2))


def test_the_gain_is_that_of_the_paper() -> None:
    assert LearnedStep.gain_of(100, 4) == 1.0 / 20.0
    assert LearnedStep.gain_of(100, 0) == 1.0 / 10.0


@pytest.mark.parametrize(
    ("saturated", "expected"),
    [
        # Beyond the upper end, inside, and beyond the lower end, where a step would lead back,
        # inside, and where it would lead on.
        ("returning", [1.0, 1.0, 0.0]),
        ("clip", [0.0, 1.0, 0.0]),
        ("pass", [1.0, 1.0, 1.0]),
    ],
)
@pytest.mark.parametrize("learns", [False, True], ids=["step stays", "step learns"])
def test_gradients_beyond_the_range(saturated: str, expected: list[float], learns: bool) -> None:
    step = step_of([2]) if learns else None
    quantizer = TensorQuantizer("w", FixedPointFormat(0, 2), saturated=saturated, step=step)
    x = torch.tensor([5.0, 0.3, -5.0], dtype=torch.float64, requires_grad=True)
    quantizer.stored(x, training=True).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == expected
    if step is not None:
        expected_step = math.log(2.0) * (0.75 + (0.25 - 0.3) - 1.0)
        assert step.log2.grad is not None
        assert float(step.log2.grad) == pytest.approx(expected_step)
