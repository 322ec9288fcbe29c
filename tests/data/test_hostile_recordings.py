"""Image and event files that hold anything: refused by name, or read as their bytes say."""

import gzip
import os
import struct
import tracemalloc

import numpy as np
import pytest

from qspinn.data import AEDATError, ATISError, IDXError, read_aedat, read_atis, read_idx
from tests.mutations import mutations
from tests.reference.aedat import aedat_file

FAST, MANY = 400, 6000


def idx_content():
    pixels = bytes(range(120)) * 2
    return struct.pack(">HBB3I", 0, 8, 3, 10, 4, 6) + pixels


def idx_by_hand(content):
    """Sizes and elements, one at a time."""
    kinds = {8: "B", 9: "b", 11: "h", 12: "i", 13: "f", 14: "d"}
    _, kind, dimensions = struct.unpack_from(">HBB", content)
    sizes = struct.unpack_from(f">{dimensions}I", content, 4)
    width = struct.calcsize(kinds[kind])
    count = (len(content) - 4 - 4 * dimensions) // width
    values = [
        struct.unpack_from(">" + kinds[kind], content, 4 + 4 * dimensions + width * index)[0]
        for index in range(count)
    ]
    return sizes, values


def attack_idx(path, seed, count, pack):
    refused = 0
    for content in mutations(pack(idx_content()), seed, count):
        path.write_bytes(content)
        try:
            array = read_idx(path)
        except IDXError as error:
            assert str(path) in str(error)
            refused += 1
            continue
        plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        sizes, values = idx_by_hand(plain)
        assert array.shape == sizes
        assert np.array_equal(array.reshape(-1), np.array(values, array.dtype), equal_nan=True) or (
            not values and array.size == 0
        )
    assert refused > count / 4


@pytest.mark.few(0.5)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_changed_idx_files(tmp_path, pack):
    attack_idx(tmp_path / "file", 0, FAST, pack)


def events_by_hand(content):
    """Events of 5 bytes, one at a time: (t, x, y, p)."""
    events, overflow = [], 0
    for start in range(0, len(content), 5):
        x, y, high, middle, low = content[start : start + 5]
        if y == 240:
            overflow += 1 << 13
            continue
        time = ((high & 127) << 16) + (middle << 8) + low + overflow
        events.append((time, x, y, high >> 7))
    return sorted(events, key=lambda event: event[0])


def as_rows(events):
    arrays = (events.t, events.x, events.y, events.p)
    return [tuple(row) for row in zip(*(array.tolist() for array in arrays), strict=True)]


def atis_content():
    chance = np.random.default_rng(0)
    times = np.sort(chance.integers(0, 1 << 20, 60)).tolist()
    return b"".join(
        bytes((int(x), int(y), (time >> 16) | 128 * int(p), (time >> 8) & 255, time & 255))
        for time, (x, y, p) in zip(times, chance.integers(0, (34, 34, 2), (60, 3)), strict=True)
    )


def attack_atis(path, seed, count):
    refused = 0
    for content in mutations(atis_content(), seed, count):
        path.write_bytes(content)
        try:
            rows = as_rows(read_atis(path))
        except ATISError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            assert rows == events_by_hand(content)
    assert refused > count / 3


def test_changed_recordings_of_n_mnist(tmp_path):
    attack_atis(tmp_path / "00001.bin", 0, FAST)


def aedat_events():
    chance = np.random.default_rng(0)
    times = np.sort(chance.integers(0, 1000, 80)).tolist()
    rest = chance.integers(0, (128, 128, 2), (80, 3)).tolist()
    return [(time, x, y, p) for time, (x, y, p) in zip(times, rest, strict=True)]


def aedat_by_hand(content):
    """Packets and their events, one at a time; only what is marked as valid."""
    at = content.index(b"#!END-HEADER\r\n") + len(b"#!END-HEADER\r\n")
    events = []
    while at < len(content):
        kind, _ = struct.unpack_from("<hh", content, at)
        size, _, overflow, capacity, number, _ = struct.unpack_from("<6i", content, at + 4)
        for index in range(number if kind == 1 else 0):
            word, stamp = struct.unpack_from("<II", content, at + 28 + size * index)
            if word & 1:
                time = stamp + (overflow << 31)
                events.append((time, word >> 17, (word >> 2) & 0x7FFF, (word >> 1) & 1))
        at += 28 + size * capacity
    return sorted(events, key=lambda event: event[0])


def attack_aedat(path, seed, count):
    refused = 0
    for content in mutations(aedat_file(aedat_events()), seed, count):
        path.write_bytes(content)
        try:
            rows = as_rows(read_aedat(path))
        except AEDATError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            assert rows == aedat_by_hand(content)
    assert refused > count / 3


def test_changed_aedat_files(tmp_path):
    attack_aedat(tmp_path / "user01_led.aedat", 0, FAST)


@pytest.mark.slow
def test_many_changed_recordings(tmp_path):
    attack_idx(tmp_path / "file", 1, MANY, bytes)
    attack_idx(tmp_path / "file.gz", 2, MANY, gzip.compress)
    attack_atis(tmp_path / "00001.bin", 3, MANY)
    attack_aedat(tmp_path / "user01_led.aedat", 4, MANY)


def test_a_gzip_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("qspinn.data.idx.MOST_BYTES", 1 << 20)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(struct.pack(">HBB1I", 0, 8, 1, 1 << 21) + bytes(1 << 21)))
    with pytest.raises(IDXError, match=r"asks for 2,097,160 bytes, at most 1,048,576"):
        read_idx(path)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_an_image_file_is_not_read_beyond_its_header(tmp_path, pack):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(pack(struct.pack(">HBB1I", 0, 8, 1, 1) + bytes(64 << 20)))
    tracemalloc.start()
    try:
        with pytest.raises(IDXError, match=r"ubyte: at least \d+ bytes, but .* asks for 9"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_memory_is_not_taken_for_what_only_the_header_says(tmp_path, pack):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(pack(struct.pack(">HBB1I", 0, 8, 1, 2_000_000_000) + bytes(1000)))
    tracemalloc.start()
    try:
        with pytest.raises(IDXError, match=r"ubyte: 1008 bytes, but .* asks for 2000000008"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("sizes", [(0, 2**32 - 1, 2**32 - 1), (2**32 - 1,) * 3, (1,) * 33])
def test_shapes_that_no_array_has_are_refused(tmp_path, sizes):
    path = tmp_path / "labels"
    path.write_bytes(struct.pack(f">HBB{len(sizes)}I", 0, 8, len(sizes), *sizes))
    with pytest.raises(IDXError, match="labels: "):
        read_idx(path)


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_image_file_is_refused_at_once(tmp_path, kind):
    (os.mkfifo if kind == "pipe" else os.mkdir)(tmp_path / "labels")
    with pytest.raises(IDXError, match="labels: it is no regular file"):
        read_idx(tmp_path / "labels")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "00001.bin")
    with pytest.raises(ATISError, match=r"00001\.bin: it is no regular file"):
        read_atis(tmp_path / "00001.bin")
