"""A small data set in the official format of DVS128 Gesture, and what its samples are."""

import csv
import io
import tarfile
from pathlib import Path

import numpy as np

from tests.reference.aedat import Event, aedat_file

CLASSES = (1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 10, 11)
TRAIN = ("user01_fluorescent", "user02_lab", "user10_led", "user02_fluorescent_led", "user09_lab")
TEST = ("user24_natural", "user24_led")
EVENTS_PER_GESTURE = 24
GAP = 1000


def recording(name: str) -> tuple[list[Event], list[tuple[int, int, int]]]:
    """Events and label lines of one recording; between gestures there are events as well."""
    rng = np.random.default_rng(sum(name.encode()))
    events: list[Event] = []
    lines = []
    clock = 80_000_000

    def film(count: int, length: int) -> None:
        times = np.sort(rng.integers(clock, clock + length, count))
        times[[0, -1]] = clock, clock + length - 1
        for t in times.tolist():
            x, y, p = rng.integers(0, 128), rng.integers(0, 128), rng.integers(0, 2)
            events.append((t, int(x), int(y), int(p)))

    for label in CLASSES:
        film(5, GAP)
        clock += GAP
        length = int(rng.integers(3000, 5000))
        film(EVENTS_PER_GESTURE + label, length)
        lines.append((label, clock, clock + length))
        clock += length
    film(5, GAP)
    return events, lines


def labels_csv(lines: list[tuple[int, int, int]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerows([("class", "startTime_usec", "endTime_usec"), *lines])
    return text.getvalue()


def official_files() -> dict[str, bytes]:
    """Name in the archive -> content, lists last, with files that nobody needs."""
    files = {"README.txt": b"read me", "gesture_mapping.csv": b"hand_clapping,1\n"}
    for name in (*TEST, *TRAIN):
        events, lines = recording(name)
        files[f"{name}.aedat"] = aedat_file(events, packet=50)
        files[f"._{name}.aedat"] = b"what an archiver adds"
        files[f"{name}_labels.csv"] = labels_csv(lines).encode()
    for list_name, names in (("trials_to_train.txt", TRAIN), ("trials_to_test.txt", TEST)):
        files[list_name] = "".join(f"{name}.aedat\n" for name in names).encode() + b"\n"
    return files


def write_folder(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def write_archive(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        folder = tarfile.TarInfo("DvsGesture")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(f"DvsGesture/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def expected_samples(names: tuple[str, ...]) -> list[tuple[int, int, list[Event]]]:
    """Class from 0, subject and events of each sample: by class, then recording, then time."""
    numbered = sorted(names, key=lambda name: (int(name[4:6]), name[6:]))
    samples = []
    for label in range(11):
        for name in numbered:
            events, lines = recording(name)
            for number, start, stop in lines:
                if number - 1 == label:
                    part = [event for event in events if start <= event[0] < stop]
                    samples.append((label, int(name[4:6]), part))
    return samples


def frames_by_count(events: list[Event], time_steps: int, factor: int) -> np.ndarray:
    side = 128 // factor
    frames = np.zeros((time_steps, 2, side, side), np.float32)
    length = len(events) // time_steps
    for index, (_, x, y, p) in enumerate(events):
        frames[min(index // length, time_steps - 1), p, y // factor, x // factor] += 1
    return frames
