"""AEDAT 3.1 files of an independent writer, and of SpikingJelly's reader; damaged files."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.datasets import utils as spikingjelly

from qspinn.data import (
    AEDATError,
    Events,
    aedat,
    aedat_packets,
    parse_aedat,
    read_aedat,
    read_atis,
    write_aedat,
)
from qspinn.data import events as order_module
from tests.reference.aedat import (
    HEADER,
    Event,
    aedat_file,
    imu_packet,
    packet_header,
    polarity_event,
    polarity_packet,
    special_packet,
)

EVENTS: list[Event] = [
    (3 * k + 2**31 - 60, (k * 37) % 128, (k * 11) % 128, k % 3 % 2) for k in range(50)
]
"""They cross an overflow of the timestamp."""

events_lists = st.lists(
    st.tuples(
        st.integers(0, 3 * 2**31), st.integers(0, 127), st.integers(0, 127), st.integers(0, 1)
    ),
    max_size=40,
).map(lambda events: sorted(events, key=lambda event: event[0]))


def rows_of(events: Events) -> list[Event]:
    columns = (events.t, events.x, events.y, events.p)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def as_events(rows: list[Event]) -> Events:
    columns = [[row[k] for row in rows] for k in range(4)]
    types = Events.TYPES.values()
    arrays = [np.array(values, dtype) for values, dtype in zip(columns, types, strict=True)]
    return Events(*arrays, 128, 128)


@given(events_lists, st.integers(1, 9))
def test_reads_what_an_independent_writer_wrote(events: list[Event], packet: int) -> None:
    assert rows_of(parse_aedat(aedat_file(events, packet))) == events


def test_the_same_events_as_spikingjelly(tmp_path: Path) -> None:
    path = tmp_path / "some.aedat"
    path.write_bytes(aedat_file(EVENTS))

    mine, theirs = read_aedat(path), spikingjelly.load_aedat_v3(path)

    for name in Events.TYPES:
        np.testing.assert_array_equal(getattr(mine, name), theirs[name])
    assert (mine.height, mine.width) == (128, 128)


@given(events_lists)
@settings(deadline=None)
def test_writes_what_others_read(
    tmp_path_factory: pytest.TempPathFactory, events: list[Event]
) -> None:
    path = tmp_path_factory.mktemp("written") / "some.aedat"
    write_aedat(path, as_events(events))

    theirs = spikingjelly.load_aedat_v3(path)

    columns = [theirs[name].tolist() for name in Events.TYPES]
    assert list(zip(*columns, strict=True)) == events
    assert rows_of(read_aedat(path)) == events
    assert [file.name for file in path.parent.iterdir()] == ["some.aedat"]


def test_written_files_are_those_of_the_independent_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aedat, "WRITTEN_PACKET", 4)
    events = [(k, k, 2 * k, k % 2) for k in range(10)]

    content = write_aedat(tmp_path / "some.aedat", as_events(events)).read_bytes()

    body = content.partition(b"#!END-HEADER\r\n")[2]
    assert body == b"".join(polarity_packet(events[k : k + 4]) for k in (0, 4, 8))
    assert content.startswith(b"#!AER-DAT3.1\r\n")


def test_a_real_clip_is_the_same_in_this_format(shared_data: Path, tmp_path: Path) -> None:
    clip = read_atis(shared_data / "dvs128_gesture_clips" / "01.bin", 128, 128)
    path = write_aedat(tmp_path / "clip.aedat", clip)

    mine, theirs = read_aedat(path), spikingjelly.load_aedat_v3(path)

    assert len(clip) > 60_000
    for name in Events.TYPES:
        np.testing.assert_array_equal(getattr(mine, name), getattr(clip, name))
        np.testing.assert_array_equal(getattr(clip, name), theirs[name])


@pytest.mark.parametrize("t", [-1, 2**62])
def test_times_for_which_the_format_has_no_room(tmp_path: Path, t: int) -> None:
    with pytest.raises(ValueError, match="write times from 0"):
        write_aedat(tmp_path / "some.aedat", as_events([(t, 0, 0, 0)]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("chunk", [1, 3, 10, 10**6])
def test_long_files_and_packets_are_read_in_pieces(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = [k % 4 != 1 for k in range(40)]
    late = [(99, 1, 1, 1), (95, 2, 2, 0)]
    events = [(k, k, k, k % 2) for k in range(40)]
    content = HEADER + polarity_packet(events, marks, spare=3) + polarity_packet(late)
    for module in (aedat, aedat_packets, order_module):
        monkeypatch.setattr(module, "CHUNK", chunk)

    expected = [event for event, mark in zip(events, marks, strict=True) if mark]
    assert rows_of(parse_aedat(content)) == [*expected, late[1], late[0]]
    assert rows_of(parse_aedat(content, valid_only=False)) == [*events, late[1], late[0]]
    with pytest.raises(AEDATError, match=r"event 31 of the file: expected a time of at least 99"):
        parse_aedat(content, max_disorder=3)


def test_a_file_without_polarity_events() -> None:
    content = HEADER + special_packet([5]) + imu_packet(3) + polarity_packet([])

    assert len(parse_aedat(content)) == 0


def test_another_sensor_and_another_end_of_the_header() -> None:
    content = b"#!AER-DAT3.1\n#End Of ASCII Header\n" + polarity_packet([(0, 345, 259, 1)])

    assert rows_of(parse_aedat(content, height=260, width=346)) == [(0, 345, 259, 1)]
    with pytest.raises(AEDATError, match=r"expected x of 0 to 127, found 345: another sensor"):
        parse_aedat(content)


def test_pixels_of_events_that_are_not_valid_do_not_matter() -> None:
    content = HEADER + polarity_packet([(0, 1, 2, 1), (1, 999, 999, 0)], [True, False])

    assert rows_of(parse_aedat(content)) == [(0, 1, 2, 1)]


def test_late_events_are_put_in_order_and_equal_times_keep_theirs() -> None:
    events = [(10, 0, 0, 0), (12, 1, 0, 0), (11, 2, 0, 0), (12, 3, 0, 0), (10, 4, 0, 0)]
    content = HEADER + polarity_packet(events[:2]) + polarity_packet(events[2:])

    assert [row[1] for row in rows_of(parse_aedat(content, max_disorder=2))] == [0, 4, 2, 1, 3]
    with pytest.raises(AEDATError, match=r"event 4 of .* max_disorder=2 or more sorts"):
        parse_aedat(content, max_disorder=1)
    with pytest.raises(ValueError, match="max_disorder=-1"):
        parse_aedat(content, max_disorder=-1)


def test_a_clock_that_was_set_back_is_reported() -> None:
    content = HEADER + polarity_packet([(80_000_000, 1, 1, 1)]) + polarity_packet([(5, 1, 1, 1)])

    with pytest.raises(AEDATError, match=rf"some: offset {len(HEADER) + 36 + 28}: .* found 5 us"):
        parse_aedat(content, source="some")


PACKET = len(HEADER)
TWO = polarity_packet([(1, 1, 1, 1), (2, 2, 2, 0)])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "offset 0: expected #!AER-DAT3.1"),
        (b"#!AER-DAT2.0\r\n" + TWO, "offset 0: expected #!AER-DAT3.1, .*found b'#!AER-DAT2.0"),
        (b"#!AER-DAT3.1\r\n" + TWO, "offset 14: expected a line of the header"),
        (HEADER.replace(b"RAW", b"PNG") + TWO, "expected #Format: RAW .*found b'#Format: PNG"),
        (b"#!AER-DAT3.1\r\n#" + b"x" * 5000, "offset 14: expected a line of the header"),
        (HEADER + TWO[:20], rf"offset {PACKET}: expected a packet header of 28 bytes, found 20"),
        (HEADER + TWO[:-1], rf"offset {PACKET + 28}: expected 2 events of 8 bytes, found 15 bytes"),
        (HEADER + packet_header(1, 8, 0, 1, 2, 2), r"expected an eventNumber of 0 to 1 .*found 2"),
        (HEADER + packet_header(1, 8, 0, 2, 1, 2), r"expected an eventValid of 0 to 1 .*found 2"),
        (HEADER + packet_header(1, 8, -1, 0, 0, 0), "expected an eventTSOverflow of 0"),
        (HEADER + packet_header(1, 8, 0, -1, 0, 0), "expected an eventCapacity of 0 or more"),
        (HEADER + packet_header(1, 12, 0, 0, 0, 0), "expected an eventSize of 8 bytes, found 12"),
        (HEADER + packet_header(2, 0, 0, 0, 0, 0), "expected an eventSize of 1 or more bytes"),
        (HEADER + packet_header(77, 8, 0, 0, 0, 0), "expected an eventType of 0 to 13, found 77"),
        (HEADER + b"\x01\x00\xff\xff" + TWO[4:], "expected an eventSource of 0 or more, found -1"),
        (
            HEADER + packet_header(1, 8, 0, 1, 1, 1) + b"\x01\x00\x00\x00\x00\x00\x00\x80",
            rf"offset {PACKET + 28}: polarity event: expected time of 0 to 2147483647",
        ),
        (
            HEADER + TWO + packet_header(1, 8, 0, 1, 1, 1) + polarity_event((3, 1, 1, 1), False),
            rf"offset {PACKET + 44}: packet header: expected 1 valid .*found 0.*valid_only=false",
        ),
    ],
)
def test_damaged_files_say_where_and_what(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "some.aedat"
    path.write_bytes(content)

    with pytest.raises(AEDATError, match=message) as caught:
        read_aedat(path)

    assert str(caught.value).startswith(f"{path}: offset ")


CONTENT = aedat_file(EVENTS)


def packet_ends() -> list[int]:
    """Where a packet of CONTENT ends, and the file may end as well."""
    ends, offset = [len(HEADER)], len(HEADER)
    while offset < len(CONTENT):
        size = int.from_bytes(CONTENT[offset + 4 : offset + 8], "little")
        capacity = int.from_bytes(CONTENT[offset + 16 : offset + 20], "little")
        offset += 28 + size * capacity
        ends.append(offset)
    return ends


def test_a_file_that_is_cut_off_anywhere_but_between_packets_is_reported() -> None:
    ends = packet_ends()
    assert ends[-1] == len(CONTENT)
    for length in range(len(CONTENT)):
        if length in ends:
            rows = rows_of(parse_aedat(CONTENT[:length]))
            assert rows == EVENTS[: len(rows)]
        else:
            with pytest.raises(AEDATError, match="offset"):
                parse_aedat(CONTENT[:length])


def in_packet_headers() -> set[int]:
    ends = packet_ends()
    return {offset + k for offset in ends[:-1] for k in range(28)}


def test_each_flipped_bit_is_reported_or_changes_one_event_or_packet() -> None:
    """Of a packet's header, what stays unnoticed loses events or moves them by overflows."""
    headers = in_packet_headers()
    wrapped = {(t % 2**31, x, y, p) for t, x, y, p in EVENTS}
    reported = 0
    for place in range(8 * len(CONTENT)):
        byte, bit = divmod(place, 8)
        damaged = bytearray(CONTENT)
        damaged[byte] ^= 1 << bit
        try:
            rows = rows_of(parse_aedat(bytes(damaged)))
        except AEDATError as error:
            reported += 1
            assert "offset" in str(error)
            continue
        if byte < len(HEADER):
            assert rows == EVENTS
        elif byte in headers:
            assert {(t % 2**31, x, y, p) for t, x, y, p in rows} <= wrapped
        else:
            assert len(rows) == len(EVENTS)
            assert len(set(EVENTS) - set(rows)) <= 1
    assert reported > 1000


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(0, 255)), max_size=8),
    st.integers(0, len(CONTENT)),
    st.binary(max_size=40),
)
def test_arbitrary_damage_never_raises_another_error(
    changes: list[tuple[int, int]], length: int, tail: bytes
) -> None:
    damaged = bytearray(CONTENT)
    for offset, value in changes:
        damaged[offset] = value
    try:
        events = parse_aedat(bytes(damaged[:length]) + tail)
    except AEDATError as error:
        assert "AEDAT data: offset" in str(error)
    else:
        assert len(events) <= len(EVENTS) + 5
