"""Where the files of DVS128 Gesture may lie, and how samples are cut from them.

Three forms serve, and make the same samples in the same order: the official archive, its extracted
folder, and the ``events_np`` folder that SpikingJelly cuts from it. Nothing is ever changed or
deleted.
"""

from __future__ import annotations

import gzip
import logging
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from qspinn.data.aedat import parse_aedat, read_aedat
from qspinn.data.arrays import BUFFER, ArrayError, check_regular, next_header, open_tar
from qspinn.data.events import Events
from qspinn.data.foreign_files import is_foreign
from qspinn.data.frame_set import Recordings
from qspinn.data.gesture_labels import (
    TEST_LIST,
    TRAIN_LIST,
    Gesture,
    labels_name,
    parse_gesture_labels,
    parse_trials,
    subject_of,
)
from qspinn.data.splits import natural

ARCHIVE = "DvsGesture.tar.gz"
FOLDER = "DvsGesture"
EVENTS_NP = "events_np"
MOST_TEXT, MOST_EVENTS = 1 << 20, 1 << 31
"""Bytes of a list or label file, which has about 400, and of a recording, which has 60 million."""
SMALL_EVENTS, LARGEST_RATIO = 64 << 20, 100
"""Recordings of more bytes than the first have at most so many per byte of their archive: events
pack to a third or so."""
Member = tuple[str, Callable[[], bytes]]
"""Name of a file, and what reads it."""
log = logging.getLogger(__name__)


class GestureFilesError(ValueError):
    """Files of DVS128 Gesture that are damaged or incomplete; names them. They stay as they are."""


@dataclass(frozen=True)
class ReadSettings:
    """How recordings are decoded: see :func:`qspinn.data.parse_aedat`."""

    valid_only: bool
    max_disorder: int


@dataclass(frozen=True)
class Sample:
    """One gesture: of class ``label``, the ``part``-th of this class in ``recording``."""

    is_test: bool
    label: int
    recording: str
    part: int

    @property
    def key(self) -> tuple[object, ...]:
        """What samples are ordered by, whichever form they come from."""
        return (self.is_test, self.label, natural(self.recording), self.part)


@dataclass(frozen=True)
class GestureFiles:
    """One of the three forms: ``kind`` is ``folder``, ``archive`` or ``events_np``."""

    kind: str
    path: Path

    def files(self) -> list[Path]:
        """The files that samples depend on."""
        if self.kind == "archive":
            return [self.path]
        if self.kind == EVENTS_NP:
            return [file for part in ("train", "test") for file in npz_files(self.path / part)]
        return sorted(path for path in self.path.iterdir() if _is_wanted(path.name))


def npz_files(folder: Path) -> list[Path]:
    """The samples of a part of ``events_np``, by class, without foreign files."""
    return sorted(path for path in folder.glob("*/*.npz") if not is_foreign(path.name))


def find_gesture_files(root: Path) -> GestureFiles | None:
    """Looks for the files in the places where users and SpikingJelly put them.

    The extracted folder goes before the archive, and both before ``events_np``, which SpikingJelly
    leaves half full when it is stopped.

    Args:
        root: The data set's folder; or the archive, the extracted folder or ``events_np`` itself.

    Returns:
        The first form that is there, or None.
    """
    for folder in (root, root / FOLDER, root / "extract" / FOLDER):
        if (folder / TRAIN_LIST).is_file():
            return GestureFiles("folder", folder)
    for archive in (root, root / ARCHIVE, root / "download" / ARCHIVE):
        if archive.is_file():
            return GestureFiles("archive", archive)
    for folder in (root / EVENTS_NP, root):
        if (folder / "train").is_dir() and (folder / "test").is_dir():
            return GestureFiles(EVENTS_NP, folder)
    return None


def official_recordings(files: GestureFiles, settings: ReadSettings) -> Recordings:
    """The gestures of the official recordings, from the archive or the extracted folder.

    A gesture is every event with ``startTime_usec <= t < endTime_usec``.

    Raises:
        GestureFilesError: A file is missing or damaged.
        GestureLabelError: A list or a label file says something impossible.
        AEDATError: A recording is damaged (while it is read).
    """
    texts, names = _texts(files)
    cuts = _cuts(texts, names, str(files.path))
    order = sorted(cuts, key=lambda sample: sample.key)
    wanted: dict[str, list[tuple[int, Gesture]]] = {}
    for index, sample in enumerate(order):
        wanted.setdefault(sample.recording, []).append((index, cuts[sample]))

    def read() -> Iterator[tuple[int, Events]]:
        for name, events in _recordings(files, wanted, settings):
            if len(events) == 0:
                raise GestureFilesError(
                    f"{files.path}: {name}.aedat holds no event; get it again, or take its name "
                    f"out of {TRAIN_LIST} or {TEST_LIST}"
                )
            for index, gesture in wanted[name]:
                part = events.between(gesture.start, gesture.stop)
                if len(part) == 0:
                    log.warning(
                        "%s: %s.aedat has no event from %d to %d us: its sample of class %d is "
                        "empty frames",
                        *(files.path, name, gesture.start, gesture.stop, gesture.label + 1),
                    )
                yield index, part

    return listed(order, read)


def listed(order: Sequence[Sample], read: Callable[[], Iterable[tuple[int, Events]]]) -> Recordings:
    """Recordings of the samples ``order``; subjects are what must not be split."""
    return Recordings(
        np.array([sample.label for sample in order], np.int64),
        np.array([sample.is_test for sample in order], bool),
        np.array([subject_of(sample.recording) for sample in order], np.int64),
        read,
    )


def _cuts(texts: dict[str, str], names: set[str], source: str) -> dict[Sample, Gesture]:
    """Each gesture of each listed recording."""
    cuts: dict[Sample, Gesture] = {}
    listed_in: dict[str, str] = {}
    for trials in (TRAIN_LIST, TEST_LIST):
        recordings = parse_trials(_text(texts, trials, source), f"{source}: {trials}")
        if not recordings:
            raise GestureFilesError(f"{source}: {trials} lists no recording; get it again")
        for name in recordings:
            if name in listed_in:
                raise GestureFilesError(
                    f"{source}: {name}.aedat is listed in {listed_in[name]} and in {trials}"
                )
            listed_in[name] = trials
            labels = labels_name(name)
            counts: dict[int, int] = {}
            for gesture in parse_gesture_labels(
                _text(texts, labels, source), f"{source}: {labels}"
            ):
                part = counts.get(gesture.label, 0)
                counts[gesture.label] = part + 1
                cuts[Sample(trials == TEST_LIST, gesture.label, name, part)] = gesture
    missing = sorted(f"{name}.aedat" for name in listed_in if f"{name}.aedat" not in names)
    if missing:
        raise GestureFilesError(
            f"{source}: {len(missing)} of {len(listed_in)} listed recordings are missing: "
            f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}. Extract the archive "
            "again, or get it again"
        )
    return cuts


def _text(texts: dict[str, str], name: str, source: str) -> str:
    if name not in texts:
        raise GestureFilesError(f"{source}: there is no {name}; extract the archive again")
    return texts[name]


def _is_wanted(name: str) -> bool:
    """Recordings, labels and lists; not what an archiver adds, such as ``._user01.aedat``."""
    is_list = name in (TRAIN_LIST, TEST_LIST)
    return is_list or (name.startswith("user") and name.endswith((".aedat", "_labels.csv")))


def _decoded(content: bytes, name: str, source: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise GestureFilesError(f"{source}: {name}: expected text, found {error}") from None


def _content(path: Path) -> bytes:
    try:
        check_regular(path)
    except ArrayError as error:
        raise GestureFilesError(f"{path}: {error}") from None
    _check_size(path.stat().st_size, path.name, path.parent)
    return path.read_bytes()


def _check_size(size: int, name: str, source: Path) -> None:
    most = MOST_TEXT
    if name.endswith(".aedat"):  # in an archive: zeros pack to a thousandth
        most = min(MOST_EVENTS, max(SMALL_EVENTS, LARGEST_RATIO * source.stat().st_size))
    if size > most:
        raise GestureFilesError(
            f"{source}: {name} has {size:,} bytes, at most {most:,} are read; get it again"
        )


def _texts(files: GestureFiles) -> tuple[dict[str, str], set[str]]:
    """The lists and label files, and the names of all files.

    An archive is read to its end, so that a damaged one is found here.
    """
    texts: dict[str, str] = {}
    names: set[str] = set()
    with _members(files) as members:
        for name, read in members:
            if name in names:
                raise GestureFilesError(f"{files.path}: holds two files named {name}")
            names.add(name)
            if not name.endswith(".aedat"):
                texts[name] = _decoded(read(), name, str(files.path))
    return texts, names


def _recordings(
    files: GestureFiles, wanted: dict[str, list[tuple[int, Gesture]]], settings: ReadSettings
) -> Iterator[tuple[str, Events]]:
    if files.kind == "folder":
        for name in wanted:
            yield name, read_aedat(files.path / f"{name}.aedat", **vars(settings))
        return
    with _members(files) as members:
        for file_name, read in members:
            name = file_name.removesuffix(".aedat")
            if name in wanted:
                source = f"{files.path}: {file_name}"
                yield name, parse_aedat(read(), source, **vars(settings))


@contextmanager
def _members(files: GestureFiles) -> Iterator[Iterable[Member]]:
    """The files by their names without folders, once; of an archive, in its order."""
    archive = files.path
    if files.kind == "folder":
        yield [(path.name, partial(_content, path)) for path in files.files()]
        return
    try:
        with (
            gzip.open(archive) as content,
            open_tar(content) as tar,
        ):
            yield _members_of(tar, content, archive)
    except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise GestureFilesError(
            f"{archive}: not a whole .tar.gz archive ({error}). It was left as it is: copy or "
            "download it again"
        ) from None


def _members_of(tar: tarfile.TarFile, content: gzip.GzipFile, archive: Path) -> Iterator[Member]:
    while (member := next_header(tar)) is not None:
        name = PurePosixPath(member.name).name
        if member.isfile() and _is_wanted(name) and not is_foreign(member.name):
            _check_size(member.size, name, archive)
            file = tar.extractfile(member)
            assert file is not None  # it is a file
            yield name, file.read
    while content.read(BUFFER):  # to the checksum at the end
        pass
