"""Writers of event files, event by event with ``struct``: they share nothing with the readers."""

import struct
from collections.abc import Iterable

Event = tuple[int, int, int, int]
"""Time in microseconds, x, y, polarity (1: ON)."""

HEADER = (
    b"#!AER-DAT3.1\r\n"
    b"#Format: RAW\r\n"
    b"#Source 1: DVS128\r\n"
    b"#Start-Time: 2015-06-23 12:04:05 (TZ-0700)\r\n"
    b"#!END-HEADER\r\n"
)


def packet_header(
    kind: int, size: int, overflow: int, capacity: int, number: int, valid: int
) -> bytes:
    return b"".join(
        [
            struct.pack("<h", kind),
            struct.pack("<h", 1),  # the source
            struct.pack("<i", size),
            struct.pack("<i", 4),  # where the timestamp is in an event
            struct.pack("<i", overflow),
            struct.pack("<i", capacity),
            struct.pack("<i", number),
            struct.pack("<i", valid),
        ]
    )


def polarity_event(event: Event, valid: bool = True) -> bytes:
    t, x, y, p = event
    return struct.pack("<II", x * 2**17 + y * 2**2 + p * 2 + (1 if valid else 0), t % 2**31)


def polarity_packet(
    events: Iterable[Event], valid: Iterable[bool] | None = None, spare: int = 0
) -> bytes:
    """A packet of events with one number of overflows, and ``spare`` slots that are not in use."""
    events = list(events)
    marks = [True] * len(events) if valid is None else list(valid)
    overflow = events[0][0] // 2**31 if events else 0
    assert all(event[0] // 2**31 == overflow for event in events)
    header = packet_header(1, 8, overflow, len(events) + spare, len(events), sum(marks))
    body = [polarity_event(event, mark) for event, mark in zip(events, marks, strict=True)]
    return header + b"".join(body) + bytes(8 * spare)


def special_packet(times: Iterable[int]) -> bytes:
    """A packet of special events (here: timestamp resets)."""
    times = list(times)
    body = [struct.pack("<II", (1 << 1) | 1, t) for t in times]
    return packet_header(0, 8, 0, len(times), len(times), len(times)) + b"".join(body)


def imu_packet(count: int) -> bytes:
    """A packet of events of an inertial measurement unit with six axes."""
    body = [struct.pack("<Ii7f", 1, 10 * k, *range(7)) for k in range(count)]
    return packet_header(3, 36, 0, count, count, count) + b"".join(body)


def aedat_file(events: Iterable[Event], packet: int = 7) -> bytes:
    """A file of ``packet`` events per packet, with a packet of another type now and then."""
    events = list(events)
    parts, group = [HEADER], []
    for index, event in enumerate(events):
        if group and (len(group) == packet or group[0][0] // 2**31 != event[0] // 2**31):
            parts.append(polarity_packet(group))
            group = []
            if index % 3 == 0:
                parts.append(special_packet([index]))
                parts.append(imu_packet(2))
        group.append(event)
    if group:
        parts.append(polarity_packet(group))
    return b"".join(parts)


def atis_file(events: Iterable[Event]) -> bytes:
    """The 5-byte events of N-MNIST: x, y, polarity and 23 bits of time, big-endian."""
    return b"".join(
        bytes([x, y]) + ((p << 23) | t).to_bytes(3, byteorder="big") for t, x, y, p in events
    )
