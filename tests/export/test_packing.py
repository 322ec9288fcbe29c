"""Codes packed at their word length, against Python's integers."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import qspinn.export.packed_tensor
from qspinn.export.packed_tensor import PackedTensor
from qspinn.export.packing import code_range, pack, packed_bytes, unpack
from tests.reference import packed_bits

WORDS = st.tuples(st.integers(1, 32), st.booleans())


@st.composite
def words_and_codes(draw, most=40):
    word_length, signed = draw(WORDS)
    low, high = code_range(word_length, signed)
    edges = st.sampled_from([low, high, 0, max(-1, low)])
    codes = draw(st.lists(st.integers(low, high) | edges, max_size=most))
    return word_length, signed, codes


@given(words_and_codes())
def test_bits_are_where_python_integers_say(case):
    word_length, signed, codes = case
    data = pack(np.array(codes, np.int64), word_length, signed)
    assert data == packed_bits.packed(codes, word_length)
    assert len(data) == packed_bytes(len(codes), word_length)
    back = unpack(data, word_length, signed, len(codes))
    assert back.dtype == np.int64
    assert back.tolist() == codes == packed_bits.unpacked(data, word_length, signed, len(codes))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("word_length", range(1, 33))
def test_every_word_length_with_many_codes(word_length, signed):
    low, high = code_range(word_length, signed)
    codes = np.random.default_rng(word_length).integers(low, high, 1003, endpoint=True)
    codes[:2] = low, high
    data = pack(codes, word_length, signed)
    assert data == packed_bits.packed(codes.tolist(), word_length)
    assert np.array_equal(unpack(data, word_length, signed, codes.size), codes)


def test_an_example_by_hand():
    # 001, 110 (-2), 011 (3): the bits from the lowest on are 100 011 110 0000000
    assert pack(np.array([1, -2, 3]), 3, True) == bytes([0b11110001, 0b0])
    assert pack(np.array([0x12345, 0xABCDE]), 20, False) == bytes.fromhex("4523e1cdab")
    assert pack(np.array([1]), 1, False) == b"\x01"
    assert pack(np.array([-1]), 1, True) == b"\x01"


@pytest.mark.parametrize(
    "dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint64, ">i4"]
)
def test_any_dtype_and_any_layout(dtype):
    codes = np.arange(24).reshape(2, 3, 4).astype(dtype)
    expected = packed_bits.packed(range(24), 5)
    assert pack(codes, 5, False) == expected
    assert pack(np.asfortranarray(codes), 5, False) == expected
    reversed_twice = codes[::-1, :, ::-1].copy()[::-1, :, ::-1]
    assert pack(reversed_twice, 5, False) == expected


@pytest.mark.parametrize("data_type", [bytes, bytearray, memoryview])
def test_unpacks_any_bytes_and_leaves_them_alone(data_type):
    data = data_type(b"\xf1\x00")
    codes = unpack(data, 3, True, 3)
    codes[:] = 0
    assert bytes(data) == b"\xf1\x00"


@pytest.mark.parametrize(
    ("codes", "signed", "message"),
    [
        ([[0, 7], [8, -9]], True, r"code 8 at index \[1, 0\] is out of the range \[-8, 7\] of sig"),
        ([[0, -8], [-9, 8]], True, r"code -9 at index \[1, 0\]"),
        ([15, 16], False, r"code 16 at index \[1\] is out of the range \[0, 15\] of unsigned"),
        ([-1], False, r"code -1 at index \[0\]"),
        (2**63 - 1, False, r"code 9223372036854775807 at index \[\]"),
    ],
)
def test_codes_that_do_not_fit_are_named(codes, signed, message):
    with pytest.raises(ValueError, match=message):
        pack(np.array(codes), 4, signed)


def test_the_largest_codes_of_unsigned_dtypes_are_compared_as_numbers():
    with pytest.raises(ValueError, match="code 18446744073709551615 "):
        pack(np.array([2**64 - 1], np.uint64), 32, True)
    assert pack(np.array([2**32 - 1], np.uint64), 32, False) == b"\xff" * 4


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.array([0.0]), 4, True), TypeError, "an array of float64; give a NumPy array of int"),
        ((np.array([True]), 4, True), TypeError, "an array of bool"),
        (([0], 4, True), TypeError, r"codes are \[0\] \(list\)"),
        ((np.array([0]), 0, True), ValueError, "word_length is 0; give 1 to 32 bits"),
        ((np.array([0]), 33, True), ValueError, "word_length is 33"),
        ((np.array([0]), 4.0, True), TypeError, "word_length is 4.0"),
        ((np.array([0]), True, True), TypeError, "word_length is True"),
        ((np.array([0]), 4, 1), TypeError, "signed is 1"),
    ],
)
def test_what_cannot_be_packed_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        pack(*arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((b"\xf1", 3, True, 3), ValueError, "3 codes of 3 bits take 2 bytes, and there are 1"),
        ((b"\xf1\0\0", 3, True, 3), ValueError, "and there are 3"),
        ((b"\xf1\x02", 3, True, 3), ValueError, "the last byte is 0x02, and its upper 7 bits"),
        ((b"\xf1\x80", 3, True, 3), ValueError, "padding"),
        ((b"", 3, True, -1), ValueError, "count is -1"),
        ((b"", 3, True, 1.0), TypeError, "count is 1.0"),
        ((b"\0", 3, True, 10**30), ValueError, "bytes, and there are 1"),
    ],
)
def test_what_cannot_be_unpacked_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        unpack(*arguments)


@given(words_and_codes(), st.integers(0, 255))
def test_any_other_last_byte_is_refused_or_gives_other_codes(case, byte):
    word_length, signed, codes = case
    data = pack(np.array(codes, np.int64), word_length, signed)
    if not data or data[-1] == byte:
        return
    used = len(codes) * word_length % 8 or 8
    try:
        back = unpack(data[:-1] + bytes([byte]), word_length, signed, len(codes))
    except ValueError:
        assert byte >> used
    else:
        assert not byte >> used
        assert back.tolist() != codes


@st.composite
def tensors(draw):
    word_length, signed = draw(WORDS)
    shape = draw(st.lists(st.integers(0, 4), max_size=3).map(tuple))
    low, high = code_range(word_length, signed)
    size = int(np.prod(shape, dtype=int))
    codes = draw(st.lists(st.integers(low, high), min_size=size, max_size=size))
    return PackedTensor(np.array(codes, np.int64).reshape(shape), word_length, signed), codes


@given(tensors())
def test_tensors_keep_their_shape_and_count_their_bits(case):
    tensor, codes = case
    assert tensor.codes.dtype == np.int64
    assert tensor.codes.shape == tensor.shape
    assert tensor.codes.ravel().tolist() == codes
    assert tensor.count == len(codes)
    assert tensor.payload_bits == len(codes) * tensor.word_length
    assert tensor.payload_bits + tensor.padding_bits == 8 * len(tensor.data)
    assert 0 <= tensor.padding_bits < 8
    again = PackedTensor.from_packed(tensor.data, tensor.shape, tensor.word_length, tensor.signed)
    assert again == tensor
    assert hash(again) == hash(tensor)


def test_tensors_are_equal_by_all_that_they_are():
    one = PackedTensor(np.array([1, 2]), 4, True)
    assert one == PackedTensor(np.array([1, 2], np.int8), 4, True)
    assert one != PackedTensor(np.array([1, 2]), 4, False)
    assert one != PackedTensor(np.array([[1, 2]]), 4, True)
    assert one != PackedTensor(np.array([1, 3]), 4, True)
    assert repr(one) == "PackedTensor(shape=(2,), word_length=4, signed=True)"


@pytest.mark.parametrize(
    ("data", "shape", "message"),
    [
        (b"\0", (3,), "3 codes of 4 bits take 2 bytes"),
        (b"\0\x10", (3,), "padding"),
        (b"", (-1,), r"the dimension -1 of the shape \[-1\] is negative"),
        (b"\0", (1,) * 33, "33 dimensions; at most 32"),
        (b"", (0, 2**40, 2**40), "too large"),
        (b"\0", (2**62, 2**62), "too large"),
    ],
)
def test_packed_bytes_of_other_shapes_are_refused(data, shape, message):
    with pytest.raises(ValueError, match=message):
        PackedTensor.from_packed(data, shape, 4, True)


def test_empty_tensors_with_large_dimensions_can_be_unpacked():
    tensor = PackedTensor.from_packed(b"", (2**30, 0, 2**18), 4, True)
    assert tensor.codes.shape == (2**30, 0, 2**18)


def test_types_are_checked():
    with pytest.raises(TypeError, match="data is bytearray; give bytes"):
        PackedTensor.from_packed(bytearray(1), (1,), 4, True)
    with pytest.raises(TypeError, match=r"the dimension 1\.0 of a shape is no int"):
        PackedTensor.from_packed(b"\0", (1.0,), 4, True)


def test_the_example():
    assert doctest.testmod(qspinn.export.packed_tensor) == (0, 4)
