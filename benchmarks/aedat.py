"""How fast an AEDAT 3.1 file is read, against SpikingJelly's ``load_aedat_v3``.

    python benchmarks/aedat.py                       # about two minutes
    python benchmarks/aedat.py --large 100000000     # and memory, with a file of 100 million events

The files come from the event-by-event writer of the tests, which shares nothing with either reader.
Both readers take turns in each round; the events are compared first. Written is
docs/results/aedat.md.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import measuring
from measuring import RESULTS, ROOT

import numpy as np
from spikingjelly.datasets import utils as spikingjelly

from qspinn.atomic import atomic_file, write_text
from qspinn.data import Events, integrate, read_aedat
from qspinn.data.aedat_packets import PACKET_HEADER
from tests.reference.aedat import HEADER, polarity_packet

PACKETS = (100, 1000, 10_000)
RATE = 20_000
"""Events per second of the files."""
TIME_STEPS = 16
PIECE = 1_000_000


def write_file(path: Path, count: int, packet: int) -> None:
    """A file of ``count`` random events in packets of ``packet``."""
    rng = np.random.default_rng(count + packet)
    t = np.sort(rng.integers(0, count * 1_000_000 // RATE, count)).tolist()
    x, y = (rng.integers(0, 128, count).tolist() for _ in range(2))
    p = rng.integers(0, 2, count).tolist()
    events = list(zip(t, x, y, p, strict=True))
    with open(path, "wb") as file:
        file.write(HEADER)
        for first in range(0, count, packet):
            file.write(polarity_packet(events[first : first + packet]))


def compare(
    name: str, ours: Callable[[], object], theirs: Callable[[], object], rounds: int
) -> str:
    """One row of the table: medians over interleaved rounds."""
    laps = measuring.interleaved({"ours": ours, "theirs": theirs}, rounds)
    mine, other = laps["ours"], laps["theirs"]
    ratio = measuring.ratio(other.wall, mine.wall)
    cpu = measuring.ratio(other.processor, mine.processor).median
    row = (
        f"| {name} | {other.median:.3f} s | {mine.median:.4f} s | "
        f"**{ratio.median:.0f}x** ({ratio.lowest:.0f} to {ratio.highest:.0f}) | {cpu:.0f}x |"
    )
    print(row, flush=True)
    return row


def check_same(mine: Events, theirs: dict[str, np.ndarray]) -> None:
    for name in Events.TYPES:
        if not np.array_equal(getattr(mine, name), theirs[name]):
            sys.exit(f"error: {name} differs from SpikingJelly's")


def speed(count: int, rounds: int, folder: Path) -> list[str]:
    """Rows of the table."""
    rows = []
    for packet in PACKETS:
        path = folder / f"{packet}.aedat"
        write_file(path, count, packet)
        mine, theirs = read_aedat(path), spikingjelly.load_aedat_v3(path)
        check_same(mine, theirs)
        rows.append(
            compare(
                f"reading, packets of {packet:,} events",
                lambda path=path: read_aedat(path),
                lambda path=path: spikingjelly.load_aedat_v3(path),
                rounds,
            )
        )
    frames = spikingjelly.integrate_events_by_fixed_frames_number(
        theirs, "number", TIME_STEPS, 128, 128
    )
    if not np.array_equal(integrate(mine, TIME_STEPS), frames):
        sys.exit("error: the frames differ from SpikingJelly's")
    rows.append(
        compare(
            f"{TIME_STEPS} frames of equal counts",
            lambda: integrate(mine, TIME_STEPS),
            lambda: spikingjelly.integrate_events_by_fixed_frames_number(
                theirs, "number", TIME_STEPS, 128, 128
            ),
            rounds,
        )
    )
    return rows


def write_large(path: Path, count: int) -> None:
    """A file of ``count`` events in large packets, written piece by piece."""
    rng = np.random.default_rng(0)
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        file.write(HEADER)
        for first in range(0, count, PIECE):
            size = min(PIECE, count - first)
            words = np.empty((size, 2), "<u4")
            pixels = rng.integers(0, 128, (2, size), dtype=np.uint32)
            words[:, 0] = pixels[0] << 17 | pixels[1] << 2 | (pixels[0] & 1) << 1 | 1
            words[:, 1] = first + np.arange(size)
            file.write(PACKET_HEADER.pack(1, 1, 8, 4, 0, size, size, size))
            file.write(words.tobytes())


def own_memory() -> int:
    """Bytes of this process's own memory: pages of a mapped file do not count."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise OSError("/proc/self/status names no RssAnon")


def report_memory(path: str) -> None:
    """Reads a file and makes frames of it, in a process of its own; prints what that takes."""
    before, done = own_memory(), threading.Event()
    peak = before

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    events = read_aedat(path)
    reading = time.perf_counter() - start
    frames = integrate(events, TIME_STEPS, "time")
    framing = time.perf_counter() - start - reading
    done.set()
    watcher.join()
    result = sum(getattr(events, name).nbytes for name in Events.TYPES)
    assert frames.sum() == len(events)
    print(
        f"A file of {len(events):,} events ({Path(path).stat().st_size / 2**20:,.0f} MiB) is read "
        f"in {reading:.1f} s and converted to {TIME_STEPS} frames in {framing:.1f} s. The events "
        f"take {result / 2**20:,.0f} MiB; the peak of the process's own memory, while reading and "
        f"making frames, is {(peak - before) / 2**20:,.0f} MiB above its start: "
        f"**{(peak - before) / result:.2f}** times the events. (The file is memory-mapped: its "
        "pages belong to the system, which releases them when it needs memory.)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=9, help="9 or more")
    parser.add_argument("--large", type=int, default=0, help="events of the large file (0: none)")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        report_memory(options.memory_of)
        return
    command = "python benchmarks/aedat.py" + (f" --large {options.large}" if options.large else "")
    parts = [
        "# Speed of the AEDAT 3.1 reader",
        measuring.circumstances(measuring.machine("numpy", "spikingjelly"), command),
        f"Files of {options.events:,} random events on 128x128 pixels, written event by event by a "
        "writer that shares no code with either reader, and read from the system's file cache. "
        "Both readers give the same events (checked), and both framing functions give the same "
        f"frames. Medians over {options.rounds} rounds, in which both run in turn; the ratio of "
        "the medians, with the lowest and highest ratio of a round.",
    ]
    with tempfile.TemporaryDirectory() as name:
        rows = speed(options.events, options.rounds, Path(name))
        header = "| | SpikingJelly | here | SpikingJelly's time is | by processor time |"
        parts.append("\n".join([header, "|---|---|---|---|---|", *rows]))
        parts.append(
            "Our reader also checks what SpikingJelly's does not: each packet's header, the valid "
            "bits and their number, pixels, the order of timestamps, and that the file is complete."
        )
        if options.large:
            path = Path(name) / "large.aedat"
            write_large(path, options.large)
            done = subprocess.run(
                [sys.executable, __file__, "--memory-of", str(path)],
                capture_output=True,
                text=True,
                check=True,
            )
            parts += ["## Memory", done.stdout.strip()]
    page = RESULTS / "aedat.md"
    write_text("\n\n".join(parts) + "\n", page)
    print(f"written: {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
