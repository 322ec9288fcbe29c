"""Synthetic gestures: the same files from the same settings, read as the real ones are."""

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spikingjelly.datasets import utils as spikingjelly

from qspinn.data import DVSGesture, SyntheticGesture
from qspinn.data.gesture_recordings import (
    LIGHTS,
    MARGIN,
    TEST_USERS,
    TRAIN_USERS,
    RecordingSettings,
    record,
)
from qspinn.data.synthetic_gesture import plan_trials

TINY = {"train_recordings": 2, "test_recordings": 1, "shortest": 40, "longest": 60}
SHORT = RecordingSettings(shortest=40, longest=60)


def module(root: Path, **settings: Any) -> SyntheticGesture:
    given = {"cache": None, "val_subjects": 1, "time_steps": 3, **TINY, **settings}
    return SyntheticGesture(root, **given)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    module(folder).prepare_data()
    return folder


def state_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.iterdir())
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {name: content for name, (content, _) in state_of(folder).items()}


def test_a_recording_has_each_gesture_once_in_its_time() -> None:
    recording = record(3, "led", SHORT)

    assert recording.labels[:, 0].tolist() == list(range(1, 12))
    start, stop = recording.labels[:, 1], recording.labels[:, 2]
    assert ((stop - start >= 40_000) & (stop - start <= 60_000)).all()
    assert (start[1:] - stop[:-1] == 2 * MARGIN + 1).all()
    for begin, end in zip(start, stop, strict=True):
        assert len(recording.events.between(begin, end)) > 200
        assert len(recording.events.between(end, end + MARGIN)) > 20
    assert (recording.events.height, recording.events.width) == (128, 128)


def test_a_recording_follows_from_its_settings_alone() -> None:
    one, same = (record(3, "led", SHORT) for _ in range(2))
    others = (
        record(4, "led", SHORT),
        record(3, "lab", SHORT),
        record(3, "led", RecordingSettings(shortest=40, longest=60, seed=1)),
        record(3, "led", RecordingSettings(0.4, shortest=40, longest=60)),
    )

    np.testing.assert_array_equal(one.events.t, same.events.t)
    np.testing.assert_array_equal(one.events.x, same.events.x)
    np.testing.assert_array_equal(one.labels, same.labels)
    for other in others:
        assert not np.array_equal(one.events.t, other.events.t)


def test_nobody_is_both_trained_on_and_tested_on() -> None:
    train, test = plan_trials(TRAIN_USERS, 115), plan_trials(TEST_USERS, 30)

    assert not {user for user, _ in train} & {user for user, _ in test}
    assert len(set(train)) == 115
    assert len(set(test)) == 30
    assert [user for user, _ in train[:23]] == list(TRAIN_USERS)
    assert {light for _, light in train[:5]} == set(LIGHTS)


def test_the_files_are_those_of_the_real_set(root: Path) -> None:
    data = module(root)
    folder = data.root

    first, second = (
        f"user{user:02d}_{light}" for user, light in data.trials["trials_to_train.txt"]
    )
    assert (folder / "trials_to_train.txt").read_text() == f"{first}.aedat\n{second}.aedat\n"
    assert (folder / "trials_to_test.txt").read_text().startswith("user24_")
    assert len(list(folder.iterdir())) == 2 * 3 + 2
    lines = (folder / f"{first}_labels.csv").read_text().splitlines()
    assert lines[0] == "class,startTime_usec,endTime_usec"
    assert [int(line.split(",")[0]) for line in lines[1:]] == list(range(1, 12))


def test_spikingjelly_reads_the_events_that_were_recorded(root: Path) -> None:
    data = module(root)
    user, light = data.trials["trials_to_train.txt"][0]

    read = spikingjelly.load_aedat_v3(str(data.root / f"user{user:02d}_{light}.aedat"))

    events = record(user, light, data.recording_settings).events
    for name in "txyp":
        np.testing.assert_array_equal(read[name], getattr(events, name))


def test_the_module_reads_what_the_module_of_the_real_set_reads(root: Path) -> None:
    synthetic = module(root)
    real = DVSGesture(synthetic.root, cache=None, val_subjects=1, time_steps=3)
    for data in (synthetic, real):
        data.prepare_data()
        data.setup()

    for part, size in (("train", 11), ("val", 11), ("test", 11)):
        ours, theirs = (getattr(data, f"{part}_dataset") for data in (synthetic, real))
        assert len(ours) == size
        assert sorted(ours.labels.tolist()) == list(range(11))
        for index in range(size):
            np.testing.assert_array_equal(ours[index][0], theirs[index][0])
    frames, labels = next(iter(synthetic.train_dataloader()))
    assert frames.shape == (11, 3, 2, 32, 32)
    assert labels.max() == 10
    assert (synthetic.name, synthetic.num_classes) == ("synthetic_gesture", 11)


def test_setup_alone_makes_the_files(tmp_path: Path) -> None:
    data = module(tmp_path, train_recordings=1, val_subjects=0)

    data.setup()

    assert len(data.test_dataset) == 11


def test_what_is_there_stays_and_what_is_missing_is_made(root: Path, tmp_path: Path) -> None:
    complete = module(root)
    before = state_of(complete.root)
    complete.prepare_data()
    assert state_of(complete.root) == before

    interrupted = module(tmp_path)
    interrupted.prepare_data()
    lost = next(interrupted.root.glob("*.aedat"))
    for path in (lost, interrupted.root / "trials_to_train.txt"):
        path.unlink()
    kept = state_of(interrupted.root)
    interrupted.prepare_data()

    after = state_of(interrupted.root)
    assert {name: after[name] for name in kept} == kept
    assert contents(interrupted.root) == contents(complete.root)


def test_jobs_at_the_same_time_make_one_set(root: Path, tmp_path: Path) -> None:
    failures = []

    def job() -> None:
        try:
            module(tmp_path).prepare_data()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=job) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failures
    assert contents(module(tmp_path).root) == contents(module(root).root)


def test_other_settings_have_another_folder(root: Path) -> None:
    folder = module(root).root
    changes = ({"difficulty": 0.6}, {"longest": 61}, {"data_seed": 1}, {"test_recordings": 2})

    folders = {module(root, **change).root for change in changes}

    assert len(folders | {folder}) == 5
    # How the files are read changes nothing about them.
    assert module(root, time_steps=7, downsample=2).root == folder


def test_progress_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        module(tmp_path).prepare_data()

    assert "makes 3 recordings, once, in" in caplog.text
    assert "3 of 3 recordings" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"difficulty": 1.1}, r"difficulty=1.1; write 0 \(easy\) to 1"),
        ({"train_recordings": 0}, r"train_recordings=0; write 1 to 115"),
        ({"test_recordings": 31}, r"test_recordings=31; write 1 to 30 \(6 users, 5 lights"),
        ({"shortest": 70}, "shortest=70, longest=60; write milliseconds"),
        ({"data_seed": -1}, "seed=-1; write 0 or more"),
        ({"val_subjects": -1}, "val_subjects=-1; write 0"),
    ],
)
def test_wrong_settings(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(tmp_path, **settings)
