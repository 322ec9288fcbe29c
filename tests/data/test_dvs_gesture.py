"""DVS128 Gesture in its official format, end to end: counts, labels, frames; what may be wrong."""

import logging
import shutil
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from spikingjelly.datasets.dvs128_gesture import DVS128Gesture

from qspinn.data import DVSGesture, GestureFilesError, GestureLabelError
from qspinn.data import frame_set as frame_module
from tests.data.gestures import (
    TEST,
    TRAIN,
    expected_samples,
    frames_by_count,
    official_files,
    write_archive,
    write_folder,
)
from tests.reference.aedat import HEADER, polarity_packet

FILES = official_files()


@pytest.fixture
def archive_root(tmp_path: Path) -> Path:
    write_archive(tmp_path / "root" / "DvsGesture.tar.gz", FILES)
    return tmp_path / "root"


@pytest.fixture
def folder_root(tmp_path: Path) -> Path:
    write_folder(tmp_path / "root" / "DvsGesture", FILES)
    return tmp_path / "root"


def ready(root: Path, **settings: Any) -> DVSGesture:
    module = DVSGesture(
        root, **{"cache": None, "val_subjects": 1, "time_steps": 4, "batch_size": 5, **settings}
    )
    module.prepare_data()
    module.setup()
    return module


def all_of(loader: Any) -> tuple[torch.Tensor, torch.Tensor]:
    batches = list(loader)
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def write_events_np(folder: Path) -> Path:
    """Two samples per class and part, as SpikingJelly cuts them."""
    for part in ("train", "test"):
        for label in range(11):
            (folder / part / str(label)).mkdir(parents=True)
            for name in ("user01_lab", "user02_lab"):
                path = folder / part / str(label) / f"{name}_0.npz"
                np.savez(path, t=[label, label], x=[1, 2], y=[3, 4], p=[0, 1])
    return folder


def state_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_official_archive_from_end_to_end(archive_root: Path) -> None:
    before = state_of(archive_root)
    module = ready(archive_root, val_subjects=0)

    assert module.input_shape == (2, 32, 32)
    assert (module.time_steps, module.num_classes, module.name) == (4, 11, "dvs_gesture")
    for dataset, names in ((module.train_dataset, TRAIN), (module.test_dataset, TEST)):
        expected = expected_samples(names)
        assert len(dataset) == len(expected) == 12 * len(names)
        assert dataset.labels.tolist() == [label for label, _, _ in expected]
        for index, (label, _, events) in enumerate(expected):
            frames, given = dataset[index]
            assert given == label
            np.testing.assert_array_equal(frames, frames_by_count(events, 4, 4))
    assert state_of(archive_root) == before

    frames, labels = all_of(module.test_dataloader())
    assert frames.dtype == torch.float32
    assert frames.shape == (24, 4, 2, 32, 32)
    assert labels.tolist() == sorted(labels.tolist())
    assert labels[-4:].tolist() == [9, 9, 10, 10]
    assert torch.bincount(labels).tolist() == [2, 2, 2, 2, 2, 2, 2, 4, 2, 2, 2]


@pytest.mark.parametrize("settings", [{}, {"by": "time"}, {"by": "time", "duration": 1500}])
def test_all_forms_make_the_same_frames(tmp_path: Path, settings: dict[str, Any]) -> None:
    write_archive(tmp_path / "archive" / "download" / "DvsGesture.tar.gz", FILES)
    write_folder(tmp_path / "folder" / "extract" / "DvsGesture", FILES)
    (tmp_path / "cut" / "events_np").mkdir(parents=True)
    DVS128Gesture.create_raw_from_extracted(
        tmp_path / "folder" / "extract", tmp_path / "cut" / "events_np"
    )

    modules = [
        ready(tmp_path / root, downsample=2, **settings) for root in ("archive", "folder", "cut")
    ]

    for name in ("train", "val", "test"):
        first, *others = (getattr(module, f"{name}_dataset") for module in modules)
        frames = first.frames[first.indices]
        assert frames.sum() > 0
        for other in others:
            assert torch.equal(other.labels, first.labels)
            np.testing.assert_array_equal(other.frames[other.indices], frames)


def test_the_files_may_be_named_themselves(folder_root: Path, archive_root: Path) -> None:
    for path in (folder_root / "DvsGesture", archive_root / "DvsGesture.tar.gz"):
        assert len(ready(path).test_dataset) == 24


def test_the_last_training_subjects_validate(folder_root: Path) -> None:
    module = ready(folder_root, val_subjects=2)

    expected = expected_samples(TRAIN)
    held_out = [sample for sample in expected if sample[1] in (9, 10)]
    assert len(module.val_dataset) == len(held_out) == 24
    assert len(module.train_dataset) == 36
    for (frames, label), (expected_label, _, events) in zip(
        (module.val_dataset[k] for k in range(24)), held_out, strict=True
    ):
        assert label == expected_label
        np.testing.assert_array_equal(frames, frames_by_count(events, 4, 4))


def test_without_validation(folder_root: Path) -> None:
    assert ready(folder_root, val_subjects=0).val_dataloader() == []


def test_counts_can_be_bounded(folder_root: Path) -> None:
    plain = ready(folder_root, time_steps=1, downsample=64).test_dataset
    bounded = ready(folder_root, time_steps=1, downsample=64, max_count=2).test_dataset

    assert plain[0][0].max() > 2
    assert torch.equal(bounded[0][0], plain[0][0].clamp(max=2))


def test_training_samples_are_shifted_as_a_whole(folder_root: Path) -> None:
    module = ready(folder_root, max_shift=2)
    frames = torch.zeros(3, 4, 2, 32, 32)
    frames[:, :, :, 10, 10] = 1
    module.trainer = type("Trainer", (), {"training": True})()  # type: ignore[assignment]
    torch.manual_seed(0)

    moved, _ = module.on_after_batch_transfer((frames, torch.zeros(3)), 0)

    places = moved.flatten(-2).argmax(-1).flatten(1)
    assert (places == places[:, :1]).all()
    assert len({int(place) for place in places[:, 0]} | {330}) > 1


class TestTheCache:
    def test_frames_are_made_once_and_read_again(
        self, archive_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = tmp_path / "cache"
        first = ready(archive_root, cache=cache)
        monkeypatch.setattr(DVSGesture, "recordings", lambda self: pytest.fail("made again"))

        second = ready(archive_root, cache=cache)

        assert isinstance(second.test_dataset.frames, np.memmap)
        for name in ("train", "val", "test"):
            mine, theirs = (getattr(module, f"{name}_dataset") for module in (first, second))
            assert torch.equal(mine.labels, theirs.labels)
            np.testing.assert_array_equal(mine.frames[mine.indices], theirs.frames[theirs.indices])
        assert [path.name[:12] for path in cache.iterdir()] == ["dvs_gesture-"]

    @pytest.mark.parametrize(
        "change",
        [
            {"time_steps": 5},
            {"by": "time"},
            {"downsample": 8},
            {"duration": 1000},
            {"valid_only": False},
            {"max_disorder": 5},
        ],
    )
    def test_every_setting_that_matters_is_part_of_the_key(
        self, folder_root: Path, tmp_path: Path, change: dict[str, Any]
    ) -> None:
        cache = tmp_path / "cache"
        ready(folder_root, cache=cache)
        ready(folder_root, cache=cache, val_subjects=2, max_count=1, batch_size=9, max_shift=1)
        assert len(list(cache.iterdir())) == 1

        ready(folder_root, cache=cache, **change)

        assert len(list(cache.iterdir())) == 2

    def test_other_files_and_another_version_make_other_frames(
        self, folder_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = tmp_path / "cache"
        ready(folder_root, cache=cache)
        labels = folder_root / "DvsGesture" / "user24_led_labels.csv"
        labels.write_text("".join(labels.read_text().splitlines(keepends=True)[:-1]))
        assert len(ready(folder_root, cache=cache).test_dataset) == 23

        monkeypatch.setattr(frame_module, "CACHE_VERSION", 99)
        ready(folder_root, cache=cache)

        assert len(list(cache.iterdir())) == 3

    def test_parallel_jobs_agree(self, folder_root: Path, tmp_path: Path) -> None:
        cache = tmp_path / "cache"
        sums: list[int] = []

        def job() -> None:
            sums.append(int(ready(folder_root, cache=cache).test_dataset.frames.sum()))

        jobs = [threading.Thread(target=job) for _ in range(4)]
        for thread in jobs:
            thread.start()
        for thread in jobs:
            thread.join()

        assert len(sums) == 4
        assert len(set(sums)) == 1
        assert [path.name[0] for path in cache.iterdir()] == ["d"]

    def test_what_fails_leaves_nothing_behind(self, folder_root: Path, tmp_path: Path) -> None:
        path = folder_root / "DvsGesture" / "user02_lab.aedat"
        path.write_bytes(path.read_bytes()[:-5])

        with pytest.raises(ValueError, match=r"user02_lab\.aedat: offset .*cut off"):
            ready(folder_root, cache=tmp_path / "cache")

        assert list((tmp_path / "cache").iterdir()) == []
        assert path.is_file()

    def test_a_damaged_cache_is_named(self, folder_root: Path, tmp_path: Path) -> None:
        cache = tmp_path / "cache"
        ready(folder_root, cache=cache)
        frames = next(cache.iterdir()) / "frames.npy"
        frames.write_bytes(frames.read_bytes()[:-9])

        with pytest.raises(
            ValueError, match=r"this cache of frames was damaged.*delete the folder"
        ):
            ready(folder_root, cache=cache)


def test_missing_files_say_where_to_get_them_and_where_to_put_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        DVSGesture(tmp_path / "nowhere").prepare_data()

    message = str(caught.value)
    assert "https://ibm.ent.box.com/s/3hiq58ww1pbbjrinh367ykfdf60xsfm8" in message
    assert str(tmp_path.resolve() / "nowhere") in message
    assert "DvsGesture.tar.gz" in message
    assert "data.root=FOLDER" in message


def test_an_incomplete_data_set_is_noticed_each_time(
    folder_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            ready(folder_root, cache=tmp_path / "cache")

        assert "60 + 24 samples" in caplog.text
        assert "1176 + 288" in caplog.text


def test_a_gesture_without_events_is_empty_frames_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    line = b"11,5,6\r\n"
    files = {**FILES, "user24_led_labels.csv": FILES["user24_led_labels.csv"] + line}
    write_folder(tmp_path / "DvsGesture", files)

    with caplog.at_level(logging.WARNING):
        module = ready(tmp_path)

    assert "user24_led.aedat has no event from 5 to 6 us: its sample of class 11" in caplog.text
    frames, labels = all_of(module.test_dataloader())
    assert (frames.flatten(1).sum(1) == 0).sum() == 1
    assert len(labels) == 25


def test_an_empty_sample_of_spikingjelly_is_empty_frames_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_events_np(tmp_path / "events_np")
    path = tmp_path / "events_np" / "test" / "4" / "user01_lab_0.npz"
    np.savez(path, **dict.fromkeys("txyp", np.zeros(0, np.int64)))

    with caplog.at_level(logging.WARNING):
        module = ready(tmp_path)

    assert f"{path} holds no event" in caplog.text
    frames, _ = all_of(module.test_dataloader())
    assert (frames.flatten(1).sum(1) == 0).sum() == 1


@pytest.mark.parametrize("form", ["folder", "archive"])
@pytest.mark.parametrize("content", [HEADER, b""], ids=["no event", "no byte"])
def test_an_empty_recording_is_named(tmp_path: Path, form: str, content: bytes) -> None:
    files = {**FILES, "user24_led.aedat": content}
    if form == "folder":
        write_folder(tmp_path / "DvsGesture", files)
    else:
        write_archive(tmp_path / "DvsGesture.tar.gz", files)

    with pytest.raises(ValueError, match=r"user24_led\.aedat.*(holds no event|empty file); get it"):
        ready(tmp_path)


def foreign(path: Path) -> None:
    """What macOS and Windows leave beside the files of a folder."""
    for file in [item for item in path.rglob("*") if item.is_file()]:
        file.with_name(f"._{file.name}").write_bytes(bytes([0, 5, 22, 7]) + bytes(200))
    for folder in [path, *(item for item in path.rglob("*") if item.is_dir())]:
        for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (folder / name).write_bytes(b"Bud1")
    (path / "__MACOSX").mkdir()


@pytest.mark.parametrize("form", ["folder", "archive", "events_np"])
def test_what_an_operating_system_leaves_is_no_recording(tmp_path: Path, form: str) -> None:
    if form == "folder":
        write_folder(tmp_path / "DvsGesture", FILES)
    elif form == "archive":
        added = {f".AppleDouble/{name}": b"\0\5\x16\7" for name in FILES}
        write_archive(tmp_path / "DvsGesture.tar.gz", {**FILES, **added})
    else:
        write_events_np(tmp_path / "events_np")
    before = ready(tmp_path)
    foreign(tmp_path)
    after = ready(tmp_path)

    assert after.identity() == before.identity()
    for name in ("train", "val", "test"):
        mine, theirs = (getattr(module, f"{name}_dataset") for module in (before, after))
        assert torch.equal(mine.labels, theirs.labels)
        np.testing.assert_array_equal(mine.frames[mine.indices], theirs.frames[theirs.indices])


@pytest.mark.parametrize(
    ("header", "reader"),
    [
        (b"#!AER-DAT2.0\r\n# This is a raw AE data file\r\n", r"2\.0; .*tonic\.io\.read_dvs_128"),
        (b"#!AER-DAT4.0\r\n\x10\0\0\0", r"4\.0; .*aedat\.Decoder \(pip install aedat\)"),
    ],
)
def test_recordings_of_other_versions_say_how_to_convert_them(
    tmp_path: Path, header: bytes, reader: str
) -> None:
    write_folder(tmp_path / "DvsGesture", {**FILES, "user24_led.aedat": header + bytes(80)})

    message = rf"user24_led\.aedat: offset 0: expected #!AER-DAT3\.1.*{reader}.*write_aedat"
    with pytest.raises(ValueError, match=message):
        ready(tmp_path)


@pytest.mark.parametrize("end", [0, 10, 500, -20, -4])
def test_a_truncated_archive_is_left_as_it_is(archive_root: Path, end: int) -> None:
    path = archive_root / "DvsGesture.tar.gz"
    path.write_bytes(path.read_bytes()[:end])
    content = path.read_bytes()

    with pytest.raises(GestureFilesError, match=r"not a whole \.tar\.gz.*left as it is"):
        ready(archive_root)

    assert path.read_bytes() == content


def test_a_flipped_bit_in_the_archive_is_found_by_its_checksum(archive_root: Path) -> None:
    path = archive_root / "DvsGesture.tar.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))

    with pytest.raises(ValueError, match=r"DvsGesture\.tar\.gz"):
        ready(archive_root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user09_lab.aedat": None}, "1 of 7 listed recordings are missing: user09_lab.aedat"),
        ({"user09_lab_labels.csv": None}, "there is no user09_lab_labels.csv"),
        ({"trials_to_test.txt": None}, "there is no trials_to_test.txt"),
        (
            {"trials_to_test.txt": b"user09_lab.aedat\n"},
            "user09_lab.aedat is listed in trials_to_t",
        ),
        ({"trials_to_test.txt": b"\xff\xfe\xfd"}, "trials_to_test.txt: expected text"),
        ({"trials_to_test.txt": b"\n"}, "trials_to_test.txt lists no recording; get it again"),
    ],
)
def test_incomplete_files_are_named(
    tmp_path: Path, change: dict[str, bytes | None], message: str
) -> None:
    files = {name: content for name, content in {**FILES, **change}.items() if content is not None}
    write_folder(tmp_path / "folder" / "DvsGesture", files)
    write_archive(tmp_path / "archive" / "DvsGesture.tar.gz", files)

    for root in ("folder", "archive"):
        with pytest.raises(GestureFilesError, match=message) as caught:
            ready(tmp_path / root)
        assert str(tmp_path / root) in str(caught.value)


def test_wrong_labels_name_their_file(tmp_path: Path) -> None:
    write_folder(tmp_path / "DvsGesture", {**FILES, "user09_lab_labels.csv": b"class\n"})

    with pytest.raises(GestureLabelError, match=r"user09_lab_labels\.csv: line 1: expected class"):
        ready(tmp_path)


@pytest.mark.parametrize("form", ["folder", "archive"])
def test_a_clock_that_was_set_back_can_be_sorted_on_request(tmp_path: Path, form: str) -> None:
    back = FILES["user24_led.aedat"] + polarity_packet([(3, 1, 1, 1)])
    files = {**FILES, "user24_led.aedat": back}
    if form == "folder":
        write_folder(tmp_path / "DvsGesture", files)
    else:
        write_archive(tmp_path / "DvsGesture.tar.gz", files)

    with pytest.raises(ValueError, match=r"user24_led\.aedat: offset .*max_disorder=8"):
        ready(tmp_path)
    assert len(ready(tmp_path, max_disorder=10**9).test_dataset) == 24


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK nonsense", "not a whole .npz file"),
        ({"t": [1], "x": [2], "p": [0]}, "found no y"),
        ({"t": [1], "x": [2], "y": [500], "p": [0]}, r"y=500 of event 0"),
        ({"t": [1], "x": [-2], "y": [5], "p": [0]}, r"expected x of 0 to 65535, found -2"),
        ({"t": [1.5], "x": [2], "y": [5], "p": [0]}, r"expected whole numbers t"),
        ({"t": [9**9, 1], "x": [2, 2], "y": [5, 5], "p": [0, 0]}, r"max_disorder="),
    ],
)
def test_damaged_samples_of_spikingjelly(tmp_path: Path, content: Any, message: str) -> None:
    folder = write_events_np(tmp_path / "events_np")
    assert ready(tmp_path).test_dataset.labels.tolist() == [k // 2 for k in range(22)]
    victim = folder / "train" / "10" / "user02_lab_0.npz"
    if isinstance(content, bytes):
        victim.write_bytes(content)
    else:
        np.savez(victim, **content)

    with pytest.raises(GestureFilesError, match=message) as caught:
        ready(tmp_path)

    assert str(victim) in str(caught.value)
    shutil.rmtree(victim.parent)
    with pytest.raises(GestureFilesError, match="expected samples"):
        ready(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"time_steps": 0}, "time_steps=0; write 1 or more"),
        ({"by": "number"}, "by='number'; write one of count, time"),
        ({"downsample": 0}, "downsample=0"),
        ({"duration": 0}, "duration=0"),
        ({"max_count": 0}, r"max_count=0; write 1"),
        ({"val_subjects": -1}, "val_subjects=-1"),
        ({"max_disorder": -1}, "max_disorder=-1"),
        ({"max_shift": 32}, "max_shift=32"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_wrong_settings(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DVSGesture(tmp_path, **settings)


def test_too_many_validation_subjects(folder_root: Path) -> None:
    with pytest.raises(ValueError, match=r"leaves no subject to train on.*data\.val_subjects=3"):
        ready(folder_root, val_subjects=4)


def test_counts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    burst = [(80_001_000, 1, 1, 1)] * 70_000
    files = {
        **FILES,
        "user24_led.aedat": HEADER + polarity_packet(burst),
        "user24_led_labels.csv": b"class,startTime_usec,endTime_usec\n1,80000000,80002000\n",
    }
    write_folder(tmp_path / "DvsGesture", files)

    with pytest.raises(ValueError, match=r"70000 events of a pixel.*write more time_steps"):
        ready(tmp_path, time_steps=1)


def test_no_warning_of_numpy_or_torch(folder_root: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ready(folder_root, cache=tmp_path / "cache")
        all_of(ready(folder_root, cache=tmp_path / "cache").train_dataloader())
