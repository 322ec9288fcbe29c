"""DVS128 Gesture: eleven gestures of hands and arms, filmed by an event camera."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from qspinn.data.checks import check
from qspinn.data.event_data_module import EventDataModule, Indices
from qspinn.data.events import MAX_DISORDER
from qspinn.data.fingerprint import content_fingerprint
from qspinn.data.frame_set import FrameSet, Recordings, fingerprint
from qspinn.data.gesture_events_np import events_np_recordings
from qspinn.data.gesture_files import (
    ARCHIVE,
    EVENTS_NP,
    FOLDER,
    GestureFiles,
    ReadSettings,
    find_gesture_files,
    official_recordings,
)
from qspinn.data.gesture_labels import NUM_CLASSES

WHERE = "https://ibm.ent.box.com/s/3hiq58ww1pbbjrinh367ykfdf60xsfm8/folder/50167556794"
log = logging.getLogger(__name__)


class DVSGesture(EventDataModule):
    """DVS128 Gesture: 1,176 training and 288 test samples of 11 gestures, 128x128 pixels.

    29 subjects made the gestures in front of a DVS128 under different lights (Amir and others, "A
    low power, fully event-based gesture recognition system", CVPR 2017). The official lists train
    on subjects 1 to 23 and test on 24 to 29.

    Counts differ between libraries. The paper speaks of 1,342 instances. Here, as in SpikingJelly
    and snnTorch, each line of a label file is a sample: 98 and 24 recordings of 12 lines, 1,176 +
    288 = 1,464 samples; "arm roll" (class 8) has two lines per recording. tonic has 1,077 + 264 =
    1,341 samples, from files that its authors have preprocessed (SpikingJelly's documentation of
    ``DVS128Gesture``; tonic, issue 270). Accuracies on the two are not the same quantity.

    Any of these is accepted, under ``root``: the official archive ``DvsGesture.tar.gz`` (also in
    ``root/download``), which is read as it is, twice, wherever frames are made (minutes); the
    extracted folder ``DvsGesture`` (also in ``root/extract``), which is quicker to try many frame
    settings on; or the folder ``events_np`` that SpikingJelly makes. All give the same
    samples in the same order, unless a recording holds events that are marked as not valid:
    SpikingJelly keeps those.

    The validation set is all samples of the last ``val_subjects`` training subjects, for every
    seed: as in the test, the network is validated on unknown subjects.

    Args:
        root: The folder with the files, or the archive or folder itself.
        val_subjects: Training subjects that are held out for validation; 0: none.
        valid_only: Leave out events that are marked as not valid; see :func:`parse_aedat`.
        max_disorder: Largest lateness of an event in microseconds; see :func:`parse_aedat`.
        downsample: ``downsample x downsample`` pixels become one; 4: 32x32.
        **frame_and_loader_settings: See :class:`EventDataModule`.

    Raises:
        ValueError: A setting out of its range.
    """

    name = "dvs_gesture"
    num_classes = NUM_CLASSES
    sensor = (128, 128)
    official_counts: ClassVar[tuple[int, int] | None] = (1176, 288)

    def __init__(
        self,
        root: str | Path = "data/DVS128Gesture",
        val_subjects: int = 3,
        valid_only: bool = True,
        max_disorder: int = MAX_DISORDER,
        downsample: int = 4,
        **frame_and_loader_settings: Any,
    ) -> None:
        super().__init__(downsample=downsample, **frame_and_loader_settings)
        check(val_subjects >= 0, "val_subjects", val_subjects, "0 (no validation) or more")
        check(max_disorder >= 0, "max_disorder", max_disorder, "0 us or more")
        self.root = Path(root)
        self.val_subjects = val_subjects
        self.read_settings = ReadSettings(valid_only, max_disorder)

    def identity(self) -> dict[str, Any]:
        """The name of the data set, the state of its files, and how they are read."""
        files = self._files()
        state = fingerprint(files.files(), files.path.parent)
        return {"data": self.name, "files": state, "form": files.kind, **vars(self.read_settings)}

    def fingerprint(self) -> str:
        """Return a text that changes when recordings, labels or lists do."""
        files = self._files()
        root = files.path.parent if files.path.is_file() else files.path
        return content_fingerprint(files.files(), root)

    def recordings(self) -> Recordings:
        """All samples: the training part first, then by class, recording and time."""
        files = self._files()
        if files.kind == EVENTS_NP:
            return events_np_recordings(files.path, self.sensor, self.read_settings.max_disorder)
        return official_recordings(files, self.read_settings)

    def split(self, frame_set: FrameSet) -> tuple[Indices, Indices, Indices]:
        """The official split, with the last training subjects for validation."""
        counts = (int((~frame_set.is_test).sum()), int(frame_set.is_test.sum()))
        if self.official_counts is not None and self.official_counts != counts:
            log.warning(
                "%s: %d + %d samples in %s; the complete data set has %d + %d",
                *(self.name, *counts, self.root, *self.official_counts),
            )
        subjects = np.unique(frame_set.groups[~frame_set.is_test])
        if self.val_subjects >= len(subjects):
            raise ValueError(
                f"val_subjects={self.val_subjects} leaves no subject to train on: {self.root} has "
                f"{len(subjects)} training subjects; write data.val_subjects="
                f"{max(len(subjects) - 1, 0)} or less"
            )
        held_out = subjects[len(subjects) - self.val_subjects :]
        is_val = ~frame_set.is_test & np.isin(frame_set.groups, held_out)
        return (
            np.flatnonzero(~frame_set.is_test & ~is_val),
            np.flatnonzero(is_val),
            np.flatnonzero(frame_set.is_test),
        )

    def _files(self) -> GestureFiles:
        files = find_gesture_files(self.root)
        if files is None:
            raise FileNotFoundError(
                f"{self.name}: no {ARCHIVE}, no folder {FOLDER} and no folder {EVENTS_NP} in "
                f"{self.root.resolve()}. Download {ARCHIVE} by hand (a browser, 3 GB) from {WHERE} "
                "and put it there; or write data.root=FOLDER, the folder where it is"
            )
        return files
