"""Codes: to integers and back, and what has no code."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qspinn.fixed_point import (
    FixedPointFormat,
    PerChannelFormat,
    from_integers,
    quantize,
    to_integers,
)
from tests.fixed_point.strategies import (
    bits_of,
    formats,
    formats_and_values,
    identical,
    per_channel_and_values,
    same,
)
from tests.reference.fixed_point import code_of, value_of

Q1_6 = FixedPointFormat(1, 6)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_codes_to_values_and_back(data: st.DataObject) -> None:
    fmt = data.draw(formats(data_bits=32))
    drawn = data.draw(
        st.lists(
            st.integers(fmt.code_min, fmt.code_max)
            | st.sampled_from((fmt.code_min, fmt.code_max, 0)),
            min_size=1,
            max_size=20,
        )
    )
    codes = torch.tensor(drawn, dtype=torch.int64)
    dtypes = [torch.float64]
    if fmt.integer_bits + fmt.fraction_bits <= 24:
        dtypes.append(torch.float32)
    for dtype in dtypes:
        values = from_integers(codes, fmt, dtype)
        assert values.dtype == dtype
        assert same(values, [value_of(code, fmt.fraction_bits) for code in drawn])
        assert identical(quantize(values, fmt), values)
        back = to_integers(values, fmt)
        assert back.dtype == (torch.int64 if fmt.code_max >= 2**31 else torch.int32)
        assert back.tolist() == drawn


@settings(max_examples=100, deadline=None)
@given(formats_and_values())
def test_codes_of_quantized_values(case: tuple[FixedPointFormat, torch.Tensor]) -> None:
    fmt, x = case
    x = x[~x.isnan()]
    codes = to_integers(quantize(x, fmt, "truncate", "wrap"), fmt)
    assert codes.tolist() == [code_of(v, *bits_of(fmt), "truncate", "wrap") for v in x.tolist()]


@settings(max_examples=40, deadline=None)
@given(per_channel_and_values())
def test_per_channel_codes(case: tuple[PerChannelFormat, torch.Tensor]) -> None:
    fmt, x = case
    values = quantize(torch.nan_to_num(x), fmt)
    codes = to_integers(values, fmt)
    for channel, one in enumerate(fmt.formats):
        assert identical(codes[:, channel], to_integers(values[:, channel], one))
    assert identical(from_integers(codes, fmt), values)


@pytest.mark.parametrize(
    ("dtype", "fmt"),
    [
        (torch.uint8, FixedPointFormat(0, 8, signed=False)),
        (torch.int8, Q1_6),
        (torch.int16, FixedPointFormat(7, 8)),
        (torch.int32, FixedPointFormat(-1, 25)),
        (torch.int64, FixedPointFormat(12, 12)),
    ],
)
def test_integer_dtypes(dtype: torch.dtype, fmt: FixedPointFormat) -> None:
    codes = torch.tensor([fmt.code_min, 0, 1, fmt.code_max], dtype=dtype)
    assert same(from_integers(codes, fmt), [fmt.min, 0.0, fmt.step, fmt.max])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_have_codes(dtype: torch.dtype) -> None:
    assert to_integers(torch.tensor([0.5, -1.25], dtype=dtype), Q1_6).tolist() == [32, -80]


def test_shapes() -> None:
    assert to_integers(torch.tensor(-0.0), Q1_6).shape == ()
    assert to_integers(torch.empty(0, 2), Q1_6).shape == (0, 2)
    assert from_integers(torch.empty(2, 0, dtype=torch.int8), Q1_6).shape == (2, 0)
    strided = torch.tensor([[0.5, 9.0], [1.0, 9.0]])[:, 0]
    assert to_integers(strided, Q1_6).tolist() == [32, 64]
    assert not from_integers(torch.tensor([1]), Q1_6).requires_grad


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, r"nan at index \[1, 0\] has no code"),
        (math.inf, r"inf at index \[1, 0\] is out of the range \[-2.0, 1.984375\] of Q1\.6"),
        (-math.inf, r"-inf at index \[1, 0\] is out of the range"),
        (2.0, r"2.0 at index \[1, 0\] is out of the range"),
        (-2.015625, r"-2.015625 at index \[1, 0\] is out of the range"),
        (
            0.0078125,
            r"0.0078125 at index \[1, 0\] is off the grid of Q1\.6, whose step is 0.015625",
        ),
        (1e-45, r"1.401298464324817e-45 at index \[1, 0\] is off the grid"),
        (3.4e38, r"e\+38 at index \[1, 0\] is out of the range"),
    ],
)
def test_what_has_no_code(value: float, message: str) -> None:
    x = torch.tensor([[0.5, 1.0], [value, math.nan]])
    with pytest.raises(ValueError, match=message):
        to_integers(x, Q1_6)


def test_tiny_numbers_are_off_a_coarse_grid() -> None:
    """Their product with the scale underflows to 0, which is a code."""
    with pytest.raises(ValueError, match=r"off the grid of Q64\.-60"):
        to_integers(torch.tensor([0.0, 2.0**-140]), FixedPointFormat(64, -60))


def test_errors_name_the_format_of_the_channel() -> None:
    fmt = PerChannelFormat(8, (6, 7), axis=-1)
    with pytest.raises(ValueError, match=r"1.5 at index \[1, 1\] is out of .* of Q0\.7"):
        to_integers(torch.tensor([[1.5, 0.5], [1.5, 1.5]]), fmt)
    with pytest.raises(ValueError, match=r"code 128 at index \[0, 1\] is out of .* of Q0\.7"):
        from_integers(torch.tensor([[0, 128]]), fmt)


@pytest.mark.parametrize("code", [128, -129, 2**62, -(2**63)])
def test_codes_out_of_range(code: int) -> None:
    message = rf"code {code} at index \[2\] is out of the range \[-128, 127\] of Q1\.6"
    with pytest.raises(ValueError, match=message):
        from_integers(torch.tensor([0, 1, code, 999]), Q1_6)


def test_unsigned_formats_have_no_negative_codes() -> None:
    with pytest.raises(ValueError, match=r"code -1 at index \[0\] is out of the range \[0, 255\]"):
        from_integers(torch.tensor([-1], dtype=torch.int8), FixedPointFormat(0, 8, signed=False))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64])
def test_codes_must_be_integers(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=f"codes of {dtype} are not supported; use torch.uint8"):
        from_integers(torch.zeros(2, dtype=dtype), Q1_6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.int32, torch.bfloat16])
def test_values_must_be_float32_or_float64(dtype: Any) -> None:
    with pytest.raises(TypeError, match=f"from_integers: {dtype} is not supported"):
        from_integers(torch.tensor([1]), Q1_6, dtype)
