"""N-MNIST in folders and zips, official split and folds; the real recordings."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from spikingjelly.datasets import utils as spikingjelly

from qspinn.data import NMNIST, ATISError
from tests.reference.aedat import Event, atis_file

TRAIN, TEST = 12, 3
"""Recordings per class."""


def events_of(part: str, label: int, number: int) -> list[Event]:
    """A few events that no other recording has."""
    first = number + (20 if part == "Test" else 0)
    return [(100 * k, (first + k) % 34, 3 * label, k % 2) for k in range(6)]


def file_name(part: str, number: int) -> str:
    """Official names are numbers of five digits, not in a row; folds must not mind."""
    return f"{7 * number + (part == 'Test'):05d}.bin"


def all_files() -> dict[str, bytes]:
    return {
        f"{part}/{label}/{file_name(part, number)}": atis_file(events_of(part, label, number))
        for part, count in (("Train", TRAIN), ("Test", TEST))
        for label in range(10)
        for number in range(count)
    }


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_zips(root: Path, files: dict[str, bytes]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for part in ("Train", "Test"):
        with zipfile.ZipFile(root / f"{part}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{part}/", b"")
            archive.writestr(f"__MACOSX/{part}/1/._00001.bin", b"what an archiver adds")
            for name, content in files.items():
                if name.startswith(part):
                    archive.writestr(name, content)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "root", all_files())


def ready(root: Path, **settings: Any) -> NMNIST:
    module = NMNIST(root, **{"cache": None, "time_steps": 2, "by": "time", **settings})
    module.prepare_data()
    module.setup()
    return module


def test_the_official_split(root: Path) -> None:
    module = ready(root, val_fraction=0.25)

    assert (module.input_shape, module.time_steps, module.num_classes) == ((2, 34, 34), 2, 10)
    kept = TRAIN - 3
    for dataset, part, numbers in (
        (module.train_dataset, "Train", range(kept)),
        (module.val_dataset, "Train", range(kept, TRAIN)),
        (module.test_dataset, "Test", range(TEST)),
    ):
        expected = [(label, number) for label in range(10) for number in numbers]
        assert dataset.labels.tolist() == [label for label, _ in expected]
        for index, (label, number) in enumerate(expected):
            frames = np.zeros((2, 2, 34, 34), np.float32)
            for t, x, y, p in events_of(part, label, number):
                frames[int(t > 250), p, y, x] += 1  # the last event is at 500 us
            np.testing.assert_array_equal(dataset[index][0], frames)


def test_zips_hold_the_same(root: Path, tmp_path: Path) -> None:
    folders = ready(root)
    before = write_zips(tmp_path / "zips", all_files())
    zips = ready(before)

    for name in ("train", "val", "test"):
        mine, theirs = (getattr(module, f"{name}_dataset") for module in (folders, zips))
        assert torch.equal(mine.labels, theirs.labels)
        np.testing.assert_array_equal(mine.frames[mine.indices], theirs.frames[theirs.indices])


def test_every_recording_is_tested_on_in_one_fold(root: Path) -> None:
    modules = [ready(root, folds=5, fold=fold, val_fraction=0.25) for fold in range(5)]

    tested = np.concatenate([module.test_dataset.indices for module in modules])
    assert sorted(tested.tolist()) == list(range(10 * (TRAIN + TEST)))
    for module in modules:
        parts = (module.train_dataset, module.val_dataset, module.test_dataset)
        assert [np.bincount(part.labels).tolist() for part in parts] == [
            [9] * 10,
            [3] * 10,
            [3] * 10,
        ]
        seen = np.concatenate([part.indices for part in parts])
        assert sorted(seen.tolist()) == list(range(10 * (TRAIN + TEST)))


def test_folds_share_one_cache(root: Path, tmp_path: Path) -> None:
    for fold in range(3):
        ready(root, folds=3, fold=fold, cache=tmp_path / "cache")

    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_folds_do_not_follow_the_seed(root: Path) -> None:
    torch.manual_seed(1)
    first = ready(root, folds=4, fold=1)
    torch.manual_seed(2)
    second = ready(root, folds=4, fold=1)

    for name in ("train", "val", "test"):
        mine, theirs = (getattr(module, f"{name}_dataset") for module in (first, second))
        np.testing.assert_array_equal(mine.indices, theirs.indices)


def test_missing_files_say_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        NMNIST(tmp_path).prepare_data()

    for part in ("Train.zip", str(tmp_path.resolve()), "garrickorchard.com", "data.root=FOLDER"):
        assert part in str(caught.value)


def test_a_part_without_recordings(root: Path) -> None:
    for path in (root / "Test").rglob("*.bin"):
        path.unlink()

    with pytest.raises(ATISError, match=r"Test: expected recordings Test/0/\*\.bin"):
        ready(root)


def test_a_damaged_recording_is_named(root: Path) -> None:
    path = root / "Train" / "4" / file_name("Train", 3)
    path.write_bytes(path.read_bytes()[:-2])

    with pytest.raises(ATISError, match=rf"{path}: offset 25: expected an event of 5 bytes"):
        ready(root)


@pytest.mark.parametrize("content", [b"", bytes([0, 240, 0, 0, 0])], ids=["no byte", "no event"])
def test_an_empty_recording_is_named(root: Path, tmp_path: Path, content: bytes) -> None:
    name = f"Train/4/{file_name('Train', 3)}"
    (root / name).write_bytes(content)
    zips = write_zips(tmp_path / "zips", {**all_files(), name: content})

    for place in (rf"{root / name}", rf"{zips / 'Train.zip'}: {name}"):
        with pytest.raises(ATISError, match=rf"{place}: holds no event .*or delete it"):
            ready(root if place.endswith(str(root / name)) else zips)


def test_what_an_operating_system_leaves_is_no_recording(root: Path, tmp_path: Path) -> None:
    added = {
        f"{folder}/{name}": b"Bud1" * 3
        for folder in ("Train", "Train/4", "Test", "Test/9")
        for name in ("._00001.bin", ".DS_Store", "Thumbs.db", "._.DS_Store")
    }
    before = ready(root)
    write(root, added)
    zips = write_zips(tmp_path / "zips", {**all_files(), **added})

    for after in (ready(root), ready(zips)):
        for name in ("train", "val", "test"):
            mine, theirs = (getattr(module, f"{name}_dataset") for module in (before, after))
            assert torch.equal(mine.labels, theirs.labels)
            np.testing.assert_array_equal(mine.frames[mine.indices], theirs.frames[theirs.indices])
    assert ready(root).identity() == before.identity()


def test_damaged_zips_are_named_and_stay(tmp_path: Path) -> None:
    root = write_zips(tmp_path, all_files())
    content = (root / "Train.zip").read_bytes()
    (root / "Train.zip").write_bytes(content[:-50])
    with pytest.raises(ATISError, match=r"Train\.zip: not a whole zip file"):
        ready(root)
    assert (root / "Train.zip").read_bytes() == content[:-50]

    name = f"Train/0/{file_name('Train', 2)}"
    place = content.index(name.encode()) + len(name) + 3
    (root / "Train.zip").write_bytes(
        content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :]
    )
    with pytest.raises(ATISError, match=rf"Train\.zip: {name}: damaged"):
        ready(root)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"val_fraction": 1}, "val_fraction=1; write 0"),
        ({"val_fraction": -0.1}, "val_fraction=-0.1"),
        ({"folds": 1}, "folds=1; write 2 or more"),
        ({"folds": 5, "fold": 5}, "fold=5; write 0 to 4"),
        ({"fold": 1}, "fold=1: without folds there is only fold 0"),
    ],
)
def test_wrong_settings(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NMNIST(tmp_path, **settings)


def test_more_folds_than_recordings(root: Path) -> None:
    with pytest.raises(ValueError, match="150 recordings leave 150 to train on and 0 to test on"):
        ready(root, folds=16, fold=15, val_fraction=0)


def test_the_real_recordings(shared_data: Path) -> None:
    root = shared_data / "N-MNIST-small"
    module = ready(root, time_steps=10, by="count")
    folded = ready(root, time_steps=10, by="count", folds=5, fold=4)

    parts = (module.train_dataset, module.val_dataset, module.test_dataset)
    assert [len(part) for part in parts] == [900, 100, 100]
    sizes = [len(list(root.glob(f"*/{label}/*.bin"))) for label in range(10)]
    assert sum(sizes) == 1100
    # Fold 4 tests on numbers 4, 9, 14 and so on of each class.
    assert np.bincount(folded.test_dataset.labels).tolist() == [size // 5 for size in sizes]
    paths = sorted((root / "Test").rglob("*.bin"))
    for index in (0, 57, 99):
        theirs = spikingjelly.integrate_events_by_fixed_frames_number(
            spikingjelly.load_ATIS_bin(paths[index]), "number", 10, 34, 34
        )
        np.testing.assert_array_equal(module.test_dataset[index][0], theirs)
        assert module.test_dataset[index][1] == int(paths[index].parent.name)
