"""NumPy files that hold anything: events of SpikingJelly's samples, and the cache of frames."""

import io
import json
import os
import resource
import shutil
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from qspinn.data.events import Events
from qspinn.data.fingerprint import file_digest
from qspinn.data.frame_set import (
    FrameSet,
    FrameSettings,
    Recordings,
    fingerprint,
    load_frame_set,
)
from qspinn.data.gesture_events_np import events_np_recordings
from qspinn.data.gesture_files import GestureFilesError
from tests.mutations import mutations

FAST, MANY = 300, 5000
SENSOR = (128, 128)
SETTINGS = FrameSettings(time_steps=2, downsample=32)


def arrays(seed=0, events=50):
    chance = np.random.default_rng(seed)
    return {
        "t": np.sort(chance.integers(0, 1000, events)),
        "x": chance.integers(0, 128, events),
        "y": chance.integers(0, 128, events),
        "p": chance.integers(0, 2, events),
    }


@pytest.fixture
def sample(tmp_path):
    """A folder of SpikingJelly's with one sample of each class; the file of the first."""
    for part in ("train", "test"):
        for label in range(11):
            folder = tmp_path / "events_np" / part / str(label)
            folder.mkdir(parents=True)
            np.savez(folder / "user01_led_0.npz", **arrays(label))
    return tmp_path / "events_np" / "test" / "0" / "user01_led_0.npz"


def read(sample):
    """The events of that file, as a data set reads them."""
    recordings = events_np_recordings(sample.parents[2], SENSOR, 1_000_000)
    index = int(np.flatnonzero(recordings.is_test & (recordings.labels == 0))[0])
    return next(events for number, events in recordings.read() if number == index)


def attack(sample, seed, count):
    """Whatever is read are the events that NumPy reads from the same bytes, in their order."""
    refused = 0
    for content in mutations(sample.read_bytes(), seed, count):
        sample.write_bytes(content)
        try:
            events = read(sample)
        except GestureFilesError as error:
            assert str(sample) in str(error)
            refused += 1
            continue
        with np.load(io.BytesIO(content)) as file:
            there = {name: file[name] for name in Events.TYPES}
        order = np.argsort(there["t"], kind="stable")
        for name in Events.TYPES:
            assert np.array_equal(getattr(events, name), there[name][order])
    assert refused > count / 2


@pytest.mark.slow
def test_changed_samples_are_refused_or_read_as_they_are(sample):
    attack(sample, 0, FAST)


@pytest.mark.slow
def test_many_changed_samples(sample):
    attack(sample, 1, MANY)


def npy(shape, dtype="'<i8'", data=b""):
    """An .npy file with any header."""
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}"
    padded = header.ljust(118 - 1 + 64 * (len(header) // 118)) + "\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode() + data


def packed(sample, content, compression=zipfile.ZIP_STORED):
    """The sample with something else as its times."""
    with zipfile.ZipFile(sample, "w", compression) as archive:
        archive.writestr("t.npy", content)
        for name in ("x", "y", "p"):
            stream = io.BytesIO()
            np.save(stream, np.zeros(1, np.int64))
            archive.writestr(f"{name}.npy", stream.getvalue())


HEADERS = {
    "too many": npy((10**12,)),
    "overflowing": npy((2**62, 2**62)),
    "negative": npy((-1,)),
    "a part": npy((2,), data=b"\0" * 8),
    "more": npy((1,), data=b"\0" * 80),
    "objects": npy((1,), "'|O'", b"\x80\x04N."),
    "records": npy((1,), "[('a', '<i8')]", b"\0" * 8),
    "texts": npy((1,), "'<U2'", b"\0" * 8),
    "floats": npy((1,), "'<f8'", b"\0" * 8),
    "two axes": npy((1, 1), data=b"\0" * 8),
    "no header": b"\x93NUMPY",
    "another version": b"\x93NUMPY\x09\x00" + b"\0" * 100,
    "no array": b"",
    "code": npy("__import__('os').system('true')"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_impossible_headers_are_refused_without_memory(sample, name):
    packed(sample, HEADERS[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(GestureFilesError, match=r"user01_led_0\.npz: "):
        read(sample)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.slow
def test_a_bomb_is_refused_without_memory(sample):
    packed(sample, npy((600 << 17,), data=bytes(600 << 20)), zipfile.ZIP_DEFLATED)
    assert sample.stat().st_size < 1 << 20
    with pytest.raises(GestureFilesError, match=r"t\.npy says that it has 629,145,\d+ bytes"):
        read(sample)


def test_a_compression_that_unpacks_at_once_is_refused(sample):
    packed(sample, npy((100 << 17,), data=bytes(100 << 20)), zipfile.ZIP_BZIP2)
    content = bytearray(sample.read_bytes())
    size = content.index(b"PK\x01\x02") + 24  # of the times in the directory: a small number
    content[size : size + 4] = (1000).to_bytes(4, "little")
    sample.write_bytes(content)
    with pytest.raises(GestureFilesError, match=r"t\.npy is compressed by method 12"):
        read(sample)


def test_memory_is_taken_for_what_is_there_not_for_what_is_said(sample):
    """A header and a directory agree on 200 MB of which the archive holds nothing."""
    packed(sample, npy((200 << 17,)), zipfile.ZIP_DEFLATED)
    content = bytearray(sample.read_bytes())
    size = content.index(b"PK\x01\x02") + 24
    content[size : size + 4] = (128 + (200 << 20)).to_bytes(4, "little")
    sample.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(GestureFilesError, match=r"user01_led_0\.npz: "):
            read(sample)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["pipe", "sparse", "encrypted", "text"])
def test_what_is_no_archive_is_refused_at_once(sample, kind):
    content = bytearray(sample.read_bytes())
    sample.unlink()
    if kind == "pipe":
        os.mkfifo(sample)
    elif kind == "sparse":
        sample.touch()
        os.truncate(sample, 3 << 30)
    elif kind == "encrypted":
        for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            content[content.index(signature) + place] |= 1
        sample.write_bytes(content)
    else:
        sample.write_text("t,x,y,p\n")
    with pytest.raises(GestureFilesError, match=r"user01_led_0\.npz: "):
        read(sample)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.full(50, 128)}, "x"),
        ({"y": np.full(50, -1)}, "y"),
        ({"p": np.full(50, 2)}, "p"),
        ({"t": np.full(50, 2**63 - 1, np.uint64) * 2}, "t"),
        ({"t": np.array([2**63 - 1] * 49 + [-(2**63)])}, "expected t of 0 to"),
        ({"t": np.arange(-50, 0)}, "expected t of 0 to"),
        ({"x": np.zeros(49, np.int64)}, "x|length|events"),
    ],
)
def test_events_that_cannot_be_are_refused(sample, changes, message):
    np.savez(sample, **{**arrays(), **changes})
    with pytest.raises(GestureFilesError, match=message):
        read(sample)


def cached(folder, calls=None):
    """Frames of four recordings, out of the cache where they are there."""

    def recordings():
        typed = [
            {name: array.astype(Events.TYPES[name]) for name, array in arrays(seed).items()}
            for seed in range(4)
        ]
        events = [Events(**one, height=SENSOR[0], width=SENSOR[1]) for one in typed]
        labels, groups = np.array([0, 1, 2, 3]), np.arange(4)
        is_test = np.array([False, False, True, True])
        if calls is not None:
            calls.append(1)
        return Recordings(labels, is_test, groups, lambda: enumerate(events))

    return load_frame_set(folder, {"data": "some"}, SETTINGS, SENSOR, recordings)


@pytest.fixture
def cache(tmp_path):
    cached(tmp_path)
    (folder,) = tmp_path.iterdir()
    return folder


def attack_cache(folder: Path, seed, count):
    before = cached(folder.parent)
    files = sorted(folder.iterdir())
    refused = 0
    contents = {file: file.read_bytes() for file in files}
    for index, file in enumerate(files):
        for content in mutations(contents[file], seed + index, count // len(files)):
            file.write_bytes(content)
            try:
                after = cached(folder.parent)
            except ValueError as error:
                assert str(folder) in str(error)
                assert "delete the folder" in str(error)
                refused += 1
            else:
                for name in ("frames", "labels", "is_test", "groups"):
                    assert np.array_equal(getattr(after, name), getattr(before, name))
        file.write_bytes(contents[file])
    assert refused > count / 2


def test_a_changed_cache_is_refused(cache):
    attack_cache(cache, 0, FAST)


@pytest.mark.slow
def test_many_changed_caches(cache):
    attack_cache(cache, 1, MANY)


@pytest.mark.parametrize("name", ["labels.npy", "is_test.npy", "groups.npy", "frames.npy"])
def test_sound_arrays_of_other_values_are_refused(cache, name):
    """Labels or a split that somebody changed would give wrong numbers without a word."""
    array = np.load(cache / name)
    np.save(cache / name, array[::-1].copy())
    with pytest.raises(ValueError, match=f"{name} has changed since it was written"):
        cached(cache.parent)


@pytest.mark.parametrize("name", ["frames.npy", "labels.npy", "settings.json", "sha256.json"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "gone", "cut"])
def test_what_is_no_file_of_a_cache_is_refused(cache, name, kind):
    content = (cache / name).read_bytes()
    (cache / name).unlink()
    if kind == "pipe":
        os.mkfifo(cache / name)
    elif kind == "folder":
        (cache / name).mkdir()
    elif kind == "cut":
        (cache / name).write_bytes(content[:-1])
    if (name, kind) == ("sha256.json", "cut"):
        assert json.loads(content[:-1])  # the final newline says nothing
        return
    with pytest.raises(ValueError, match="this cache of frames was damaged"):
        cached(cache.parent)


def test_large_frames_that_were_changed_by_hand_are_refused(cache, monkeypatch):
    """Their contents are compared where their time of change is another: a copy serves."""
    monkeypatch.setattr("qspinn.data.fingerprint.MOST_DIGESTED", 0)
    before = cached(cache.parent).frames.copy()
    os.utime(cache / "frames.npy", ns=(1, 1))
    assert np.array_equal(cached(cache.parent).frames, before)
    frames = np.load(cache / "frames.npy", mmap_mode="r+")
    frames[0, 0, 0, 0, 0] += 1
    frames.flush()
    del frames
    with pytest.raises(ValueError, match=r"frames\.npy has changed since it was written"):
        cached(cache.parent)


def test_large_frames_that_are_as_they_were_written_are_not_read(cache, monkeypatch):
    digested = []

    def digest(path):
        digested.append(path.name)
        return file_digest(path)

    monkeypatch.setattr("qspinn.data.fingerprint.MOST_DIGESTED", 0)
    monkeypatch.setattr("qspinn.data.fingerprint.file_digest", digest)
    cached(cache.parent)
    assert digested == ["settings.json", "labels.npy", "is_test.npy", "groups.npy"]


def test_a_sparse_file_of_settings_is_not_read(cache):
    os.truncate(cache / "settings.json", 3 << 30)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"settings\.json says other settings"):
            cached(cache.parent)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_a_cache_that_may_not_be_read_is_not_said_to_be_damaged(cache, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("qspinn.data.fingerprint.file_digest", refuse)
    with pytest.raises(ValueError, match=r"cannot be read \(PermissionError: Permission denied\)"):
        cached(cache.parent)


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_what_is_no_folder_in_the_place_of_a_cache_is_refused_before_the_work(cache, kind):
    shutil.rmtree(cache)
    if kind == "file":
        cache.touch()
    else:
        cache.symlink_to("nowhere")
    calls = []
    with pytest.raises(ValueError, match="expected a folder of frames, found something else"):
        cached(cache.parent, calls)
    assert not calls


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.array([0, -1])}, "label -1; write classes from 0 on"),
        ({"labels": np.array([0.0, 1.0])}, r"labels are float64 \[2\]; write int64 \[2\]"),
        ({"is_test": np.array([0, 1])}, r"is_test are int64 \[2\]; write bool \[2\]"),
        ({"is_test": np.array([True])}, r"is_test are bool \[1\]; write bool \[2\]"),
        ({"groups": np.arange(3)}, r"groups are int64 \[3\]; write int64 \[2\]"),
    ],
)
def test_labels_split_and_groups_that_cannot_be_are_refused(changes, message):
    sound = {"labels": np.arange(2), "is_test": np.array([False, True]), "groups": np.arange(2)}
    with pytest.raises(ValueError, match=message):
        Recordings(**{**sound, **changes}, read=list)
    with pytest.raises(ValueError, match=message):
        FrameSet(frames=np.zeros((2, 1, 2, 1, 1), np.uint16), **{**sound, **changes})


def test_a_name_that_is_no_utf8_counts_in_the_key_of_a_cache(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.bin"))
    path.touch()
    assert len(fingerprint([path], tmp_path)) == 64
