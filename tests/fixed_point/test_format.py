from __future__ import annotations

from dataclasses import FrozenInstanceError
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qspinn.fixed_point import (
    MAX_BITS,
    MAX_WORD_LENGTH,
    FixedPointFormat,
    PerChannelFormat,
    parse_format,
)


@st.composite
def formats(draw: st.DrawFn) -> FixedPointFormat:
    signed = draw(st.booleans())
    word_length = draw(st.integers(1, MAX_WORD_LENGTH))
    data_bits = word_length - int(signed)
    integer_bits = draw(
        st.integers(max(-MAX_BITS, data_bits - MAX_BITS), min(MAX_BITS, data_bits + MAX_BITS))
    )
    return FixedPointFormat(integer_bits, data_bits - integer_bits, signed)


@pytest.mark.parametrize(
    ("text", "word_length", "low", "high", "step"),
    [
        ("Q1.6", 8, -2.0, 1.984375, 0.015625),
        ("Q0.7", 8, -1.0, 0.9921875, 0.0078125),
        ("Q7.0", 8, -128.0, 127.0, 1.0),
        ("UQ0.8", 8, 0.0, 0.99609375, 0.00390625),
        ("Q-2.9", 8, -0.25, 0.248046875, 0.001953125),
        ("Q9.-2", 8, -512.0, 508.0, 4.0),
        ("Q0.0", 1, -1.0, 0.0, 1.0),
        ("UQ1.0", 1, 0.0, 1.0, 1.0),
        ("Q31.0", 32, -2147483648.0, 2147483647.0, 1.0),
        ("UQ0.32", 32, 0.0, 1 - 2.0**-32, 2.0**-32),
    ],
)
def test_numbers_of_known_formats(
    text: str, word_length: int, low: float, high: float, step: float
) -> None:
    fmt = FixedPointFormat.parse(text)
    assert (fmt.word_length, fmt.min, fmt.max, fmt.step) == (word_length, low, high, step)
    assert all(isinstance(value, float) for value in (fmt.min, fmt.max, fmt.step, fmt.scale))
    assert all(isinstance(value, int) for value in (fmt.code_min, fmt.code_max))


@given(formats())
def test_properties_equal_their_definitions(fmt: FixedPointFormat) -> None:
    i, f = fmt.integer_bits, fmt.fraction_bits
    assert fmt.word_length == i + f + (1 if fmt.signed else 0)
    assert Fraction(fmt.step) == Fraction(2) ** -f
    assert Fraction(fmt.scale) == Fraction(2) ** f
    assert Fraction(fmt.max) == Fraction(2) ** i - Fraction(2) ** -f
    assert Fraction(fmt.min) == (-(Fraction(2) ** i) if fmt.signed else 0)
    assert Fraction(fmt.min) / Fraction(fmt.step) == fmt.code_min
    assert Fraction(fmt.max) / Fraction(fmt.step) == fmt.code_max
    assert fmt.code_max - fmt.code_min + 1 == 2**fmt.word_length


@given(formats())
def test_text_round_trip(fmt: FixedPointFormat) -> None:
    assert FixedPointFormat.parse(str(fmt)) == fmt
    assert parse_format(str(fmt)) == fmt


def test_is_a_frozen_value() -> None:
    fmt = FixedPointFormat(1, 6)
    assert fmt == FixedPointFormat(1, 6, signed=True)
    assert hash(fmt) == hash(FixedPointFormat(1, 6))
    assert fmt != FixedPointFormat(1, 6, signed=False)
    with pytest.raises(FrozenInstanceError):
        fmt.integer_bits = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "q1.6",
        "Q1",
        "Q1,6",
        "Q 1.6",
        " Q1.6",
        "Q1.6 ",
        "Q+1.6",
        "1.6",
        "UQ",
        "XQ1.6",
        "Q1.6.1",
        "Q1.6\n",
        "Q1.٦",
        "Q99999.1",
    ],
)
def test_parse_refuses_other_text(text: str) -> None:
    with pytest.raises(ValueError, match=r"no fixed-point format; write .Qi\.f.") as caught:
        FixedPointFormat.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("value", [None, 8, b"Q1.6", FixedPointFormat(1, 6)])
def test_parse_refuses_other_types(value: object) -> None:
    for parse in (FixedPointFormat.parse, PerChannelFormat.parse, parse_format):
        with pytest.raises(TypeError, match=r"expected text such as .Q1\.6"):
            parse(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [True, 1.0, "1", None, np.int64(1), Fraction(1)])
def test_bits_must_be_ints(value: object) -> None:
    with pytest.raises(TypeError, match="integer_bits must be an int") as caught:
        FixedPointFormat(value, 6)  # type: ignore[arg-type]
    assert repr(value) in str(caught.value)
    with pytest.raises(TypeError, match="fraction_bits must be an int"):
        FixedPointFormat(1, value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [1, 0, None, "True"])
def test_signed_must_be_a_bool(value: object) -> None:
    with pytest.raises(TypeError, match="signed must be True or False"):
        FixedPointFormat(1, 6, signed=value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        ((0, -1, True), r"Q0\.-1 has a word length of 1 \(sign\) \+ 0 \+ -1 = 0 bits; .* 1 to 32"),
        ((0, 0, False), r"UQ0\.0 has a word length of 0 \+ 0 = 0 bits"),
        ((16, 16, True), r"Q16\.16 .* = 33 bits"),
        ((17, 16, False), r"UQ17\.16 .* = 33 bits"),
        ((65, -60, True), r"integer_bits=65 in Q65\.-60 is outside \[-64, 64\]"),
        ((-60, 65, True), r"fraction_bits=65 in Q-60\.65 is outside"),
        ((-65, 64, True), r"integer_bits=-65"),
        ((64, -65, True), r"fraction_bits=-65"),
    ],
)
def test_impossible_formats(bits: tuple[int, int, bool], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FixedPointFormat(*bits)


def test_limits_are_possible() -> None:
    assert FixedPointFormat(64, -64).word_length == 1
    assert FixedPointFormat(-64, 64).max == 0.0
    assert FixedPointFormat(-32, 64, signed=False).word_length == 32
    assert Fraction(FixedPointFormat(64, -33).max) == 2**64 - 2**33


@st.composite
def per_channel_formats(draw: st.DrawFn) -> PerChannelFormat:
    signed = draw(st.booleans())
    word_length = draw(st.integers(1, MAX_WORD_LENGTH))
    data_bits = word_length - int(signed)
    bits = st.integers(data_bits - MAX_BITS, MAX_BITS)
    fractions = draw(st.lists(bits, min_size=1, max_size=5))
    return PerChannelFormat(word_length, tuple(fractions), signed, draw(st.integers(-4, 4)))


@given(per_channel_formats())
def test_per_channel_text_round_trip(fmt: PerChannelFormat) -> None:
    assert PerChannelFormat.parse(str(fmt)) == fmt
    assert parse_format(str(fmt)) == fmt


@given(per_channel_formats())
def test_per_channel_formats_are_those_of_the_slices(fmt: PerChannelFormat) -> None:
    assert tuple(one.fraction_bits for one in fmt.formats) == fmt.fraction_bits
    for one in fmt.formats:
        assert (one.word_length, one.signed) == (fmt.word_length, fmt.signed)
        assert (one.code_min, one.code_max) == (fmt.code_min, fmt.code_max)


def test_per_channel_text() -> None:
    assert str(PerChannelFormat(8, (6, 7, 9))) == "Q1.6|Q0.7|Q-2.9 @0"
    assert str(PerChannelFormat(8, (8,), signed=False, axis=-1)) == "UQ0.8 @-1"
    assert parse_format("Q1.6|Q0.7 @1") == PerChannelFormat(8, (6, 7), axis=1)


def test_per_channel_takes_any_sequence_and_is_hashable() -> None:
    fmt = PerChannelFormat(8, [6, 7])  # type: ignore[arg-type]
    assert fmt.fraction_bits == (6, 7)
    assert hash(fmt) == hash(PerChannelFormat(8, (6, 7)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((8.0, (6,)), TypeError, "word_length must be an int, got 8.0"),
        ((True, (6,)), TypeError, "word_length must be an int, got True"),
        ((8, (6, 7.0)), TypeError, r"fraction_bits\[1\] must be an int, got 7.0"),
        ((8, (False,)), TypeError, r"fraction_bits\[0\] must be an int, got False"),
        ((8, 6), TypeError, "fraction_bits must hold one int per channel.*got 6"),
        ((8, "67"), TypeError, "fraction_bits must hold one int per channel.*got '67'"),
        ((8, (6,), 1), TypeError, "signed must be True or False, got 1"),
        ((8, (6,), True, 0.0), TypeError, "axis must be an int, got 0.0"),
        ((8, ()), ValueError, "fraction_bits is empty"),
        ((33, (6,)), ValueError, r"channel 0: .*Q26\.6 has a word length .* = 33 bits"),
        ((0, (6,)), ValueError, r"channel 0: .* = 0 bits"),
        ((8, (6, 65)), ValueError, "channel 1: .*fraction_bits=65"),
    ],
)
def test_impossible_per_channel_formats(
    arguments: tuple[object, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        PerChannelFormat(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Q1.6|Q0.7", "does not end with its axis"),
        ("Q1.6|Q0.7@0", "does not end with its axis"),
        ("Q1.6|Q0.7 @", "does not end with its axis"),
        ("Q1.6|Q0.7 @x", "does not end with its axis"),
        ("Q1.6|Q0.7 @0 @1", "does not end with its axis"),
        ("Q1.6| @0", "'' is no fixed-point format"),
        (" @0", "'' is no fixed-point format"),
        ("Q1.6|Q1.7 @0", r"channel 1 is Q1\.7 \(9 bits\) but channel 0 is Q1\.6 \(8 bits\)"),
        ("Q1.6|UQ1.7 @0", r"channel 1 is UQ1\.7 \(8 bits\) but channel 0 is Q1\.6 \(8 bits\)"),
    ],
)
def test_per_channel_parse_refuses_other_text(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PerChannelFormat.parse(text)
