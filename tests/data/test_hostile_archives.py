"""Archives and lists of recordings that hold anything: refused by name, or read as they are."""

import gzip
import io
import os
import re
import tarfile
import zipfile

import pytest

from qspinn.data import AEDATError, ATISError, read_aedat
from qspinn.data.gesture_files import (
    GestureFiles,
    GestureFilesError,
    ReadSettings,
    official_recordings,
)
from qspinn.data.gesture_labels import GestureLabelError, parse_gesture_labels
from qspinn.data.nmnist import NMNIST
from tests.data.test_hostile_recordings import (
    aedat_events,
    as_rows,
    atis_content,
    events_by_hand,
)
from tests.mutations import mutations
from tests.reference.aedat import aedat_file

FAST, MANY = 200, 1500
LABELS = "class,startTime_usec,endTime_usec\r\n1,0,500\r\n2,500,900\r\n11,100,100000\r\n"
SETTINGS = ReadSettings(valid_only=True, max_disorder=1_000_000)


def zipped(*names, compression=zipfile.ZIP_DEFLATED, content=None):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name in names:
            archive.writestr(name, atis_content() if content is None else content)
    return stream.getvalue()


@pytest.fixture
def digits(tmp_path):
    """The two zips of N-MNIST, of four recordings."""
    for part in ("Train", "Test"):
        (tmp_path / f"{part}.zip").write_bytes(zipped(f"{part}/0/1.bin", f"{part}/1/2.bin"))
    return tmp_path


def recordings_of(digits):
    found = NMNIST(digits, cache=None).recordings()
    return found.labels.tolist(), [events for _, events in found.read()]


def attack_zips(digits, seed, count):
    """Whatever is read was in the sound zip: each file there has a checksum."""
    path, refused = digits / "Train.zip", 0
    expected = events_by_hand(atis_content())
    for content in mutations(path.read_bytes(), seed, count):
        path.write_bytes(content)
        try:
            _, found = recordings_of(digits)
        except ATISError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            assert all(as_rows(events) == expected for events in found)
    assert refused > count / 2


def test_changed_zips_of_n_mnist(digits):
    attack_zips(digits, 0, FAST)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zipped("Train/0/1.bin", compression=zipfile.ZIP_BZIP2), "compressed by method 12"),
        (zipped("Train/0/1.bin", content=bytes(1 << 25)), "says that it has 33,554,432 bytes"),
        (zipped("a/Train/0/1.bin", "b/Train/0/1.bin"), "holds two recordings Train/0/1.bin"),
        (zipped("Test/0/1.bin"), "expected recordings Train/0"),
    ],
)
def test_zips_that_are_not_of_n_mnist_are_refused(digits, content, message):
    (digits / "Train.zip").write_bytes(content)
    with pytest.raises(ATISError, match=rf"Train\.zip: .*{message}"):
        recordings_of(digits)


def test_a_zip_gives_the_recordings_of_its_own_part(digits):
    """Both parts in one zip, as both files: no recording is there twice."""
    both = zipped("Train/0/1.bin", "Test/3/1.bin")
    (digits / "Train.zip").write_bytes(both)
    (digits / "Test.zip").write_bytes(both)
    assert recordings_of(digits)[0] == [0, 3]


def test_a_sparse_recording_is_not_read(digits):
    (digits / "Train" / "0").mkdir(parents=True)
    path = digits / "Train" / "0" / "1.bin"
    path.touch()
    os.truncate(path, 3 << 30)
    with pytest.raises(ATISError, match=r"1\.bin: 3,221,225,472 bytes are no recording"):
        recordings_of(digits)


def packed(added=None):
    """The official archive, of two recordings, before it is compressed."""
    files = {
        "trials_to_train.txt": b"user01_led.aedat\n",
        "trials_to_test.txt": b"user24_led.aedat\n",
    }
    for name in ("user01_led", "user24_led"):
        files[f"{name}.aedat"] = aedat_file(aedat_events())
        files[f"{name}_labels.csv"] = LABELS.encode()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in {**files, **(added or {})}.items():
            member = tarfile.TarInfo(f"DvsGesture/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def gestures_of(path):
    found = official_recordings(GestureFiles("archive", path), SETTINGS)
    return [as_rows(events) for _, events in found.read()]


def attack_gestures(path, seed, count, before, after):
    """Errors name the archive; what is compressed as a whole has a checksum."""
    refused = 0
    expected = [sorted(rows) for rows in gestures_of_sound(path)]
    for content in mutations(before(packed()), seed, count):
        path.write_bytes(after(content))
        try:
            found = gestures_of(path)
        except (GestureFilesError, GestureLabelError, AEDATError) as error:
            assert str(path) in str(error)
            refused += 1
        else:
            assert before is bytes or [sorted(rows) for rows in found] == expected
    assert refused > count / 3


def gestures_of_sound(path):
    path.write_bytes(gzip.compress(packed()))
    return gestures_of(path)


def test_changed_archives_of_gestures(tmp_path):
    attack_gestures(tmp_path / "DvsGesture.tar.gz", 0, FAST, gzip.compress, bytes)
    attack_gestures(tmp_path / "DvsGesture.tar.gz", 1, FAST, bytes, gzip.compress)


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(
    "headers", [{"GNU.sparse.map": "a,b"}, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}]
)
def test_headers_that_tarfile_does_not_understand(tmp_path, headers, is_first):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number in range(3):
            member = tarfile.TarInfo(f"DvsGesture/user0{number}_led.aedat")
            member.pax_headers = headers if number == (0 if is_first else 2) else {}
            member.size = 5
            tar.addfile(member, io.BytesIO(b"12345"))
    path = tmp_path / "DvsGesture.tar.gz"
    path.write_bytes(gzip.compress(stream.getvalue()))
    with pytest.raises(GestureFilesError, match=r"not a whole \.tar\.gz archive \(ValueError: "):
        gestures_of(path)


def test_a_list_of_any_size_is_not_read(tmp_path):
    path = tmp_path / "DvsGesture.tar.gz"
    path.write_bytes(gzip.compress(packed({"user09_lab_labels.csv": bytes(2 << 20)})))
    with pytest.raises(GestureFilesError, match=r"user09_lab_labels\.csv has 2,097,152 bytes"):
        gestures_of(path)


@pytest.mark.parametrize(
    "name", ["trials_to_test.txt", "user01_led_labels.csv", "user01_led.aedat"]
)
@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_of_the_extracted_folder_is_refused_at_once(tmp_path, name, kind):
    with tarfile.open(fileobj=io.BytesIO(packed())) as tar:
        tar.extractall(tmp_path, filter="data")
    folder = tmp_path / "DvsGesture"
    (folder / name).unlink()
    (os.mkfifo if kind == "pipe" else os.mkdir)(folder / name)
    with pytest.raises((GestureFilesError, AEDATError), match=f"{name}: it is no regular file"):
        list(official_recordings(GestureFiles("folder", folder), SETTINGS).read())


def test_a_recording_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.aedat: there is no such file"):
        read_aedat(tmp_path / "gone.aedat")


def labels_by_hand(text):
    """Class, start and end of each line, by a pattern; None: not such a file."""
    header, *lines = text.removeprefix("\ufeff").splitlines()
    assert re.sub(r"\s", "", header.lower()) == "class,starttime_usec,endtime_usec"
    return [
        tuple(int(number) for number in re.findall(r"\d+", line)) for line in lines if line.strip()
    ]


def attack_labels(seed, count):
    refused = 0
    for content in mutations(LABELS.encode(), seed, count):
        text = content.decode("utf-8", "replace")
        try:
            gestures = parse_gesture_labels(text, "user01_labels.csv")
        except GestureLabelError as error:
            assert str(error).startswith("user01_labels.csv: ")
            refused += 1
        else:
            found = [(one.label + 1, one.start, one.stop) for one in gestures]
            assert found == labels_by_hand(text)
    assert refused > count / 3


def test_changed_labels():
    attack_labels(0, 500)


def test_digits_with_underscores_are_no_numbers():
    with pytest.raises(GestureLabelError, match="line 2: expected three whole numbers"):
        parse_gesture_labels(f"{LABELS.splitlines()[0]}\n1,0,50_0\n", "labels")


@pytest.mark.slow
def test_many_changed_archives_and_labels(digits, tmp_path):
    attack_zips(digits, 2, MANY)
    attack_gestures(tmp_path / "DvsGesture.tar.gz", 3, MANY, gzip.compress, bytes)
    attack_gestures(tmp_path / "DvsGesture.tar.gz", 4, MANY, bytes, gzip.compress)
    attack_labels(5, 20 * MANY)
