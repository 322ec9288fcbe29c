"""Reader of the 5-byte event files of an ATIS sensor, the format of N-MNIST and N-Caltech101.

An event is 40 bits, big-endian: 8 bits x, 8 bits y, 1 bit polarity (1: ON), 23 bits of time in
microseconds. An event whose y is 240 is no event: it says that the clock overflowed, and adds 2^13
microseconds to all that follow.

Source of the layout: G. Orchard and others, "Converting static image datasets to spiking
neuromorphic datasets using saccades", Frontiers in Neuroscience 9:437, 2015, and the data set's own
``Read_Ndataset.m``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from qspinn.data.arrays import require_regular
from qspinn.data.events import MAX_DISORDER, DisorderError, Events, ordered_events

EVENT_BYTES = 5
OVERFLOW_ROW = 240
OVERFLOW_TIME = 1 << 13
MOST_BYTES = 64 << 20
"""Of a recording: 13 million events."""


class ATISError(ValueError):
    """Not a whole file of 5-byte events; names the file, the offset, what was expected, found."""


def read_atis(path: str | Path, *settings: Any, **named: Any) -> Events:
    """Reads a file of 5-byte events.

    Args:
        path: The file.
        *settings: As of :func:`parse_atis`, from the height on.
        **named: The same by name.

    Raises:
        FileNotFoundError: There is no such file.
        ATISError: See :func:`parse_atis`.
    """
    require_regular(Path(path), ATISError)
    size = Path(path).stat().st_size
    if size > MOST_BYTES:
        raise ATISError(f"{path}: {size:,} bytes, at most {MOST_BYTES:,} are read; get it again")
    content = Path(path).read_bytes()
    if not content:
        raise ATISError(f"{path}: offset 0: expected events, found an empty file; get it again")
    return parse_atis(content, str(path), *settings, **named)


def parse_atis(
    content: bytes,
    source: str = "ATIS data",
    height: int = 34,
    width: int = 34,
    max_disorder: int = MAX_DISORDER,
) -> Events:
    """Decodes a file of 5-byte events.

    Args:
        content: The whole file.
        source: What to call the data in an error.
        height: Rows of the sensor, at most 240 (34: N-MNIST).
        width: Columns of the sensor, at most 256.
        max_disorder: Events that arrive so many microseconds late, at most, are put in order.

    Raises:
        ATISError: A last event that is cut off, a pixel outside the sensor, or an event too late.
        ValueError: A sensor that the format has no room for.
    """
    if not (1 <= height <= OVERFLOW_ROW and 1 <= width <= 256):
        raise ValueError(
            f"a sensor of {height}x{width}: 5-byte events hold at most {OVERFLOW_ROW} rows and 256 "
            "columns"
        )
    cut = len(content) % EVENT_BYTES
    if cut:
        raise ATISError(
            f"{source}: offset {len(content) - cut}: expected an event of {EVENT_BYTES} bytes, "
            f"found {cut} bytes: the file is cut off"
        )
    data = np.frombuffer(content, np.uint8).reshape(-1, EVENT_BYTES)
    x, y = data[:, 0], data[:, 1]
    overflows = y == OVERFLOW_ROW
    for name, values, limit in (("x", x, width), ("y", y, height)):
        wrong = (values >= limit) & ~overflows
        if wrong.any():
            index = int(wrong.argmax())
            raise ATISError(
                f"{source}: offset {EVENT_BYTES * index}: expected {name} of 0 to {limit - 1}, "
                f"found {values[index]}: another sensor (height, width), or a damaged file"
            )
    t = (data[:, 2].astype(np.int64) & 0x7F) << 16
    t |= data[:, 3].astype(np.int64) << 8
    t |= data[:, 4]
    t += OVERFLOW_TIME * np.cumsum(overflows)
    p = np.right_shift(data[:, 2], 7, dtype=np.uint8)
    kept = np.flatnonzero(~overflows)
    try:
        return ordered_events(
            t[kept],
            x[kept].astype(np.uint16),
            y[kept].astype(np.uint16),
            p[kept],
            (height, width),
            max_disorder,
        )
    except DisorderError as error:
        offset = EVENT_BYTES * int(kept[error.index])
        raise ATISError(f"{source}: offset {offset}: {error}") from None
