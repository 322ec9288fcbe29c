"""N-MNIST: handwritten digits, filmed by an event camera that moves."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from qspinn.data.arrays import ArrayError, check_regular, open_member, reason_of
from qspinn.data.atis import ATISError, parse_atis
from qspinn.data.checks import check
from qspinn.data.event_data_module import EventDataModule, Indices
from qspinn.data.events import Events
from qspinn.data.fingerprint import content_fingerprint
from qspinn.data.foreign_files import is_foreign
from qspinn.data.frame_set import FrameSet, Recordings, fingerprint
from qspinn.data.splits import fold_of, natural, stratified_tail

PARTS = ("Train", "Test")
WHERE = "https://www.garrickorchard.com/datasets/n-mnist"
MOST_BYTES = 1 << 24
"""Of a recording: those of N-MNIST have about 21,000, and 50,000 at most."""
_RECORDING = re.compile(r"(?:.*/)?(Train|Test)/([0-9])/([^/]+)\.bin")


class NMNIST(EventDataModule):
    """N-MNIST: 60,000 training and 10,000 test recordings of about 300 ms, 34x34 pixels.

    An ATIS sensor filmed each image of MNIST from a screen while it made three small movements
    (Orchard and others, Frontiers in Neuroscience 9:437, 2015). Recordings have about 4,200 events.

    The files lie in ``root/Train`` and ``root/Test``, in folders 0 to 9 of ``.bin`` files, as the
    official zips have them; or in the zips themselves, ``root/Train.zip`` and ``root/Test.zip``,
    which are read as they are. A part of the official recordings serves as well.

    Without ``folds`` the split is the official one. With ``folds=k`` all recordings, of both parts,
    take part in a k-fold cross validation: number i of a class (training part first, in the order
    of the file names) is tested on in fold i mod k, so each fold has as many of each class, ±1.

    The validation set is, of each class, the last ``val_fraction`` of what is left for training.
    None of this depends on the seed.

    Args:
        root: The folder that holds ``Train`` and ``Test``.
        val_fraction: Part of each class of the training set that is held out for validation, 0
            (none) to less than 1.
        folds: Number of folds, 2 or more; None: the official split.
        fold: Which fold tests, 0 to ``folds - 1``.
        **frame_and_loader_settings: See :class:`EventDataModule`.

    Raises:
        ValueError: A setting out of its range.
    """

    name = "nmnist"
    num_classes = 10
    sensor = (34, 34)

    def __init__(
        self,
        root: str | Path = "data/N-MNIST",
        val_fraction: float = 0.1,
        folds: int | None = None,
        fold: int = 0,
        **frame_and_loader_settings: Any,
    ) -> None:
        super().__init__(**frame_and_loader_settings)
        wanted = "0 (no validation) or more, but less than 1"
        check(0 <= val_fraction < 1, "val_fraction", val_fraction, wanted)
        wanted = "2 or more, or null (the official training and test sets)"
        check(folds is None or folds >= 2, "folds", folds, wanted)
        if not 0 <= fold < (folds or 1):
            raise ValueError(
                f"fold={fold}; write 0 to {folds - 1}"
                if folds
                else f"fold={fold}: without folds there is only fold 0; write folds=5, say"
            )
        self.root = Path(root)
        self.val_fraction = val_fraction
        self.folds = folds
        self.fold = fold

    def identity(self) -> dict[str, Any]:
        """The name of the data set and the state of its files."""
        return {"data": self.name, "files": fingerprint(self._files(), self.root)}

    def fingerprint(self) -> str:
        """Return a text that changes when recordings are added, removed or changed."""
        return content_fingerprint(self._files(), self.root)

    def _files(self) -> list[Path]:
        files: list[Path] = []
        for part in PARTS:
            folder, archive = self.root / part, self.root / f"{part}.zip"
            if folder.is_dir():
                files += _recordings_in(folder)
            elif archive.is_file():
                files.append(archive)
            else:
                raise FileNotFoundError(
                    f"{self.name}: no folder {part} and no {part}.zip in {self.root.resolve()}. "
                    f"Get Train.zip and Test.zip from {WHERE}, and put them there; or write "
                    "data.root=FOLDER, the folder where they are"
                )
        return files

    def recordings(self) -> Recordings:
        """All recordings: the training part first, then by class and by file name."""
        names = sorted(
            (name for part in PARTS for name in self._names(part)),
            key=lambda name: (name.startswith("Test"), natural(name), name),
        )
        labels = np.array([int(name.split("/")[1]) for name in names], np.int64)
        is_test = np.array([name.startswith("Test") for name in names], bool)
        return Recordings(labels, is_test, np.arange(len(names)), lambda: self._read(names))

    def split(self, frame_set: FrameSet) -> tuple[Indices, Indices, Indices]:
        """The official split, or that of the fold."""
        labels, is_test = frame_set.labels, frame_set.is_test
        if self.folds is not None:
            is_test = fold_of(labels, self.folds) == self.fold
        rest, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
        train, val = stratified_tail(labels, rest, self.val_fraction)
        if len(train) == 0 or len(test) == 0:
            raise ValueError(
                f"{self.root.resolve()}: {len(labels)} recordings leave {len(train)} to train on "
                f"and {len(test)} to test on; at least one of each is needed"
            )
        return train, val, test

    def _names(self, part: str) -> Iterable[str]:
        """Names such as ``Train/5/00001.bin`` of one part."""
        folder, archive = self.root / part, self.root / f"{part}.zip"
        if folder.is_dir():
            found = [path.relative_to(self.root).as_posix() for path in _recordings_in(folder)]
        else:
            with _open(archive) as file:
                found = list(_members(file, part, archive))
        if not found:
            raise ATISError(
                f"{folder if folder.is_dir() else archive}: expected recordings {part}/0/*.bin to "
                f"{part}/9/*.bin, found none"
            )
        return found

    def _read(self, names: list[str]) -> Iterator[tuple[int, Events]]:
        with ExitStack() as stack:
            archives: dict[str, tuple[zipfile.ZipFile, dict[str, str]]] = {}
            for part in PARTS:
                if not (self.root / part).is_dir():
                    file = stack.enter_context(_open(self.root / f"{part}.zip"))
                    archives[part] = (file, _members(file, part, self.root / f"{part}.zip"))
            for index, name in enumerate(names):
                part = name.split("/")[0]
                if part in archives:
                    file, members = archives[part]
                    source = f"{self.root / part}.zip: {members[name]}"
                    content = _member(file, members[name], source)
                else:
                    source = str(self.root / name)
                    content = _content(self.root / name)
                events = parse_atis(content, source, *self.sensor)
                if len(events) == 0:
                    raise ATISError(
                        f"{source}: holds no event ({len(content)} bytes); get the recording again "
                        f"from {WHERE}, or delete it: any part of the recordings serves"
                    )
                yield index, events


def _recordings_in(folder: Path) -> list[Path]:
    """The recordings of a part, without what others left there."""
    return [path for path in folder.glob("[0-9]/*.bin") if not is_foreign(path.name)]


def _content(path: Path) -> bytes:
    try:
        check_regular(path)
    except ArrayError as error:
        raise ATISError(f"{path}: {error}") from None
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ATISError(f"{path}: {size:,} bytes are no recording of N-MNIST; get it again")
    return path.read_bytes()


def _open(archive: Path) -> zipfile.ZipFile:
    try:
        check_regular(archive)
        return zipfile.ZipFile(archive)
    except Exception as error:  # zipfile raises many kinds on a damaged file
        raise ATISError(
            f"{archive}: not a whole zip file ({reason_of(error)}); it was left as it is; get it "
            f"again from {WHERE}"
        ) from None


def _members(file: zipfile.ZipFile, part: str, archive: Path) -> dict[str, str]:
    """Name such as ``Train/5/00001.bin`` -> name in the zip, which may have folders before it."""
    members: dict[str, str] = {}
    for name in file.namelist():
        match = _RECORDING.fullmatch(name)
        if match is None or match[1] != part or is_foreign(name):
            continue
        short = f"{part}/{match[2]}/{match[3]}.bin"
        if short in members:
            raise ATISError(f"{archive}: holds two recordings {short}; get it again from {WHERE}")
        members[short] = name
    return members


def _member(file: zipfile.ZipFile, name: str, source: str) -> bytes:
    try:
        with open_member(file, file.getinfo(name), MOST_BYTES) as member:
            return member.read()
    except Exception as error:  # zipfile raises many kinds on a damaged file
        raise ATISError(
            f"{source}: damaged ({reason_of(error)}); get the zip again from {WHERE}"
        ) from None
