"""Model files that hold anything: refused, with one class of error and without memory."""

import json
import os
import tracemalloc

import numpy as np
import pytest

from qspinn.export.container import (
    DamagedModelError,
    PackedTensor,
    checksum,
    read_container,
    write_container,
)
from tests.export.test_container import HEADER, TENSORS
from tests.mutations import mutations
from tests.reference import model_file

FAST, MANY = 500, 10_000
SLACK = 64 << 10
"""Python's own objects while a small file is read."""


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.qspinn"
    write_container(path, HEADER, TENSORS)
    return path


@pytest.fixture
def traced():
    """How much memory a call took at most; its result, or the error where the file was refused."""

    def call(read, *arguments):
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        try:
            result = read(*arguments)
        except DamagedModelError as error:
            result = error
        return tracemalloc.get_traced_memory()[1] - before, result

    tracemalloc.start()
    yield call
    tracemalloc.stop()


def attack(path, contents, traced):
    """Every changed file is refused: the checksum covers all bytes."""
    sound = path.read_bytes()
    refused = 0
    for content in contents:
        path.write_bytes(content)
        taken, result = traced(read_container, path)
        assert taken <= 2 * len(content) + SLACK
        if content == sound:
            assert result == (HEADER, TENSORS)
            continue
        assert isinstance(result, DamagedModelError), content
        assert str(result).startswith(f"{path}: ")
        assert str(result).isprintable()
        assert "; " in str(result)
        with pytest.raises(DamagedModelError):
            checksum(path)
        refused += 1
    return refused


def attack_with_checksum(path, contents, traced):
    """Where the checksum was made to fit, all that is read is what the second reader reads."""
    refused = 0
    for content in contents:
        content = model_file.resealed(content)
        path.write_bytes(content)
        taken, result = traced(read_container, path)
        assert taken <= 2 * len(content) + SLACK
        if isinstance(result, DamagedModelError):
            refused += 1
            continue
        header, tensors = result
        second_header, second_tensors = model_file.read(content)
        assert header == second_header
        for name, tensor in tensors.items():
            assert (list(tensor.shape), tensor.codes.ravel().tolist()) == second_tensors[name]
        assert tensors.keys() == second_tensors.keys()
        write_container(path, header, tensors)
        assert read_container(path) == result
    return refused


def numbers_changed(content, seed, count):
    """The file with a number of its header replaced by another one, of the same length or not."""
    chance = np.random.default_rng(seed)
    places = [i for i in range(100, len(content)) if content[i : i + 1].isdigit()]
    numbers = ("0", "1", "3", "7", "-1", "33", "1e3", "3.0", "null", "9" * 19, "9" * 400, "[]")
    for _ in range(count):
        place = int(chance.choice(places))
        number = str(chance.choice(numbers)).encode()
        changed = content[:place] + number + content[place + 1 :]
        length = int.from_bytes(content[:8], "little")
        if chance.random() < 0.8:  # the header's length and its padding fit
            header = changed[8 : 8 + length + len(number) - 1].rstrip(b" ")
            header += b" " * (-len(header) % 8)
            changed = len(header).to_bytes(8, "little") + header + content[8 + length :]
        yield changed


@pytest.mark.slow
def test_changed_files_are_refused(model, traced):
    assert attack(model, mutations(model.read_bytes(), 0, FAST), traced) > 0.9 * FAST


@pytest.mark.slow
def test_changed_files_with_a_valid_checksum_are_refused_or_read_as_they_are(model, traced):
    content = model.read_bytes()
    assert attack_with_checksum(model, mutations(content, 1, FAST), traced) > FAST / 2
    assert attack_with_checksum(model, numbers_changed(content, 2, FAST), traced) > FAST / 2


@pytest.mark.slow
@pytest.mark.campaign
def test_many_changed_files(model, traced):
    content = model.read_bytes()
    assert attack(model, mutations(content, 3, MANY), traced) > 0.9 * MANY
    assert attack_with_checksum(model, mutations(content, 4, MANY), traced) > MANY / 2
    assert attack_with_checksum(model, numbers_changed(content, 5, MANY), traced) > MANY / 2


def flipped(content, bits):
    """The file with one bit changed, of each byte in turn."""
    for place in range(len(content)):
        for bit in bits:
            yield content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


@pytest.mark.slow
def test_a_flipped_bit_in_any_byte_is_refused(model, traced):
    content = model.read_bytes()
    assert attack(model, flipped(content, [0]), traced) == len(content)


@pytest.mark.campaign
@pytest.mark.slow
def test_any_flipped_bit_is_refused(model, traced):
    content = model.read_bytes()
    assert attack(model, flipped(content, range(8)), traced) == 8 * len(content)


def entry(begin, end, **changes):
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end], **changes}


def word(*shape, word_length=4, signed=True):
    return {"shape": list(shape), "word_length": word_length, "signed": signed}


TWO_WORDS = {"a": word(8), "b": word(8)}
LIES = {
    "overlap": ({"a": entry(0, 4), "b": entry(3, 7)}, TWO_WORDS, 8, r"\[4, 8\] is next"),
    "same": ({"a": entry(0, 4), "b": entry(0, 4)}, TWO_WORDS, 4, r"\[4, 8\] is next"),
    "gap": ({"a": entry(0, 4), "b": entry(5, 9)}, TWO_WORDS, 9, r"\[4, 8\] is next"),
    "order": ({"a": entry(4, 8), "b": entry(0, 4)}, TWO_WORDS, 8, r"\[0, 4\] is next"),
    "backwards": ({"a": entry(0, 4, data_offsets=[4, 0])}, {"a": word(8)}, 4, "is next"),
    "float offsets": ({"a": entry(0, 4, data_offsets=[0.0, 4])}, {"a": word(8)}, 4, "is next"),
    "true offset": ({"a": entry(0, 1, data_offsets=[0, True])}, {"a": word(1)}, 1, "is next"),
    "beyond": ({"a": entry(0, 4)}, {"a": word(8)}, 3, "take 4 bytes, and 3 follow"),
    "more": ({"a": entry(0, 4)}, {"a": word(8)}, 5, "something follows after the end"),
    "large": ({"a": entry(0, 2**40)}, {"a": word(2**41)}, 4, "the end is missing"),
    "larger": ({"a": entry(0, 4)}, {"a": word(2**62, 2**62)}, 4, "too large"),
    "empty and large": ({"a": entry(0, 0)}, {"a": word(0, 2**62, 4)}, 0, "too large"),
    "negative": ({"a": entry(0, 4)}, {"a": word(-8, -1)}, 4, "negative"),
    "dimensions": ({"a": entry(0, 4)}, {"a": word(8, *[1] * 32)}, 4, "33 dimensions"),
    "float shape": ({"a": entry(0, 4)}, {"a": word(8.0)}, 4, "no list of integers"),
    "text shape": ({"a": entry(0, 4)}, {"a": {**word(), "shape": "8"}}, 4, "no list of int"),
    "count": ({"a": entry(0, 4)}, {"a": word(9)}, 4, "takes 5 bytes, and its entry says .4."),
    "word 0": ({"a": entry(0, 0)}, {"a": word(8, word_length=0)}, 0, "word_length is 0"),
    "word 33": ({"a": entry(0, 33)}, {"a": word(8, word_length=33)}, 33, "word_length is 33"),
    "word true": ({"a": entry(0, 1)}, {"a": word(8, word_length=True)}, 1, "word_length is True"),
    "sign": ({"a": entry(0, 4)}, {"a": word(8, signed=1)}, 4, "signed is 1"),
    "dtype": ({"a": entry(0, 4, dtype="F32")}, {"a": word(8)}, 4, "is 'F32', and not U8"),
    "list dtype": ({"a": entry(0, 4, dtype=[])}, {"a": word(8)}, 4, "and not U8"),
    "missing": ({"a": entry(0, 4)}, {}, 4, "not every tensor has a word length"),
    "unknown": ({}, {"a": word(8)}, 0, "not every tensor has a word length"),
    "member": ({"a": entry(0, 4, more=1)}, {"a": word(8)}, 4, "members of 'a' are not dtype"),
    "no object": ({"a": [4]}, {"a": word(8)}, 4, "members of 'a' are not dtype"),
    "list": ({}, "[]", 0, "not every tensor has a word length"),
    "name": ({"": entry(0, 4)}, {"": word(8)}, 4, "cannot be the name of a tensor"),
    "no JSON": ({}, "{", 0, "Expecting property name"),
    "twice": ({}, '{"a":1,"a":2}', 0, "the name 'a' occurs twice in one object"),
    "entry twice": ('"a":1,"b":2,"b":3', {}, 0, "the name 'b' occurs twice"),
    "metadata twice": ('"__metadata__":{}', {}, 0, "the name '__metadata__' occurs twice"),
    "NaN": ('"a":NaN', {}, 0, "NaN is not JSON"),
    "Infinity": ("", '{"a":-Infinity}', 0, "-Infinity is not JSON"),
    "1e999": ("", '{"a":1e999}', 0, "the number 1e999 is too large"),
    "integer": ("", '{"a":9223372036854775808}', 0, "has more than 64 bits"),
    "long integer": (f'"a":{"9" * 100_000}', {}, 0, "has more than 64 bits"),
    "deep": ("", '{"a":' + "[" * 65 + "]" * 65 + "}", 0, "nested more than 64 deep"),
    "deeper": ("", "[" * 100_000, 0, "nested more than 64 deep"),
    "objects": ('"a":' + '{"":' * 50_000, {}, 0, "nested more than 64 deep|Expecting"),
    "surrogate": ("", r'{"a":"\ud800"}', 0, "half a surrogate pair"),
    "no ASCII": ('"a\u00e9":1', {}, 0, "ascii"),
    "BOM": ("", "\ufeff{}", 0, "Expecting value|BOM"),
    "many": (f'"a":[{"[]," * 130_000}[]]', {}, 0, "at most 250,000 are read"),
}


@pytest.mark.parametrize("name", LIES)
def test_headers_that_say_what_cannot_be_are_refused(tmp_path, traced, name):
    entries, words, size, message = LIES[name]
    path = tmp_path / "model.qspinn"
    content = model_file.written(entries, words, bytes(size))
    path.write_bytes(content)
    taken, result = traced(read_container, path)
    assert isinstance(result, DamagedModelError)
    assert taken <= 4 * len(content) + SLACK
    with pytest.raises(DamagedModelError, match=message) as caught:
        read_container(path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "[]"}, "the header of the model is no object"),
        ({"model": ""}, "Expecting value"),
        ({"model": '{"a":1,"a":1}'}, "occurs twice"),
        ({"more": ""}, "the members of '__metadata__' are not sha256, format"),
    ],
)
def test_metadata_that_say_something_else_are_refused(tmp_path, changes, message):
    path = tmp_path / "model.qspinn"
    path.write_bytes(model_file.written("", "{}", b"", **changes))
    with pytest.raises(DamagedModelError, match=message):
        read_container(path)


def test_metadata_that_are_no_texts_are_refused(tmp_path):
    path = tmp_path / "model.qspinn"
    content = model_file.written("", "{}", b"")
    path.write_bytes(model_file.resealed(content.replace(b'"tensors":"{}"', b'"tensors":null')))
    with pytest.raises(DamagedModelError, match="a value of __metadata__ is no text"):
        read_container(path)


def test_padding_bits_are_zero_even_if_the_checksum_fits(tmp_path):
    path = tmp_path / "model.qspinn"
    path.write_bytes(model_file.written({"a": entry(0, 2)}, {"a": word(3)}, b"\x12\xf3"))
    with pytest.raises(
        DamagedModelError, match=r"its tensor 'a' is damaged \(the last byte is 0xf3"
    ):
        read_container(path)


@pytest.mark.parametrize("spaces", [8, 800])
def test_a_header_with_more_padding_than_needed_is_refused(model, spaces):
    content = model.read_bytes()
    length = int.from_bytes(content[:8], "little")
    changed = (length + spaces).to_bytes(8, "little") + content[8 : 8 + length] + b" " * spaces
    model.write_bytes(model_file.resealed(changed + content[8 + length :]))
    with pytest.raises(DamagedModelError, match="as few spaces as align the data"):
        read_container(model)


@pytest.mark.parametrize("claimed", [0, 2, 2**31, 2**63, 2**64 - 1])
def test_lengths_of_the_header_that_cannot_be_take_no_memory(model, traced, claimed):
    content = model.read_bytes()
    model.write_bytes(claimed.to_bytes(8, "little") + content[8:])
    taken, result = traced(read_container, model)
    assert isinstance(result, DamagedModelError)
    assert taken < SLACK


def test_a_large_sparse_file_is_not_read(model, traced):
    os.truncate(model, 3 << 30)
    taken, result = traced(read_container, model)
    assert "something follows after the end" in str(result)
    assert taken < SLACK
    content = model_file.written("", "{}", b"")
    model.write_bytes((3 << 20).to_bytes(8, "little") + content[8:])
    os.truncate(model, 3 << 30)
    taken, result = traced(read_container, model)
    assert isinstance(result, DamagedModelError)
    assert taken < 8 << 20
    model.write_bytes((1 << 30).to_bytes(8, "little") + content[8:])
    os.truncate(model, 3 << 30)
    taken, result = traced(read_container, model)
    assert "at most 8,388,608 are read" in str(result)
    assert taken < SLACK


@pytest.mark.parametrize("word_length", [1, 7, 32])
def test_reading_takes_the_memory_of_the_file_once(tmp_path, traced, word_length):
    """Codes are unpacked where they are asked for: at 1 bit they take 64 times as much."""
    path = tmp_path / "model.qspinn"
    codes = np.zeros(16_000_000 // word_length, np.int8)
    write_container(path, {}, {"a": PackedTensor(codes, word_length, True)})
    taken, (_, tensors) = traced(read_container, path)
    assert tensors["a"].shape == codes.shape
    assert taken < 1.1 * path.stat().st_size + SLACK
    assert traced(checksum, path)[0] < 4 << 20


@pytest.mark.slow
def test_the_largest_headers_take_a_limited_memory(tmp_path, traced):
    path = tmp_path / "model.qspinn"
    for value in ([[]] * 110_000, [{"a": 0}] * 70_000, ["ab"] * 240_000):
        content = model_file.written("", "{}", b"", model=json.dumps({"a": value}))
        path.write_bytes(content)
        taken, (header, _) = traced(read_container, path)
        assert header == {"a": value}
        assert taken < 32 << 20


def test_a_file_that_shrinks_or_grows_while_it_is_read_is_refused(model, monkeypatch):
    content = model.read_bytes()
    real = os.fstat

    class State:
        def __init__(self, state, size):
            self.st_mode, self.st_size = state.st_mode, size

    for size, changed, message in (
        (len(content), content[:-1], "it became shorter while it was read"),
        (len(content), content + b"\0", "it became longer while it was read"),
    ):
        model.write_bytes(changed)
        monkeypatch.setattr("os.fstat", lambda place, size=size: State(real(place), size))
        with pytest.raises(DamagedModelError, match=message):
            read_container(model)
        monkeypatch.undo()
