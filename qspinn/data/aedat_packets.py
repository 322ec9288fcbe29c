"""The structure of an AEDAT 3.1 file: its text header and its chain of packets.

A file is a text header, lines that begin with ``#`` up to ``#!END-HEADER``, and then packets, all
little-endian. A packet is a header of 28 bytes (event type and source, int16 each; then, int32
each, the size of an event, the offset of its timestamp, timestamp overflows, capacity, number and
number of valid events) and ``capacity`` events, of which the first ``number`` are in use.

Source of the layout: iniVation, "AEDAT file formats", section AEDAT 3.1, and libcaer's header
``libcaer/events/common.h``.
"""

from __future__ import annotations

import re
import struct
from array import array
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qspinn.data.events import CHUNK

VERSION = b"#!AER-DAT3.1"
END_OF_HEADER = (b"#!END-HEADER", b"#End Of ASCII Header")
LONGEST_LINE = 4096
_BEGINNING = re.compile(rb"#!AER-DAT(\d+\.\d+)\s*$")
_READERS = {
    2: "tonic.io.read_dvs_128 or read_davis_346, by the camera (pip install tonic)",
    4: "aedat.Decoder (pip install aedat)",
}
"""First digit of another version of the format -> what reads it in Python."""
PACKET_HEADER = struct.Struct("<hhiiiiii")
POLARITY = 1
EVENT_BYTES = 8
LAST_TYPE = 13
EVENT_SIZES = {0: 8, POLARITY: EVENT_BYTES, 3: 36, 4: 48}
"""Bytes of an event of the types whose size is fixed: special, polarity, IMU with 6 and 9 axes."""


class AEDATError(ValueError):
    """Not a complete AEDAT 3.1 file; names the file, the offset, what was expected, and found."""


@dataclass(frozen=True, eq=False)
class PolarityPackets:
    """Where the polarity events are: one entry per piece of a packet, of at most CHUNK events."""

    offset: npt.NDArray[np.int64]  # of a piece's first event, in bytes, `[P]`
    number: npt.NDArray[np.int64]  # its events, 1 or more, `[P]`
    overflow: npt.NDArray[np.int64]  # overflows of its timestamps, `[P]`
    packet: npt.NDArray[np.int64]  # offset of its packet, `[P]`
    valid: npt.NDArray[np.int64]  # valid events of its packet, as the packet's header says, `[P]`


def end_of_header(content: memoryview, source: str) -> int:
    """Offset of the first packet.

    Raises:
        AEDATError: Another format or version, or a header without an end.
    """
    if not content:
        raise AEDATError(
            f"{source}: offset 0: expected {VERSION.decode()}, found an empty file; get it again"
        )
    offset = 0
    while True:
        line = bytes(content[offset : offset + LONGEST_LINE])
        text, newline, _ = line.partition(b"\n")
        expected = VERSION.decode() if offset == 0 else "a line of the header that begins with #"
        if not (text.rstrip() == VERSION if offset == 0 else text.startswith(b"#")) or not newline:
            raise AEDATError(
                f"{source}: offset {offset}: expected {expected}, up to the line "
                f"{END_OF_HEADER[0].decode()}, found {text[:40]!r}"
                f"{_remedy(text) if offset == 0 else ''}"
            )
        if text.startswith(b"#Format:") and text[8:].strip() != b"RAW":
            raise AEDATError(
                f"{source}: offset {offset}: expected #Format: RAW (not compressed), found "
                f"{text[:40]!r}"
            )
        offset += len(text) + 1
        if text.rstrip() in END_OF_HEADER:
            return offset


def _remedy(line: bytes) -> str:
    """What to do with a file that begins with this line, where that is known."""
    match = _BEGINNING.match(line)
    if match is None:
        return ": not a file of events of this format, or a damaged one"
    version = match[1].decode()
    if version == "3.1":  # only the end of the line is missing
        return ""
    reader = _READERS.get(int(version.split(".")[0]), "the program that recorded it")
    return (
        f". This is AEDAT {version}; read its events with {reader}, put them into "
        "qspinn.data.Events(t, x, y, p, height, width), and write them with "
        "qspinn.data.write_aedat(path, events)"
    )


def polarity_packets(content: memoryview, offset: int, source: str) -> PolarityPackets:
    """Follows the chain of packets from ``offset`` to the end of the file.

    Packets of other events (special, frame, IMU and so on) are stepped over.

    Raises:
        AEDATError: A packet that is cut off, or whose header contradicts itself.
    """
    columns = [array("q") for _ in range(5)]
    while offset < len(content):
        if len(content) - offset < PACKET_HEADER.size:
            raise AEDATError(
                f"{source}: offset {offset}: expected a packet header of {PACKET_HEADER.size} "
                f"bytes, found {len(content) - offset} bytes: the file is cut off"
            )
        fields = PACKET_HEADER.unpack_from(content, offset)
        kind, _, size, _, overflow, capacity, number, valid = fields
        wrong = _wrong_field(fields)
        if wrong:
            raise AEDATError(
                f"{source}: offset {offset}: packet header: {wrong}: the file is damaged"
            )
        begin = offset + PACKET_HEADER.size
        if begin + capacity * size > len(content):
            raise AEDATError(
                f"{source}: offset {begin}: expected {capacity} events of {size} bytes, found "
                f"{len(content) - begin} bytes: the file is cut off"
            )
        if kind == POLARITY:
            for first in range(0, number, CHUNK):
                piece = (begin + first * size, min(CHUNK, number - first), overflow, offset, valid)
                for column, value in zip(columns, piece, strict=True):
                    column.append(value)
        offset = begin + capacity * size
    return PolarityPackets(*(np.array(column, np.int64) for column in columns))


def _wrong_field(fields: tuple[int, ...]) -> str | None:
    """What is wrong with a packet header; None if nothing is."""
    kind, origin, size, time_offset, overflow, capacity, number, valid = fields
    expected_size = EVENT_SIZES.get(kind)
    if not 0 <= kind <= LAST_TYPE:
        return f"expected an eventType of 0 to {LAST_TYPE}, found {kind}"
    if origin < 0:
        return f"expected an eventSource of 0 or more, found {origin}"
    if size < 1 or expected_size not in (None, size):
        return f"expected an eventSize of {expected_size or '1 or more'} bytes, found {size}"
    if not (time_offset == 4 if expected_size else 0 <= time_offset < size):
        return f"expected an eventTSOffset of 4, found {time_offset}"
    if overflow < 0:
        return f"expected an eventTSOverflow of 0 or more, found {overflow}"
    if capacity < 0:
        return f"expected an eventCapacity of 0 or more, found {capacity}"
    if not 0 <= number <= capacity:
        return f"expected an eventNumber of 0 to {capacity} (eventCapacity), found {number}"
    if not 0 <= valid <= number:
        return f"expected an eventValid of 0 to {number} (eventNumber), found {valid}"
    return None
