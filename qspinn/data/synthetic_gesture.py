"""Synthetic gestures: files like those of DVS128 Gesture, made where they are needed."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from qspinn.atomic import atomic_file
from qspinn.data.aedat import write_aedat
from qspinn.data.checks import check
from qspinn.data.dvs_gesture import DVSGesture
from qspinn.data.gesture_labels import COLUMNS, TEST_LIST, TRAIN_LIST, labels_name
from qspinn.data.gesture_recordings import (
    LIGHTS,
    TEST_USERS,
    TRAIN_USERS,
    RecordingSettings,
    record,
)

VERSION = 1
"""Part of the folder's name: grows whenever the same settings would make other recordings."""
PROGRESS_SECONDS = 10.0
log = logging.getLogger(__name__)


class SyntheticGesture(DVSGesture):
    """Simulated recordings of eleven gestures of hands and arms, in the format of DVS128 Gesture.

    **Not real data**: figures from it say something about methods compared on it, and nothing about
    DVS128 Gesture. A simulated event camera (:mod:`qspinn.data.event_camera`) films drawn persons
    (:mod:`qspinn.data.arm_scenes`) who make the gestures of DVS128 Gesture; event rates, polarities
    and their spread over the image are calibrated against real clips.

    The recordings are made once, as files (``userNN_LIGHT.aedat`` in AEDAT 3.1, label files, lists
    of trials) in a folder of ``root`` that is named by all settings they depend on, and then read
    as :class:`DVSGesture` reads the real ones. Each has every gesture once. The default, 79
    recordings with 605 + 264 samples, takes one to two minutes on one core and 0.6 GB. Jobs that
    start at the same time share the work; one that was interrupted is continued.

    As in the real set, subjects 1 to 23 are trained on and 24 to 29 tested on; a subject keeps the
    body, and changes place and clothes from recording to recording. Clockwise and
    counter-clockwise circles differ in the order of events alone.

    The same settings make the same recordings; on another processor, logarithms rounded otherwise
    may move a few events by a microsecond.

    Args:
        root: The folder in which the folder of the recordings is made.
        difficulty: 0 (everybody stands at the same place and moves alike) to 1.
        train_recordings: Recordings of 11 samples to train on, 1 to 115 (23 subjects, 5 lights).
        test_recordings: Recordings to test on, 1 to 30 (6 subjects, 5 lights).
        shortest: Milliseconds of the shortest sample.
        longest: Milliseconds of the longest.
        data_seed: Of everything random in the recordings. It is not the seed of the run: all runs
            learn from the same recordings.
        **settings: See :class:`DVSGesture`.

    Raises:
        ValueError: A setting out of its range.
    """

    name = "synthetic_gesture"
    official_counts = None

    def __init__(
        self,
        root: str | Path = "data",
        difficulty: float = 0.5,
        train_recordings: int = 55,
        test_recordings: int = 24,
        shortest: int = 600,
        longest: int = 1000,
        data_seed: int = 0,
        **settings: Any,
    ) -> None:
        self.recording_settings = RecordingSettings(difficulty, shortest, longest, seed=data_seed)
        self.trials = {
            name: plan_trials(users, count, argument)
            for name, users, count, argument in (
                (TRAIN_LIST, TRAIN_USERS, train_recordings, "train_recordings"),
                (TEST_LIST, TEST_USERS, test_recordings, "test_recordings"),
            )
        }
        super().__init__(Path(root) / folder_name(self.trials, self.recording_settings), **settings)

    def fingerprint(self) -> str:
        """Return a text that changes when the settings of the recordings do, or a file's size.

        The folder's name is made of the settings; what they make is the same everywhere.
        """
        sizes = sorted((path.name, path.stat().st_size) for path in self._files().files())
        digest = hashlib.sha256(json.dumps([self.root.name, sizes]).encode())
        return f"settings-{digest.hexdigest()}"

    def prepare_data(self) -> None:
        """Makes the recordings that are not there yet."""
        make_recordings(self.root, self.trials, self.recording_settings)

    def load_datasets(self) -> Any:
        """Makes the recordings where needed; takes or makes the frames, and splits them."""
        self.prepare_data()
        return super().load_datasets()


Trials = list[tuple[int, str]]
"""Users and lights."""


def plan_trials(users: Sequence[int], count: int, argument: str = "count") -> Trials:
    """Whom to record in which light: each user once, then each in another light, and so on.

    Raises:
        ValueError: No recordings, or more than users have lights; names the argument.
    """
    lights = list(LIGHTS)
    pairs = [
        (user, lights[(index + turn) % len(lights)])
        for turn in range(len(lights))
        for index, user in enumerate(users)
    ]
    wanted = f"1 to {len(pairs)} ({len(users)} users, {len(lights)} lights each)"
    check(1 <= count <= len(pairs), argument, count, wanted)
    return pairs[:count]


def folder_name(trials: dict[str, Trials], settings: RecordingSettings) -> str:
    """A name that differs wherever recordings do."""
    text = json.dumps([VERSION, trials, asdict(settings)], sort_keys=True)
    return f"synthetic_gesture-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def trial_name(user: int, light: str) -> str:
    """Name of a recording without its ending."""
    return f"user{user:02d}_{light}"


def make_recordings(folder: Path, trials: dict[str, Trials], settings: RecordingSettings) -> None:
    """Makes the files of a data set, those that are not there yet.

    Every file appears complete or not at all, and is not written again once it is there; a file
    depends on the settings alone, and the list of what to train on comes last. So jobs that run at
    the same time share the work, each in an order of its own, and readers find all or nothing.

    Args:
        folder: Where; it holds one data set.
        trials: Name of a list of trials -> its users and lights.
        settings: How they are recorded.
    """
    if (folder / TRAIN_LIST).is_file():
        return
    wanted = [trial for name in trials for trial in trials[name]]
    order = np.random.default_rng(uuid.uuid4().int).permutation(len(wanted))
    log.info("synthetic_gesture: makes %d recordings, once, in %s", len(wanted), folder)
    started = said = time.monotonic()
    for done, (user, light) in enumerate((wanted[index] for index in order), start=1):
        path = folder / f"{trial_name(user, light)}.aedat"
        if not path.is_file():
            _make_recording(path, user, light, settings)
        now = time.monotonic()
        if now - said >= PROGRESS_SECONDS or done == len(wanted):
            said = now
            log.info(
                "synthetic_gesture: %d of %d recordings, %.0f s", done, len(wanted), now - started
            )
    for name in (TEST_LIST, TRAIN_LIST):
        lines = [f"{trial_name(*trial)}.aedat" for trial in sorted(trials[name])]
        _write_once(folder / name, lines)


def _make_recording(path: Path, user: int, light: str, settings: RecordingSettings) -> None:
    recording = record(user, light, settings)
    rows = [",".join(COLUMNS), *(",".join(map(str, row)) for row in recording.labels.tolist())]
    _write_once(path.with_name(labels_name(path.stem)), rows)
    if not path.is_file():  # another job may have made it meanwhile
        write_aedat(path, recording.events)


def _write_once(path: Path, lines: Iterable[str]) -> None:
    if not path.is_file():
        with atomic_file(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines), "utf-8", newline="\n")
