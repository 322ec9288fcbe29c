"""Files and folders appear whole, once, or not at all."""

from pathlib import Path

import pytest

from qspinn.atomic import atomic_file, write_once_folder


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    with atomic_file(target) as path:
        path.write_text("new")
        assert not target.exists()

    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_what_fails_changes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "b"
    target.write_text("old")

    def fail() -> None:
        with atomic_file(target) as path:
            path.write_text("half")
            raise KeyError("some")

    with pytest.raises(KeyError):
        fail()

    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_first_of_two_folders_stays(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b"
    with write_once_folder(target) as slow:
        (slow / "x").write_text("slow")
        with write_once_folder(target) as fast:
            (fast / "x").write_text("fast")
        assert (target / "x").read_text() == "fast"

    assert (target / "x").read_text() == "fast"
    assert list(target.parent.iterdir()) == [target]


def test_a_folder_that_fails_is_removed(tmp_path: Path) -> None:
    def fail() -> None:
        with write_once_folder(tmp_path / "b") as folder:
            (folder / "x").write_text("half")
            raise KeyError("some")

    with pytest.raises(KeyError):
        fail()

    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("mine")

    def write() -> None:
        with write_once_folder(tmp_path / "b") as folder:
            (folder / "x").write_text("some")

    with pytest.raises(OSError, match="b"):
        write()

    assert (tmp_path / "b").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1
