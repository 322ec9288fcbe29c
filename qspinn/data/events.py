"""Recordings of an event camera: put in order, and made into frames of counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from qspinn.data.checks import check

INTEGRATIONS = ("count", "time")
POLARITIES = 2
CHUNK = 1 << 22
"""Events handled at once; what is computed of them on the way takes about 100 MB."""
MAX_DISORDER = 1_000_000
"""By default an event may be so many microseconds late (1 s). Cameras and the queues of a host mix
up a second at the very most; a clock that was set back, or a flipped bit, is farther off."""


@dataclass(frozen=True, eq=False)
class Events:
    """The events of one recording, in the order in which they happened.

    An event says that a pixel became brighter (ON) or darker (OFF). The arrays may be memory-mapped
    and are not copied; do not write to them.

    Args:
        t: ``int64`` ``[E]``, microseconds, ascending (equal times are fine).
        x: ``uint16`` ``[E]``, column of the pixel, 0 to ``width - 1``.
        y: ``uint16`` ``[E]``, row of the pixel, 0 to ``height - 1``.
        p: ``uint8`` ``[E]``, polarity, 0 OFF, 1 ON.
        height: Rows of the sensor.
        width: Columns of the sensor.

    Raises:
        TypeError: An array of another type.
        ValueError: Arrays of unequal lengths, a pixel outside the sensor, another polarity, or a
            time before the one of the preceding event; the message names the first such event.
    """

    t: npt.NDArray[np.int64]
    x: npt.NDArray[np.uint16]
    y: npt.NDArray[np.uint16]
    p: npt.NDArray[np.uint8]
    height: int
    width: int

    TYPES: ClassVar[dict[str, type[np.generic]]] = {
        "t": np.int64,
        "x": np.uint16,
        "y": np.uint16,
        "p": np.uint8,
    }

    def __post_init__(self) -> None:
        for name, size in (("height", self.height), ("width", self.width)):
            check(1 <= size <= 1 << 16, name, size, "a number of pixels, 1 to 65536")
        for name, dtype in self.TYPES.items():
            _check_array(name, getattr(self, name), dtype)
        lengths = {name: len(getattr(self, name)) for name in self.TYPES}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"arrays of unequal lengths: {lengths}; write one value per event")
        _check_below("x", self.x, self.width, "the width of the sensor")
        _check_below("y", self.y, self.height, "the height of the sensor")
        _check_below("p", self.p, POLARITIES, "polarities are 0 (OFF) and 1 (ON)")
        _check_ascending(self.t)

    def __len__(self) -> int:
        return len(self.t)

    def between(self, start: int, stop: int) -> Events:
        """The events with ``start <= t < stop`` (microseconds), as views of the same arrays."""
        first, last = np.searchsorted(self.t, [start, stop])
        part = slice(int(first), max(int(first), int(last)))
        return replace(self, t=self.t[part], x=self.x[part], y=self.y[part], p=self.p[part])


def integrate(
    events: Events,
    frames: int,
    by: str = "count",
    start: int | None = None,
    duration: int | None = None,
) -> npt.NDArray[np.int32]:
    """Counts the events of each pixel and polarity in ``frames`` slices of a recording.

    * ``by="count"``: slices of ``E // frames`` successive events each; the last slice takes the
      remainder as well. This is what SpikingJelly's ``split_by="number"`` does. With fewer events
      than frames, all of them are in the last frame.
    * ``by="time"``: slice k holds ``start + k * duration / frames <= t < start + (k + 1) * duration
      / frames``, exactly, also where that is no whole number of microseconds. Events outside are
      left out; slices without an event are frames of zeros. (SpikingJelly's ``split_by="time"``
      rounds the length of a slice down and puts what is left into the last.)

    Needs little memory beside the result: the events are visited piece by piece.

    Args:
        events: The recording.
        frames: Slices T, 1 or more.
        by: ``count`` or ``time``.
        start: Where the first slice begins, in microseconds; None: at the first event. Only for
            ``by="time"``.
        duration: Length of all slices together, in microseconds, 1 or more; None: until the last
            event, included. Only for ``by="time"``.

    Returns:
        ``int32`` ``[T, 2, H, W]``; channel 0 counts OFF events, channel 1 ON events.

    Raises:
        ValueError: A setting out of its range, or ``start`` or ``duration`` with ``by="count"``.
    """
    check(frames >= 1, "frames", frames, "a number of frames, 1 or more")
    if by == "count":
        if start is not None or duration is not None:
            raise ValueError(
                f"start={start}, duration={duration}: frames of equal counts have no given "
                'duration; write by="time", or leave both out'
            )
        bounds = [k * (len(events) // frames) for k in range(frames)] + [len(events)]
    else:
        check(by == "time", "by", by, f"one of {', '.join(INTEGRATIONS)}")
        bounds = _time_bounds(events.t, frames, start, duration)
    cells = POLARITIES * events.height * events.width
    result = np.empty((frames, cells), np.int32)
    for frame, first, last in zip(result, bounds[:-1], bounds[1:], strict=True):
        _count(events, first, last, frame)
    return result.reshape(frames, POLARITIES, events.height, events.width)


def downsample(events: Events, factor: int) -> Events:
    """Joins ``factor x factor`` pixels into one, which has the events of all of them.

    Times and polarities stay: no event is lost, so that frames of counts are those of the full
    resolution summed over the joined pixels.

    Args:
        events: The recording.
        factor: Pixels per side, 1 or more; a sensor that it does not divide keeps a narrower last
            row or column.

    Returns:
        Events of a sensor of ``ceil(height / factor) x ceil(width / factor)`` pixels.

    Raises:
        ValueError: A factor below 1.
    """
    check(factor >= 1, "factor", factor, "1 (no change) or more")
    if factor == 1:
        return events
    step = np.uint16(min(factor, 65535))
    height, width = -(-events.height // factor), -(-events.width // factor)
    return replace(events, x=events.x // step, y=events.y // step, height=height, width=width)


class DisorderError(ValueError):
    """An event is later than allowed: its ``index``, its ``time`` and the ``latest`` time before.

    The reader that catches it says where in the file the event is.
    """

    def __init__(self, index: int, time: int, latest: int, max_disorder: int) -> None:
        super().__init__(
            f"expected a time of at least {latest} us, that of an event before it, less "
            f"{max_disorder} us (max_disorder), found {time} us. The clock was set back, or the "
            f"file is damaged; max_disorder={latest - time} or more sorts the events nevertheless"
        )
        self.index = index


def ordered_events(
    t: npt.NDArray[np.int64],
    x: npt.NDArray[np.uint16],
    y: npt.NDArray[np.uint16],
    p: npt.NDArray[np.uint8],
    size: tuple[int, int],
    max_disorder: int = MAX_DISORDER,
) -> Events:
    """Events in the order of their times; those of equal times keep their order.

    Args:
        t: Times ``[E]``, nearly ascending; nothing is copied where they ascend.
        x: Columns ``[E]``.
        y: Rows ``[E]``.
        p: Polarities ``[E]``.
        size: ``(height, width)`` of the sensor.
        max_disorder: How many microseconds an event may lie before the latest event that precedes
            it; 0: events must ascend.

    Raises:
        DisorderError: An event lies farther back.
        ValueError: ``max_disorder`` is negative.
    """
    check(max_disorder >= 0, "max_disorder", max_disorder, "0 us (events ascend) or more")
    if _check_lateness(t, max_disorder):
        order = np.argsort(t, kind="stable")
        t, x, y, p = t[order], x[order], y[order], p[order]
    return Events(t, x, y, p, *size)


def _check_lateness(t: npt.NDArray[np.int64], max_disorder: int) -> bool:
    """Whether any event is late, within what is allowed."""
    is_late = False
    latest = np.iinfo(np.int64).min
    for begin in range(0, len(t), CHUNK):
        part = t[begin : begin + CHUNK]
        if part[0] >= latest and not (part[1:] < part[:-1]).any():
            latest = int(part[-1])
            continue
        is_late = True
        preceding = np.maximum(np.maximum.accumulate(part), latest)
        too_late = preceding - part > max_disorder
        if too_late.any():
            index = int(too_late.argmax())
            raise DisorderError(
                begin + index, int(part[index]), int(preceding[index]), max_disorder
            )
        latest = int(preceding[-1])
    return is_late


def _time_bounds(
    t: npt.NDArray[np.int64], frames: int, start: int | None, duration: int | None
) -> list[int]:
    """Index of the first event of each slice, and of the one after the last slice."""
    fits = duration is None or duration >= 1
    check(fits, "duration", duration, "a number of microseconds, 1 or more")
    if len(t) == 0:
        return [0] * (frames + 1)
    start = int(t[0]) if start is None else start
    duration = max(int(t[-1]) + 1 - start, 1) if duration is None else duration
    # The first whole microsecond at or after k * duration / frames.
    edges = [start - (-k * duration) // frames for k in range(frames + 1)]
    return [int(bound) for bound in np.searchsorted(t, np.array(edges, np.int64))]


def _count(events: Events, first: int, last: int, frame: npt.NDArray[np.int32]) -> None:
    """Writes the counts of events ``first`` to ``last - 1`` into ``frame`` ``[2 * H * W]``."""
    frame[:] = 0
    for begin in range(first, last, CHUNK):
        part = slice(begin, min(begin + CHUNK, last))
        cell = events.p[part].astype(np.int64)
        cell *= events.height
        cell += events.y[part]
        cell *= events.width
        cell += events.x[part]
        frame += np.bincount(cell, minlength=len(frame)).astype(np.int32)


def _check_array(name: str, array: Any, dtype: type[np.generic]) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        given = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"{name}: {given}; write a NumPy array of {np.dtype(dtype)}")
    if array.ndim != 1:
        raise ValueError(f"{name}: shape {list(array.shape)}; write a list of events, [E]")


def _check_below(name: str, array: npt.NDArray[Any], limit: int, what: str) -> None:
    for begin in range(0, len(array), CHUNK):
        part = array[begin : begin + CHUNK]
        if int(part.max()) >= limit:
            index = int((part >= limit).argmax())
            raise ValueError(
                f"{name}={part[index]} of event {begin + index}; write 0 to {limit - 1} ({what})"
            )


def _check_ascending(t: npt.NDArray[np.int64]) -> None:
    for begin in range(0, len(t) - 1, CHUNK):
        part = t[begin : begin + CHUNK + 1]
        falls = part[1:] < part[:-1]
        if falls.any():
            index = int(falls.argmax())
            raise ValueError(
                f"t={part[index + 1]} of event {begin + index + 1} is before t={part[index]} of "
                "the event that precedes it; sort the events by time first"
            )
