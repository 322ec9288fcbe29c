"""Sizes, numbers and names that no data set has: refused before memory or time is spent on them."""

import gzip
import io
import os
import tarfile
import tracemalloc
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest

from qspinn.data import ATISError, read_atis
from qspinn.data.gesture_events_np import events_np_recordings
from qspinn.data.gesture_files import (
    GestureFiles,
    GestureFilesError,
    ReadSettings,
    official_recordings,
)
from qspinn.data.gesture_labels import GestureLabelError, parse_gesture_labels, parse_trials
from qspinn.data.nmnist import NMNIST
from qspinn.data.splits import natural
from tests.data.gestures import official_files

SETTINGS = ReadSettings(valid_only=True, max_disorder=1_000_000)
HEADER = "class,startTime_usec,endTime_usec\n"
LONG = 20 << 20


@contextmanager
def at_most(size):
    """See that no more memory was in use at once than ``size`` bytes above what was before."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


def archive_with(path, member, content=b""):
    """The official archive after another member of whatever its header says."""
    with gzip.open(path, "wb", 1) as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
        tar.addfile(member, io.BytesIO(content))
        for name, found in official_files().items():
            one = tarfile.TarInfo(f"DvsGesture/{name}")
            one.size = len(found)
            tar.addfile(one, io.BytesIO(found))


def samples_of(path):
    return list(official_recordings(GestureFiles("archive", path), SETTINGS).read())


def member(name, size, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info


@pytest.fixture
def archive(tmp_path):
    return tmp_path / "DvsGesture.tar.gz"


def test_another_file_of_the_archive_is_stepped_over(archive):
    archive_with(archive, member("DvsGesture/film.avi", LONG), bytes(LONG))
    assert len(samples_of(archive)) == 84


@pytest.mark.parametrize(
    "kind",
    [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK],
)
def test_long_names_and_attributes_of_an_archive_are_not_read(archive, kind):
    archive_with(archive, member("name", LONG, kind), bytes(LONG))
    with (
        at_most(10 << 20),
        pytest.raises(GestureFilesError, match=r"gz: not a whole .* 20,971,520 bytes follow"),
    ):
        samples_of(archive)


def test_a_recording_that_is_far_larger_than_its_archive_is_not_read(archive):
    size = 72 << 20
    archive_with(archive, member("DvsGesture/user30_led.aedat", size), bytes(size))
    assert archive.stat().st_size < 1 << 20
    with (
        at_most(10 << 20),
        pytest.raises(GestureFilesError, match=r"gz: user30_led\.aedat has 75,497,472 bytes"),
    ):
        samples_of(archive)


def test_a_member_of_negative_size_ends_the_archive(archive):
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(member("DvsGesture/film.avi", 0))
    content = bytearray(plain.getvalue())
    content[124:136] = (256**12 - 512).to_bytes(12, "big")
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    archive.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(GestureFilesError, match="a header says that -512 bytes follow"):
        samples_of(archive)


def test_a_sparse_file_of_events_is_not_read(tmp_path):
    path = tmp_path / "00001.bin"
    path.touch()
    os.truncate(path, 3 << 30)
    with at_most(1 << 20), pytest.raises(ATISError, match=r"00001\.bin: 3,221,225,472 bytes"):
        read_atis(path)


@pytest.mark.parametrize("line", ["1,1_0,20", "1,\u0661,20", "1,1 0,20", "1,0x1,20", "1,1.0,20"])
def test_only_digits_are_numbers(line):
    with pytest.raises(GestureLabelError, match="lab: line 2: expected three whole numbers"):
        parse_gesture_labels(HEADER + line, "lab")


@pytest.mark.parametrize(
    "name", ["user\u0661_led", f"user{10**20}_led", "user" + "9" * 5000 + "_led", "user_led"]
)
def test_users_have_numbers_that_can_be(name):
    with pytest.raises(GestureLabelError, match="list: line 1: expected a name such as user01"):
        parse_trials(f"{name}.aedat\n", "list")


def test_a_long_list_of_trials_keeps_its_order():
    names = [f"user{7919 * index % 5_000}_led" for index in range(5_000)]
    assert parse_trials("".join(f"{name}.aedat\n" for name in names)) == names


def test_numbers_in_names_sort_as_numbers():
    """Also those that have more digits than Python reads."""
    names = ["0", "9", "010", "99", "100", "1" + "0" * 5000, "11" + "0" * 4999]
    assert sorted(set(names), key=natural) == names


def zips(folder, *names):
    for part in ("Train", "Test"):
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as packed:
            for name in names:
                packed.writestr(f"{part}/{name}.bin", bytes((1, len(name) % 34, 0, 0, 3)))
    return NMNIST(folder, cache=None).recordings()


def test_a_name_of_many_digits_is_a_name(tmp_path):
    recordings = zips(tmp_path, "5/" + "9" * 5000, "5/1")
    assert recordings.labels.tolist() == [5, 5, 5, 5]


def test_names_of_equal_numbers_have_an_order_of_their_own(tmp_path):
    """Not that of a zip or a disk, by which a split would differ between machines."""
    orders = [("5/1", "5/01", "5/001"), ("5/001", "5/1", "5/01")]
    rows = []
    for names in orders:
        recordings = zips(tmp_path, *names)
        rows.append([int(events.y[0]) for _, events in recordings.read()])
    assert rows[0] == rows[1] == [5, 4, 3] * 2


def test_a_pipe_is_not_waited_for(tmp_path):
    zips(tmp_path, "5/1")
    (tmp_path / "Test.zip").unlink()
    os.mkfifo(tmp_path / "Test.zip")
    with pytest.raises(ATISError, match=r"Test\.zip: not a whole zip file .*no regular file"):
        NMNIST(tmp_path, cache=None).recordings()


def test_two_files_of_one_sample_are_refused(tmp_path):
    for part in ("train", "test"):
        for label in range(11):
            (tmp_path / part / str(label)).mkdir(parents=True)
            zeros = {name: np.zeros(1, np.int64) for name in "txyp"}
            np.savez(tmp_path / part / str(label) / "user01_led_0.npz", **zeros)
    np.savez(tmp_path / "test" / "3" / "user01_led_00.npz", **zeros)
    with pytest.raises(GestureFilesError, match=r"3/user01_led_00?\.npz: the same sample as"):
        events_np_recordings(tmp_path, (128, 128), 0)
