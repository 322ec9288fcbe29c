"""Frames of counts of many recordings: made once, kept in a file, read from many jobs."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qspinn.atomic import write_once_folder
from qspinn.data.arrays import read_array, reason_of
from qspinn.data.checks import check
from qspinn.data.events import INTEGRATIONS, Events, downsample, integrate
from qspinn.data.fingerprint import FRAMES, SMALL_FILES, check_digests, write_digests
from qspinn.data.tensor_dataset import BatchDataset

CACHE_VERSION = 3
"""Part of the key of each cache: grows whenever the same files would make other frames."""

LARGEST_COUNT = 65535
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrameSettings:
    """How a recording becomes frames.

    Args:
        time_steps: Frames T.
        by: ``count``: frames of equally many events; ``time``: of equal duration.
        downsample: ``downsample x downsample`` pixels become one.
        duration: Only so many microseconds from the first event on count; None: all.

    Raises:
        ValueError: A value out of its range.
    """

    time_steps: int = 16
    by: str = "count"
    downsample: int = 1
    duration: int | None = None

    def __post_init__(self) -> None:
        check(self.by in INTEGRATIONS, "by", self.by, f"one of {', '.join(INTEGRATIONS)}")
        for name in ("time_steps", "downsample", "duration"):
            value = getattr(self, name)
            check(value is None or value >= 1, name, value, "1 or more")

    def shape(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Of the frames of a sensor: ``(T, 2, H, W)``."""
        return (
            self.time_steps,
            2,
            -(-height // self.downsample),
            -(-width // self.downsample),
        )

    def frames(self, events: Events) -> npt.NDArray[np.int32]:
        """The frames ``[T, 2, H, W]`` of a recording; without an event, they are zeros."""
        if self.duration is not None and len(events):
            start = int(events.t[0])
            events = events.between(start, start + self.duration)
        duration = self.duration if self.by == "time" else None
        return integrate(
            downsample(events, self.downsample), self.time_steps, self.by, duration=duration
        )


@dataclass(frozen=True, eq=False)
class Columns:
    """What is known of each recording of a data set.

    Args:
        labels: ``int64`` ``[M]``.
        is_test: ``bool`` ``[M]``, whether the official split tests on it.
        groups: ``int64`` ``[M]``, what must not be split, such as the subject.
    """

    labels: npt.NDArray[np.int64]
    is_test: npt.NDArray[np.bool_]
    groups: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        for name, dtype in (("labels", np.int64), ("is_test", np.bool_), ("groups", np.int64)):
            array = getattr(self, name)
            if array.dtype != dtype or array.shape != (self.labels.size,):
                raise ValueError(
                    f"{name} are {array.dtype} {list(array.shape)}; write {np.dtype(dtype)} "
                    f"[{self.labels.size}], one per recording"
                )
        if self.labels.min(initial=0) < 0:
            raise ValueError(f"label {self.labels.min()}; write classes from 0 on")


@dataclass(frozen=True, eq=False)
class FrameSet(Columns):
    """Frames of counts of all recordings of a data set.

    Args:
        frames: ``uint16`` ``[M, T, 2, H, W]``, perhaps memory-mapped; channel 0 OFF, 1 ON.
    """

    frames: npt.NDArray[np.uint16]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frames.dtype != np.uint16 or len(self.frames) != len(self.labels):
            raise ValueError(
                f"frames are {self.frames.dtype} {list(self.frames.shape)}, with "
                f"{len(self.labels)} labels; write uint16, one row per label"
            )


@dataclass(frozen=True, eq=False)
class Recordings(Columns):
    """Recordings that are yet to be read.

    Args:
        read: Gives each recording once, in any order, with its index.
    """

    read: Callable[[], Iterable[tuple[int, Events]]]


class FrameDataset(BatchDataset):
    """Some recordings of a :class:`FrameSet`; samples are counts ``float32`` ``[T, 2, H, W]``.

    Args:
        frame_set: All recordings; shared, not copied.
        indices: ``int64`` ``[M]``, which of them.
        max_count: Larger counts become this one (1: an event or none); None: none does.

    Raises:
        ValueError: ``max_count`` is below 1.
    """

    def __init__(
        self, frame_set: FrameSet, indices: npt.NDArray[np.int64], max_count: int | None = None
    ) -> None:
        check_max_count(max_count)
        super().__init__(torch.from_numpy(frame_set.labels[indices]))
        self.frames = frame_set.frames
        self.indices = indices
        self.max_count = max_count

    def fetch(self, order: Tensor) -> Tensor:
        """Counts ``[B, T, 2, H, W]``: whole numbers."""
        counts = self.frames[self.indices[order.numpy()]]
        if self.max_count is not None:
            counts = np.minimum(counts, min(self.max_count, LARGEST_COUNT))
        return torch.from_numpy(counts.astype(np.float32))


def check_max_count(max_count: int | None) -> None:
    """Refuses a largest count below 1."""
    wanted = "1 (an event or none) or more, or null (all count)"
    check(max_count is None or max_count >= 1, "max_count", max_count, wanted)


def load_frame_set(
    cache: str | Path | None,
    identity: Mapping[str, Any],
    settings: FrameSettings,
    sensor: tuple[int, int],
    recordings: Callable[[], Recordings],
) -> FrameSet:
    """Takes the frames from the cache, or makes them and puts them there.

    A cache is a folder named by all that its frames depend on; it is renamed into place when it is
    complete, and never written again. So parallel jobs need no lock: if several make the same
    frames, the first one's stay. Frames from a cache are memory-mapped.

    Args:
        cache: The folder of all caches; None: make the frames in memory, without caching them.
        identity: The data set, its files, and how they are read: plain types.
        settings: How recordings become frames.
        sensor: ``(height, width)`` of the recordings.
        recordings: Finds the recordings; only called where there is no cache.

    Raises:
        ValueError: A cache that cannot be written or was changed by hand, or a count too large.
    """
    if cache is None:
        found = recordings()
        frames = np.zeros((len(found.labels), *settings.shape(*sensor)), np.uint16)
        _fill(frames, found, settings)
        return FrameSet(found.labels, found.is_test, found.groups, frames)
    key = {"version": CACHE_VERSION, **identity, **vars(settings), "sensor": list(sensor)}
    text = json.dumps(key, sort_keys=True, indent=2) + "\n"
    name = f"{identity['data']}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    folder = Path(cache) / name
    if not folder.is_dir():
        if os.path.lexists(folder):
            raise ValueError(
                f"{folder}: expected a folder of frames, found something else; delete it"
            )
        _check_writable(Path(cache))
        log.info("%s: makes frames, once, in %s", identity["data"], folder)
        with write_once_folder(folder) as temporary:
            _write(temporary, text, recordings(), settings, sensor)
    return _open(folder, text, settings.shape(*sensor))


def fingerprint(files: Iterable[Path], root: Path) -> str:
    """A text that changes when a file is added, removed, renamed, replaced or changed.

    It is made of names, sizes and times of change; nothing is read.
    """
    lines = []
    for path in files:
        status = path.stat()
        name = path.relative_to(root).as_posix()
        lines.append(f"{name} {status.st_size} {status.st_mtime_ns}\n")
    text = "".join(sorted(lines))
    return hashlib.sha256(os.fsencode(text)).hexdigest()  # a name may be no UTF-8


def _check_writable(cache: Path) -> None:
    """Check that the cache can be written to, before minutes of work."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        reason = None if os.access(cache, os.W_OK | os.X_OK) else "no permission"
    except OSError as error:
        reason = error.strerror
    if reason:
        raise ValueError(
            f"cache={cache}: frames cannot be written there ({reason}); write data.cache=FOLDER, a "
            "folder that may be written to, or data.cache=null (frames are made for each run)"
        )


def _fill(frames: npt.NDArray[np.uint16], found: Recordings, settings: FrameSettings) -> None:
    missing = np.ones(len(frames), bool)
    for index, events in found.read():
        counts = settings.frames(events)
        if counts.max(initial=0) > LARGEST_COUNT:
            raise ValueError(
                f"recording {index}: {counts.max()} events of a pixel in one frame; at most "
                f"{LARGEST_COUNT} fit; write more time_steps, or a smaller downsample or duration"
            )
        frames[index] = counts
        missing[index] = False
    if missing.any():
        raise ValueError(f"{missing.sum()} of {len(frames)} recordings were not read")


def _write(
    folder: Path,
    text: str,
    found: Recordings,
    settings: FrameSettings,
    sensor: tuple[int, int],
) -> None:
    shape = (len(found.labels), *settings.shape(*sensor))
    frames = np.lib.format.open_memmap(folder / "frames.npy", "w+", np.uint16, shape)
    _fill(frames, found, settings)
    frames.flush()
    np.save(folder / "labels.npy", found.labels)
    np.save(folder / "is_test.npy", found.is_test)
    np.save(folder / "groups.npy", found.groups)
    (folder / "settings.json").write_text(text, encoding="utf-8", newline="\n")
    write_digests(folder)


def _open(folder: Path, text: str, shape: tuple[int, ...]) -> FrameSet:
    try:
        check_digests(folder, text)
        labels, is_test, groups = (read_array(folder / name) for name in SMALL_FILES[1:])
        frames = np.load(folder / FRAMES, mmap_mode="r", allow_pickle=False)
        if frames.shape != (len(labels), *shape):
            raise ValueError(f"frames.npy is {frames.dtype} {frames.shape}")
        return FrameSet(labels, is_test, groups, frames)
    except (PermissionError, MemoryError) as error:  # the files may be intact
        raise ValueError(
            f"{folder}: this cache of frames cannot be read ({reason_of(error)}); write "
            "data.cache=FOLDER, another folder, or make it readable"
        ) from None
    except Exception as error:  # NumPy and JSON raise many kinds on damaged files
        reason = error if isinstance(error, ValueError) else reason_of(error)
        raise ValueError(
            f"{folder}: this cache of frames was damaged ({reason}); delete the folder, and its "
            "frames are made again"
        ) from None
