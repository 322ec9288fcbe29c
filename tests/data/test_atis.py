"""Files of 5-byte events: against an independent writer, SpikingJelly, and real N-MNIST."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.datasets import utils as spikingjelly

from qspinn.data import ATISError, Events, parse_atis, read_atis
from tests.reference.aedat import Event, atis_file


def rows_of(events: Events) -> list[Event]:
    columns = (events.t, events.x, events.y, events.p)
    return list(zip(*(column.tolist() for column in columns), strict=True))


events_lists = st.lists(
    st.tuples(st.integers(0, 2**23 - 1), st.integers(0, 33), st.integers(0, 33), st.integers(0, 1)),
    max_size=30,
).map(lambda events: sorted(events, key=lambda event: event[0]))


@given(events_lists)
def test_reads_what_an_independent_writer_wrote(events: list[Event]) -> None:
    assert rows_of(parse_atis(atis_file(events))) == events


def test_overflows_add_to_the_times_that_follow() -> None:
    marker = (0, 7, 240, 1)
    written = [(8000, 1, 2, 0), marker, (5, 3, 4, 1), marker, marker, (6, 5, 6, 0)]

    assert rows_of(parse_atis(atis_file(written))) == [
        (8000, 1, 2, 0),
        (5 + 8192, 3, 4, 1),
        (6 + 3 * 8192, 5, 6, 0),
    ]


def test_late_events() -> None:
    content = atis_file([(10, 0, 0, 0), (7, 1, 0, 0)])

    assert rows_of(parse_atis(content)) == [(7, 1, 0, 0), (10, 0, 0, 0)]
    with pytest.raises(ATISError, match=r"some: offset 5: .*found 7 us.*max_disorder=3"):
        parse_atis(content, "some", max_disorder=2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes(7), r"some.bin: offset 5: expected an event of 5 bytes, found 2 bytes"),
        (atis_file([(0, 0, 0, 0), (1, 34, 0, 0)]), "offset 5: expected x of 0 to 33, found 34"),
        (atis_file([(0, 0, 99, 0)]), "offset 0: expected y of 0 to 33, found 99: another sensor"),
    ],
)
def test_damaged_files_say_where_and_what(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "some.bin"
    path.write_bytes(content)

    with pytest.raises(ATISError, match=message):
        read_atis(path)


def test_a_sensor_that_the_format_cannot_name() -> None:
    with pytest.raises(ValueError, match="a sensor of 241x34"):
        parse_atis(b"", height=241)


@given(st.binary(max_size=60))
@settings(deadline=None)
def test_arbitrary_bytes_never_raise_another_error(content: bytes) -> None:
    try:
        events = parse_atis(content, height=240, width=256)
    except ATISError as error:
        assert "ATIS data: offset" in str(error)
    else:
        assert len(events) <= len(content) // 5


def test_real_recordings_are_those_of_spikingjelly(shared_data: Path) -> None:
    files = sorted((shared_data / "N-MNIST-small" / "Test").rglob("*.bin"))
    assert len(files) == 100
    for path in files:
        mine, theirs = read_atis(path), spikingjelly.load_ATIS_bin(path)
        for name in Events.TYPES:
            np.testing.assert_array_equal(getattr(mine, name), theirs[name])
