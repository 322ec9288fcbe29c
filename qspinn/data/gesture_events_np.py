"""The samples that SpikingJelly cuts from DVS128 Gesture, ``events_np/{train,test}/{0..10}``."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qspinn.data.arrays import ArrayError, read_arrays
from qspinn.data.events import Events, ordered_events
from qspinn.data.frame_set import Recordings
from qspinn.data.gesture_files import GestureFilesError, Sample, listed, npz_files
from qspinn.data.gesture_labels import LATEST, NUM_CLASSES

log = logging.getLogger(__name__)
_FILE = re.compile(r"(user[0-9]{1,9}_.+)_([0-9]{1,9})\.npz")


def events_np_recordings(folder: Path, sensor: tuple[int, int], max_disorder: int) -> Recordings:
    """The samples of an ``events_np`` folder.

    Classes are folders named 0 to 10, and count as numbers, not as texts; files are named
    ``RECORDING_PART.npz`` and hold arrays ``t``, ``x``, ``y`` and ``p``.

    Args:
        folder: Holds ``train`` and ``test``.
        sensor: ``(height, width)``.
        max_disorder: Largest lateness of an event in microseconds.

    Raises:
        GestureFilesError: A class without a file, a file of another name; while reading, a file
            that is damaged or holds something else.
    """
    paths: dict[Sample, Path] = {}
    for part in ("train", "test"):
        found = npz_files(folder / part)
        for label in range(NUM_CLASSES):
            files = [path for path in found if path.parent.name == str(label)]
            if not files:
                raise GestureFilesError(
                    f"{folder / part / str(label)}: expected samples *.npz, found none: the "
                    "folder is not complete"
                )
            for path in files:
                match = _FILE.fullmatch(path.name)
                if match is None:
                    raise GestureFilesError(
                        f"{path}: expected a name such as user01_fluorescent_0.npz"
                    )
                sample = Sample(part == "test", label, match[1], int(match[2]))
                if sample in paths:
                    raise GestureFilesError(
                        f"{path}: the same sample as {paths[sample].name}; delete one of them"
                    )
                paths[sample] = path
    order = sorted(paths, key=lambda sample: sample.key)

    def read() -> Iterator[tuple[int, Events]]:
        for index, sample in enumerate(order):
            yield index, _read_sample(paths[sample], sensor, max_disorder)

    return listed(order, read)


def _read_sample(path: Path, sensor: tuple[int, int], max_disorder: int) -> Events:
    try:
        arrays = read_arrays(path, Events.TYPES)
    except ArrayError as error:
        raise GestureFilesError(
            f"{path}: {error}. Expected arrays t, x, y and p; cut the sample again, or get it again"
        ) from None
    converted = {name: _converted(arrays[name], name, path) for name in Events.TYPES}
    if all(len(array) == 0 for array in arrays.values()):
        log.warning(
            "%s holds no event: its sample is empty frames; delete the file to leave it out", path
        )
    try:
        return ordered_events(**converted, size=sensor, max_disorder=max_disorder)
    except ValueError as error:
        raise GestureFilesError(f"{path}: {error}") from None


def _converted(array: npt.NDArray[Any], name: str, path: Path) -> npt.NDArray[Any]:
    dtype = Events.TYPES[name]
    if array.ndim != 1 or array.dtype.kind not in "biu":
        raise GestureFilesError(
            f"{path}: expected whole numbers {name} [E], found {array.dtype} {list(array.shape)}"
        )
    latest = LATEST if name == "t" else np.iinfo(dtype).max  # type: ignore[type-var]
    if len(array) and not (int(array.min()) >= 0 and int(array.max()) <= latest):
        raise GestureFilesError(
            f"{path}: expected {name} of 0 to {latest}, found {array.min()} to {array.max()}"
        )
    return array.astype(dtype)
