"""Candidates evaluated in this process and in others."""

import threading

import pytest

import qspinn.app.explore.exploring as exploring
from qspinn.app.errors import ConfigurationError
from qspinn.app.explore.exploring import Candidate, check_workers, explore
from qspinn.app.explore.workers import Died
from qspinn.app.folder.folder import RunFolder
from qspinn.app.run.building import load_data
from qspinn.records import comparable, read_failure, read_record

ONE_EPOCH = "trainer.max_epochs=1"


def candidates(composed, tmp_path, name, word_lengths):
    store = f"baselines.dir={tmp_path / name / 'store'}"
    return [
        Candidate(
            composed(ONE_EPOCH, store, f"quantization.word_length={word_length}"),
            tmp_path / name / str(word_length),
        )
        for word_length in word_lengths
    ]


def test_a_candidate_that_fails_stops_no_other(composed, tmp_path, capsys):
    done = exploring.report(explore(candidates(composed, tmp_path, "runs", [4, 0, 6])), 3)
    assert [evaluation.record is None for evaluation in done] == [False, True, False]
    folders = [evaluation.candidate.folder for evaluation in done]
    assert read_record(folders[0] / "record.json") == done[0].record
    assert "word_length=0; write 1 to 24" in read_failure(folders[1] / "failure.json").message
    assert not (folders[1] / "record.json").exists()
    assert not (folders[2] / "failure.json").exists()
    assert "epoch 1/1" in (folders[0] / "output.txt").read_text()
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3
    assert printed[0].startswith("[1/3] 4  validation accuracy ")
    assert printed[1].startswith("[2/3] 0  failed: quantization: ")


def test_a_failure_is_forgotten_when_the_run_succeeds(composed, tmp_path, monkeypatch):
    (candidate,) = candidates(composed, tmp_path, "runs", [4])

    def failing(*arguments):
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(exploring, "train", failing)
        (broken,) = explore([candidate])
    assert broken.error == "no room"
    assert read_failure(candidate.folder / "failure.json").error == "MemoryError"
    (good,) = explore([candidate])
    assert good.record is not None
    assert not (candidate.folder / "failure.json").exists()


def test_the_death_of_a_process_is_recorded(composed, tmp_path, monkeypatch):
    one, two = candidates(composed, tmp_path, "runs", [4, 5])

    def dying(function, tasks, workers):
        assert (function, workers) == (exploring.evaluate, 2)
        yield 1, Died(-9)
        yield 0, function(tasks[0])

    monkeypatch.setattr(exploring, "map_in_workers", dying)
    dead, alive = explore([one, two], workers=2)
    assert (dead.candidate, alive.candidate) == (two, one)
    failure = read_failure(two.folder / "failure.json")
    assert failure.error == "ProcessDied"
    assert "signal 9" in failure.message == dead.error
    assert failure.config["quantization"]["word_length"] == 5
    assert alive.record is not None


@pytest.mark.slow
def test_no_failure_lies_beside_a_good_record(composed, tmp_path, monkeypatch):
    candidate, other = candidates(composed, tmp_path, "runs", [4, 5])
    (good,) = explore([candidate])
    failure = candidate.folder / "failure.json"

    def dying(function, tasks, workers):
        yield from ((index, Died(-9, began=False)) for index in range(len(tasks)))

    with monkeypatch.context() as patch:
        patch.setattr(exploring, "map_in_workers", dying)
        assert all(one.record is None for one in explore([candidate, other], workers=2))
    assert not failure.exists()
    assert read_failure(other.folder / "failure.json").error == "ProcessDied"
    failure.write_bytes((other.folder / "failure.json").read_bytes())  # as earlier releases did
    (again,) = explore([candidate])
    assert comparable(again.record) == comparable(good.record)
    assert not failure.exists()


@pytest.mark.slow
def test_a_candidate_that_another_launcher_is_running_comes_last(composed, tmp_path):
    one, two = candidates(composed, tmp_path, "runs", [4, 5])
    has_it, may_go = threading.Event(), threading.Event()

    def another_launcher():
        with RunFolder(one.folder).held(exploring.held_config(one.config)):
            has_it.set()
            may_go.wait(120)

    thread = threading.Thread(target=another_launcher)
    thread.start()
    try:
        assert has_it.wait(120)
        done = explore([one, two])
        assert next(done).candidate == two
        may_go.set()
        (last,) = done
    finally:
        may_go.set()
        thread.join()
    assert last.candidate == one
    assert last.record is not None


@pytest.mark.slow
def test_workers_change_no_record(composed, tmp_path):
    records = []
    for workers in (1, 2):
        given = candidates(composed, tmp_path, f"by{workers}", [3, 0, 5])
        done = {e.candidate.folder.name: e.record for e in explore(given, workers)}
        assert done.pop("0") is None
        records.append({name: comparable(record) for name, record in done.items()})
    assert records[0] == records[1]
    assert len(list((tmp_path / "by2" / "store").glob("*/baseline.json"))) == 1


@pytest.mark.parametrize("workers", [0, -1, 1.5, True, "two", None])
def test_bad_numbers_of_workers(workers):
    with pytest.raises(ConfigurationError, match=r"exploration\.workers=.*1 or more"):
        check_workers(workers)


def test_data_are_read_once(composed):
    settings = dict(composed().data)
    one, two = load_data(settings), load_data(settings)
    assert one is not two
    assert one.train_dataset is two.train_dataset
    one.trainer = "somebody's"
    assert two.trainer is None
    other = load_data({**settings, "batch_size": 7})
    assert other.batch_size == 7
    assert other.train_dataset is not one.train_dataset


def test_data_that_draw_numbers_are_read_by_each_run(composed, monkeypatch):
    import torch

    from qspinn.data import MNISTSubset

    original = MNISTSubset.load_datasets

    def drawing(self):
        torch.rand(1)
        return original(self)

    monkeypatch.setattr(MNISTSubset, "load_datasets", drawing)
    settings = {**composed().data, "batch_size": 13}  # that nobody has read
    assert load_data(settings).train_dataset is not load_data(settings).train_dataset
