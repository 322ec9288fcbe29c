"""Recordings, frames and joined pixels against loops over the events in exact arithmetic."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.datasets import utils as spikingjelly

from qspinn.data import Events, downsample, integrate
from qspinn.data import events as module

HEIGHT, WIDTH = 5, 7


def make(rows: list[tuple[int, int, int, int]], height: int = HEIGHT, width: int = WIDTH) -> Events:
    t, x, y, p = ([row[k] for row in rows] for k in range(4))
    return Events(
        np.array(t, np.int64),
        np.array(x, np.uint16),
        np.array(y, np.uint16),
        np.array(p, np.uint8),
        height,
        width,
    )


def rows_of(events: Events) -> list[tuple[int, int, int, int]]:
    columns = (events.t, events.x, events.y, events.p)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@st.composite
def recordings(draw: st.DrawFn) -> Events:
    row = st.tuples(
        st.integers(-50, 1000),
        st.integers(0, WIDTH - 1),
        st.integers(0, HEIGHT - 1),
        st.integers(0, 1),
    )
    return make(sorted(draw(st.lists(row, max_size=60)), key=lambda event: event[0]))


def random_events(count: int, height: int, width: int) -> Events:
    rng = np.random.default_rng(count)
    return Events(
        np.sort(rng.integers(0, 10**6, count)),
        rng.integers(0, width, count).astype(np.uint16),
        rng.integers(0, height, count).astype(np.uint16),
        rng.integers(0, 2, count).astype(np.uint8),
        height,
        width,
    )


def by_count(events: Events, frames: int) -> np.ndarray:
    """Event i is in slice i // (E // T), or in the last one."""
    result = np.zeros((frames, 2, events.height, events.width), int)
    length = len(events) // frames
    for index, (_, x, y, p) in enumerate(rows_of(events)):
        frame = min(index // length, frames - 1) if length else frames - 1
        result[frame, p, y, x] += 1
    return result


def by_time(events: Events, frames: int, start: int, duration: int) -> np.ndarray:
    result = np.zeros((frames, 2, events.height, events.width), int)
    for t, x, y, p in rows_of(events):
        frame = Fraction(t - start) * frames / duration
        if 0 <= frame < frames:
            result[int(frame), p, y, x] += 1
    return result


@given(recordings(), st.integers(1, 9))
def test_frames_of_equal_counts(events: Events, frames: int) -> None:
    np.testing.assert_array_equal(integrate(events, frames), by_count(events, frames))


@given(recordings(), st.integers(1, 9), st.integers(-80, 1100), st.integers(1, 1200))
def test_frames_of_equal_duration_are_exact(
    events: Events, frames: int, start: int, duration: int
) -> None:
    result = integrate(events, frames, "time", start, duration)

    np.testing.assert_array_equal(result, by_time(events, frames, start, duration))


@given(recordings(), st.integers(1, 9))
def test_without_a_given_duration_every_event_counts(events: Events, frames: int) -> None:
    result = integrate(events, frames, by="time")

    assert result.sum() == len(events)
    if len(events):
        start, end = int(events.t[0]), int(events.t[-1])
        np.testing.assert_array_equal(result, by_time(events, frames, start, end + 1 - start))


@pytest.mark.parametrize("frames", [1, 4, 16])
def test_frames_of_equal_counts_are_those_of_spikingjelly(frames: int) -> None:
    events = random_events(5003, 12, 9)
    arrays = {"t": events.t, "x": events.x.astype(int), "y": events.y.astype(int), "p": events.p}

    theirs = spikingjelly.integrate_events_by_fixed_frames_number(arrays, "number", frames, 12, 9)

    np.testing.assert_array_equal(integrate(events, frames), theirs)


def test_large_recordings_are_counted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    events = random_events(1000, 6, 6)
    whole = [integrate(events, 3, by) for by in ("count", "time")]

    monkeypatch.setattr(module, "CHUNK", 7)

    for frames, by in zip(whole, ("count", "time"), strict=True):
        np.testing.assert_array_equal(integrate(events, 3, by), frames)
    with pytest.raises(ValueError, match="t=3 of event 15 is before t=4"):
        make([(4, 0, 0, 0)] * 15 + [(3, 0, 0, 0)])
    with pytest.raises(ValueError, match="x=9 of event 14"):
        make([(4, 0, 0, 0)] * 14 + [(4, 9, 0, 0)])


@given(recordings(), st.integers(1, 9))
def test_joined_pixels_have_all_events(events: Events, factor: int) -> None:
    joined = downsample(events, factor)

    assert (joined.height, joined.width) == (-(-HEIGHT // factor), -(-WIDTH // factor))
    assert rows_of(joined) == [(t, x // factor, y // factor, p) for t, x, y, p in rows_of(events)]


def test_a_factor_larger_than_any_sensor_leaves_one_pixel() -> None:
    joined = downsample(random_events(20, 9, 300), 10**6)

    assert (joined.height, joined.width, joined.x.max(), joined.y.max()) == (1, 1, 0, 0)


@given(recordings(), st.integers(-80, 1100), st.integers(-80, 1100))
def test_between_two_times(events: Events, start: int, stop: int) -> None:
    part = events.between(start, stop)

    assert rows_of(part) == [row for row in rows_of(events) if start <= row[0] < stop]


def test_memory_mapped_arrays_serve_as_well(tmp_path: Path) -> None:
    events = random_events(500, HEIGHT, WIDTH)
    mapped = {}
    for name in Events.TYPES:
        np.save(tmp_path / f"{name}.npy", getattr(events, name))
        mapped[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")

    same = Events(**mapped, height=HEIGHT, width=WIDTH)

    assert isinstance(same.t, np.memmap)
    np.testing.assert_array_equal(integrate(same, 4), integrate(events, 4))


EMPTY: dict[str, Any] = {
    name: np.zeros(0, dtype) for name, dtype in Events.TYPES.items()
} | {"height": 3, "width": 4}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"t": np.zeros(0, np.int32)}, TypeError, "t: int32; write a NumPy array of int64"),
        ({"x": [1, 2]}, TypeError, "x: list; write a NumPy array of uint16"),
        ({"p": np.zeros((2, 2), np.uint8)}, ValueError, r"p: shape \[2, 2\]; write a list"),
        ({"y": np.zeros(2, np.uint16)}, ValueError, "unequal lengths: .*'y': 2"),
        ({"height": 0}, ValueError, "height=0; write a number of pixels"),
        ({"width": 65537}, ValueError, "width=65537"),
    ],
)
def test_wrong_arrays(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Events(**{**EMPTY, **change})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(0, 6, 0, 0), (1, 7, 0, 0)], r"x=7 of event 1; write 0 to 6 \(the width"),
        ([(0, 0, 5, 0)], r"y=5 of event 0; write 0 to 4 \(the height"),
        ([(0, 0, 0, 0), (0, 0, 0, 2)], "p=2 of event 1; write 0 to 1"),
        ([(5, 0, 0, 0), (9, 0, 0, 0), (8, 0, 0, 0)], "t=8 of event 2 is before t=9"),
    ],
)
def test_wrong_events(rows: list[tuple[int, int, int, int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(rows)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"frames": 0}, "frames=0"),
        ({"frames": 3, "by": "number"}, "by='number'; write one of count, time"),
        ({"frames": 3, "duration": 10}, 'duration=10.*write by="time"'),
        ({"frames": 3, "by": "time", "duration": 0}, "duration=0"),
    ],
)
def test_wrong_settings(settings_: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        integrate(make([]), **settings_)
    with pytest.raises(ValueError, match="factor=0"):
        downsample(make([]), 0)


@settings(max_examples=5, deadline=None)
@given(st.sampled_from(["count", "time"]))
def test_an_empty_recording_makes_empty_frames(by: str) -> None:
    frames = integrate(make([]), 3, by)

    assert frames.shape == (3, 2, HEIGHT, WIDTH)
    assert not frames.any()
