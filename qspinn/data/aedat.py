"""Reader and writer of AEDAT 3.1, the file format of cAER and of DVS128 Gesture.

The structure of a file is that of :mod:`qspinn.data.aedat_packets`. A polarity event is two 32-bit
words: bit 0 valid, bit 1 polarity (1: ON), bits 2 to 16 y, bits 17 to 31 x; and 31 bits of time in
microseconds, to which the packet's overflows add 2^31 each. Source of the layout: libcaer's header
``libcaer/events/polarity.h``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qspinn.atomic import atomic_file
from qspinn.data.aedat_packets import (
    EVENT_BYTES,
    PACKET_HEADER,
    POLARITY,
    AEDATError,
    PolarityPackets,
    end_of_header,
    polarity_packets,
)
from qspinn.data.arrays import require_regular
from qspinn.data.events import CHUNK, MAX_DISORDER, DisorderError, Events, ordered_events

TIME_BITS = 31
LARGEST_PIXEL = (1 << 15) - 1
WRITTEN_HEADER = (
    b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n"
    b"#Start-Time: 1970-01-01 00:00:00 (TZ+0000)\r\n#!END-HEADER\r\n"
)
WRITTEN_PACKET = 4096
Words = npt.NDArray[np.uint32]


def read_aedat(path: str | Path, **settings: Any) -> Events:
    """Reads the polarity events of an AEDAT 3.1 file, which is memory-mapped.

    Beside the result (13 bytes per event) it needs about 100 MB of memory at most, however long the
    file is, unless events have to be sorted.

    Args:
        path: The file.
        **settings: As of :func:`parse_aedat`.

    Raises:
        FileNotFoundError: There is no such file.
        AEDATError: See :func:`parse_aedat`.
    """
    path = Path(path)
    require_regular(path, AEDATError)
    if path.stat().st_size == 0:
        return parse_aedat(b"", source=str(path), **settings)  # an empty file cannot be mapped
    return parse_aedat(np.memmap(path, np.uint8, "r").data, source=str(path), **settings)


def parse_aedat(
    content: bytes | memoryview,
    source: str = "AEDAT data",
    height: int = 128,
    width: int = 128,
    valid_only: bool = True,
    max_disorder: int = MAX_DISORDER,
) -> Events:
    """Decodes the polarity events of an AEDAT 3.1 file; events of other types are skipped.

    Times are the camera's clock, in microseconds, overflows included. Events that arrive late, by
    at most ``max_disorder`` microseconds, are put in order (a stable sort).

    The format has no checksum: what breaks its structure (a header, a length, a count), leaves the
    sensor or goes back in time is found; a flipped bit that makes another possible event is not.

    Args:
        content: The whole file.
        source: What to call the data in an error.
        height: Rows of the sensor (128: the DVS128).
        width: Columns of the sensor.
        valid_only: Leave out events that are marked as not valid, such as what a noise filter
            struck out, and check that a packet has as many valid ones as its header says. False
            takes all events, as SpikingJelly does.
        max_disorder: Largest lateness in microseconds.

    Raises:
        AEDATError: Another format or version, a packet that is cut off or that contradicts itself,
            a pixel outside the sensor, or an event too late; the message says where.
    """
    view = memoryview(content)
    packets = polarity_packets(view, end_of_header(view, source), source)
    total = int(packets.number.sum())
    t, x = np.empty(total, np.int64), np.empty(total, np.uint16)
    y, p = np.empty(total, np.uint16), np.empty(total, np.uint8)
    kept = packets.number.copy()  # events of each piece that are taken
    size = 0
    for pieces in _groups(packets.number):
        addresses, stamps = _load(view, packets, pieces, (source, height, width, valid_only), kept)
        part = slice(size, size + len(addresses))
        t[part] = stamps
        if packets.overflow[pieces].any():
            t[part] += np.repeat(packets.overflow[pieces] << TIME_BITS, kept[pieces])
        x[part] = addresses >> 17
        y[part] = (addresses >> 2) & LARGEST_PIXEL
        p[part] = (addresses >> 1) & 1
        size += len(addresses)
    if valid_only:
        _check_valid(packets, kept, source)
    try:
        return ordered_events(t[:size], x[:size], y[:size], p[:size], (height, width), max_disorder)
    except DisorderError as error:
        piece = int(np.searchsorted(np.cumsum(kept), error.index, side="right"))
        place = f"{source}: offset {packets.offset[piece]}: event {error.index} of the file"
        raise AEDATError(f"{place}: {error}") from None


def write_aedat(path: str | Path, events: Events) -> Path:
    """Writes events as an AEDAT 3.1 file of a DVS128, atomically.

    The same events always make the same bytes: the start time in the header is 1970-01-01.

    Args:
        path: The file; folders are made.
        events: Times from 0 on.

    Returns:
        The path.

    Raises:
        ValueError: A time below 0 or from 2^62 on, or a sensor larger than 32768 pixels: the format
            has no room for them.
    """
    path = Path(path)
    if max(events.height, events.width) > LARGEST_PIXEL + 1:
        raise ValueError(
            f"{path}: a sensor of {events.height}x{events.width}: AEDAT 3.1 holds at most "
            f"{LARGEST_PIXEL + 1} rows and columns"
        )
    if len(events) and not 0 <= int(events.t[0]) <= int(events.t[-1]) < 1 << 62:
        raise ValueError(
            f"{path}: times from {events.t[0]} to {events.t[-1]} us; write times from 0 to 2^62 - 1"
        )
    with atomic_file(path) as temporary, open(temporary, "xb") as file:
        file.write(WRITTEN_HEADER)
        for first, last in _written_packets(events.t):
            overflow, count = int(events.t[first]) >> TIME_BITS, last - first
            file.write(
                PACKET_HEADER.pack(POLARITY, 1, EVENT_BYTES, 4, overflow, count, count, count)
            )
            file.write(_words(events, slice(first, last)))
    return path


def _groups(number: npt.NDArray[np.int64]) -> Iterator[slice]:
    """Runs of successive pieces that have at most 2 CHUNK events together."""
    if len(number) == 0:
        return
    group = np.cumsum(number) // CHUNK
    edges = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(number)]
    for first, last in itertools.pairwise(edges):
        yield slice(first, last)


def _load(
    content: memoryview,
    packets: PolarityPackets,
    pieces: slice,
    expected: tuple[str, int, int, bool],
    kept: npt.NDArray[np.int64],
) -> tuple[Words, Words]:
    """The two words of each event that is taken of some pieces; counts them in ``kept``."""
    source, height, width, valid_only = expected
    offsets, numbers = packets.offset[pieces], packets.number[pieces]
    words = np.concatenate(
        [
            np.frombuffer(content, "<u4", 2 * number, offset)
            for offset, number in zip(offsets.tolist(), numbers.tolist(), strict=True)
        ]
    )
    addresses, stamps = words[0::2], words[1::2]
    starts = np.cumsum(numbers) - numbers
    valid = (addresses & 1).astype(bool) if valid_only else np.ones(len(addresses), bool)
    for name, values, limit in (
        ("x", addresses >> 17, width),
        ("y", (addresses >> 2) & LARGEST_PIXEL, height),
        ("time", stamps, 1 << TIME_BITS),
    ):
        if int(values.max()) >= limit and (wrong := (values >= limit) & valid).any():
            index = int(wrong.argmax())
            piece = int(np.searchsorted(starts, index, side="right")) - 1
            offset = int(offsets[piece]) + EVENT_BYTES * (index - int(starts[piece]))
            raise AEDATError(
                f"{source}: offset {offset}: polarity event: expected {name} of 0 to {limit - 1}, "
                f"found {values[index]}: another sensor (height, width), or a damaged file"
            )
    if valid.all():
        return addresses, stamps
    kept[pieces] = np.add.reduceat(valid, starts, dtype=np.int64)
    return addresses[valid], stamps[valid]


def _check_valid(packets: PolarityPackets, kept: npt.NDArray[np.int64], source: str) -> None:
    """Each packet has as many valid events as its header says."""
    if len(kept) == 0:
        return
    starts = np.flatnonzero(np.diff(packets.packet, prepend=-1))
    found, stated = np.add.reduceat(kept, starts), packets.valid[starts]
    if (found != stated).any():
        index = int((found != stated).argmax())
        raise AEDATError(
            f"{source}: offset {packets.packet[starts][index]}: packet header: expected "
            f"{stated[index]} valid events (eventValid), found {found[index]} marked as valid: the "
            "file is damaged, or its writer counts otherwise: valid_only=false reads all its events"
        )


def _written_packets(t: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Bounds of packets to write: a packet has one number of overflows."""
    first = 0
    while first < len(t):
        next_overflow = ((int(t[first]) >> TIME_BITS) + 1) << TIME_BITS
        last = min(first + WRITTEN_PACKET, len(t))
        last = first + int(np.searchsorted(t[first:last], next_overflow))
        yield first, last
        first = last


def _words(events: Events, part: slice) -> bytes:
    """The two words of each event of a part, all valid."""
    words = np.empty((part.stop - part.start, 2), "<u4")
    words[:, 0] = events.x[part].astype(np.uint32) << 17
    words[:, 0] |= events.y[part].astype(np.uint32) << 2
    words[:, 0] |= (events.p[part].astype(np.uint32) << 1) | 1
    words[:, 1] = events.t[part] & ((1 << TIME_BITS) - 1)
    return words.tobytes()
