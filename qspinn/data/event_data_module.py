"""The LightningDataModule that all event data sets here share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from qspinn.data.frame_set import (
    FrameDataset,
    FrameSet,
    FrameSettings,
    Recordings,
    check_max_count,
    load_frame_set,
)
from qspinn.data.image_data_module import ImageDataModule
from qspinn.data.tensor_dataset import BatchDataset

Indices = npt.NDArray[np.int64]


class EventDataModule(ImageDataModule):
    """Loaders over frames of counts; a subclass says which recordings, and how they are split.

    Batches are ``(frames, labels)``: float32 ``[N, T, 2, H, W]``, whole numbers of events (channel
    0 OFF, channel 1 ON), and int64 ``[N]``. The batch comes first, as in all batches here; networks
    loop over the T frames of each sample. Everything else, chance too, is as in
    :class:`ImageDataModule`; a random shift moves all frames of a sample together.

    Frames are made once and kept in ``cache``: see :func:`load_frame_set`.

    A subclass sets ``name``, ``num_classes`` and ``sensor`` and implements :meth:`identity`,
    :meth:`recordings` and :meth:`split`.

    Args:
        time_steps: Frames T of each recording.
        by: ``count``: frames of equally many events; ``time``: of equal duration.
        downsample: ``downsample x downsample`` pixels become one.
        duration: Only so many microseconds from the first event of a recording on; None: all.
        max_count: Counts above become this one (1: an event or none); None: none does.
        cache: The folder of frames that are made already; what lies there may be deleted at any
            time. None: make frames for this run alone, in memory.
        **loader_settings: ``batch_size``, ``eval_batch_size``, ``num_workers``, ``max_shift``; see
            :class:`ImageDataModule`.

    Raises:
        ValueError: A setting out of its range.
    """

    sensor: ClassVar[tuple[int, int]]

    def __init__(
        self,
        time_steps: int = 16,
        by: str = "count",
        downsample: int = 1,
        duration: int | None = None,
        max_count: int | None = None,
        cache: str | Path | None = "data/cache",
        **loader_settings: Any,
    ) -> None:
        self.frame_settings = FrameSettings(time_steps, by, downsample, duration)
        self.time_steps, *shape = self.frame_settings.shape(*self.sensor)
        self.input_shape = (shape[0], shape[1], shape[2])
        check_max_count(max_count)
        super().__init__(**loader_settings)
        self.max_count = max_count
        self.cache = cache

    def identity(self) -> Mapping[str, Any]:
        """What the frames depend on in addition to the frame settings, as plain types.

        ``data`` is the name of the data set; the others are its files and how they are read.

        Raises:
            FileNotFoundError: There are no files; the message says how to get them.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement identity")

    def fingerprint(self) -> str:
        """Return a text that changes when the data do: here when :meth:`identity` does.

        Runs share and resume a training only on data with the same fingerprint.
        """
        text = json.dumps(self.identity(), sort_keys=True, default=str)
        return f"files-{hashlib.sha256(text.encode()).hexdigest()}"

    def recordings(self) -> Recordings:
        """Finds the recordings; called if their frames are not in the cache."""
        raise NotImplementedError(f"{type(self).__name__} must implement recordings")

    def split(self, frame_set: FrameSet) -> tuple[Indices, Indices, Indices]:
        """Indices of the training, validation and test set."""
        raise NotImplementedError(f"{type(self).__name__} must implement split")

    def prepare_data(self) -> None:
        """Raises an error if files are missing."""
        self.identity()

    def load_datasets(self) -> tuple[BatchDataset, BatchDataset, BatchDataset]:
        """Takes or makes the frames, and splits them."""
        frame_set = load_frame_set(
            self.cache, self.identity(), self.frame_settings, self.sensor, self.recordings
        )
        train, val, test = (
            FrameDataset(frame_set, indices, self.max_count) for indices in self.split(frame_set)
        )
        return train, val, test
