"""The store of 32-bit trainings, attacked: what was changed is refused by name, never taken."""

import json
import random
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from qspinn.app.errors import ConfigurationError
from qspinn.app.run.baseline_entry import TrainingFailed
from qspinn.app.run.baselines import BaselineStore
from qspinn.app.run.data_fingerprint import DataState
from qspinn.app.run.train import train

FAST, MANY = 300, 1500
PICTURES = "callbacks=default"  # which a store keeps as well


def values_of(config):
    return OmegaConf.to_container(config, resolve=True)


@pytest.fixture(scope="module")
def sound(composed, tmp_path_factory):
    """Return a store with the trainings of two seeds, their configurations and their data."""
    folder = tmp_path_factory.mktemp("sound")
    store, entries = folder / "store", []
    for seed in (0, 1):
        config = composed(
            PICTURES, f"baselines.dir={store}", f"seed={seed}", "trainer.max_epochs=1"
        )
        record = train(config, folder / f"run{seed}")
        (entry,) = store.glob(f"*seed={seed}-*/")
        entries.append((entry.name, values_of(config), DataState(record.data_fingerprint)))
    return store, entries


@pytest.fixture
def store(sound, tmp_path):
    """Return a copy of the store, and what is in it."""
    original, entries = sound
    shutil.copytree(original, tmp_path / "store")
    return tmp_path / "store", entries


def taken(path, entry):
    """What a run gets from the store: its record and its files, or the words of a refusal."""
    _, config, data = entry
    try:
        baseline = BaselineStore(path).find(config, data)
    except ConfigurationError as error:
        return str(error)
    if baseline is None:
        return None
    files = [baseline.folder.last_checkpoint, baseline.folder.metrics, *baseline.folder.pictures]
    contents = {file.name: file.read_bytes() for file in files if file.exists()}
    return baseline.record, baseline.measured, contents


def files_of(path, entry):
    folder = path / entry[0]
    names = ("baseline.json", "metrics.csv", "checkpoints/last.ckpt")
    return [folder / name for name in names] + sorted(folder.glob("*.png"))


def mutated(content: bytes, chance: random.Random) -> bytes:
    """One of: a changed byte, a cut, bytes inserted, a part repeated, zeros."""
    place = chance.randrange(len(content))
    end = min(len(content), place + chance.randrange(1, 200))
    return chance.choice(
        (
            content[:place]
            + bytes([content[place] ^ chance.randrange(1, 256)])
            + content[place + 1 :],
            content[:place],
            content[:place] + chance.randbytes(chance.randrange(1, 50)) + content[place:],
            content[:end] + content[place:end] + content[end:],
            content[:place] + b"\0" * (end - place) + content[end:],
        )
    )


def attack(path, entry, count, seed):
    """Change one file at a time; whatever is taken is what was kept."""
    chance, sound_result = random.Random(seed), taken(path, entry)
    assert isinstance(sound_result, tuple)
    refused = 0
    for _ in range(count):
        file = chance.choice(files_of(path, entry))
        before = file.read_bytes()
        changed = mutated(before, chance)
        file.write_bytes(changed)
        result = taken(path, entry)
        if isinstance(result, tuple):
            # Blanks between the values of a JSON text say nothing.
            assert changed == before or file.name == "baseline.json", f"{file} was taken"
            assert result == sound_result
        else:
            assert str(path / entry[0]) in result
            assert "delete the folder" in result
            refused += 1
        file.write_bytes(before)
    assert refused > count / 2
    assert taken(path, entry) == sound_result


@pytest.mark.slow
def test_changed_files_are_refused(store):
    path, (entry, _) = store
    attack(path, entry, FAST, seed=0)


@pytest.mark.slow
def test_many_changed_files_are_refused(store):
    path, (entry, other) = store
    attack(path, entry, MANY, seed=1)
    attack(path, other, MANY, seed=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["baseline.json", "metrics.csv", "checkpoints/last.ckpt"])
def test_the_file_of_another_seed_is_refused(store, name):
    path, (entry, other) = store
    shutil.copyfile(path / other[0] / name, path / entry[0] / name)
    assert "cannot be used" in taken(path, entry)
    assert isinstance(taken(path, other), tuple)


def test_the_whole_entry_of_another_seed_is_refused(store):
    path, (entry, other) = store
    shutil.rmtree(path / entry[0])
    shutil.copytree(path / other[0], path / entry[0])
    assert "it is of another training" in taken(path, entry)


def test_an_accuracy_that_was_edited_is_refused(store):
    path, (entry, _) = store
    file = path / entry[0] / "baseline.json"
    values = json.loads(file.read_text())
    values["record"]["accuracy"] = values["measured"]["test/accuracy"] = 0.99
    file.write_text(json.dumps(values))
    assert "it has changed since it was written" in taken(path, entry)


@pytest.mark.parametrize("name", ["baseline.json", "metrics.csv", "checkpoints/last.ckpt"])
@pytest.mark.parametrize("kind", ["link", "folder", "missing"])
def test_what_is_no_file_is_refused(store, name, kind):
    path, (entry, _) = store
    file = path / entry[0] / name
    kept = file.with_name("elsewhere")
    file.rename(kept)
    if kind == "link":
        file.symlink_to(kept)
    elif kind == "folder":
        file.mkdir()
    result = taken(path, entry)
    if (name, kind) == ("baseline.json", "missing"):
        assert result is None  # a training that was broken off after its last epoch
    else:
        assert str(file) in result


def test_a_picture_that_the_training_has_not_drawn_is_refused(store):
    path, (entry, _) = store
    picture = path / entry[0] / "confusion_matrix.png"
    picture.unlink(missing_ok=True)
    assert "confusion_matrix.png" in str(taken(path, entry)) or picture.name not in str(
        files_of(path, entry)
    )
    (path / entry[0] / "ptq_weights.png").write_bytes(b"qspinn")
    assert "the training has not written it" in taken(path, entry)


@pytest.mark.slow
def test_a_run_that_is_changed_later_does_not_change_the_next(composed, sound, tmp_path):
    """A checkpoint in a run's folder is a copy: writing into it leaves the store alone."""
    original, (entry, _) = sound
    shutil.copytree(original, tmp_path / "store")
    store = f"baselines.dir={tmp_path / 'store'}"
    short = (PICTURES, "trainer.max_epochs=1", "quantization.scheme=ptq")
    first = train(composed(store, *short), tmp_path / "one")
    for file in (tmp_path / "one").rglob("*"):
        if file.is_file():
            with open(file, "r+b") as opened:
                opened.write(b"damage")
    second = train(composed(store, *short), tmp_path / "two")
    assert second.accuracy == first.accuracy
    assert isinstance(taken(tmp_path / "store", entry), tuple)


def test_a_damaged_checkpoint_of_a_training_that_was_broken_off_is_named(store, composed, tmp_path):
    path, (entry, _) = store
    (path / entry[0] / "baseline.json").unlink()
    checkpoint = path / entry[0] / "checkpoints" / "last.ckpt"
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content)
    one_epoch = (PICTURES, "trainer.max_epochs=1", "quantization.scheme=ptq")
    config = composed(f"baselines.dir={path}", *one_epoch)
    with pytest.raises(ConfigurationError, match=rf"{checkpoint} is damaged"):
        train(config, tmp_path / "run")
    assert not Path(tmp_path / "run" / "record.json").exists()


def test_who_waits_for_a_training_that_fails_ends_with_its_error(composed, tmp_path, capsys):
    """Otherwise each of a thousand candidates would try it again, one after the other."""
    store, data = BaselineStore(tmp_path / "store"), DataState("data")
    config = values_of(composed("trainer.max_epochs=1"))
    has_begun, may_fail, tried = threading.Event(), threading.Event(), []

    def failing(values, folder):
        tried.append(folder.path)
        has_begun.set()
        assert may_fail.wait(60)
        raise ValueError("the loss is NaN")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(store.get, config, data, failing)
        assert has_begun.wait(60)
        second = pool.submit(store.get, config, data, failing)
        printed = ""
        for _ in range(600):
            printed += capsys.readouterr().out
            if "waiting for the 32-bit training" in printed:
                break
            time.sleep(0.1)
        may_fail.set()
        with pytest.raises(ValueError, match="the loss is NaN"):
            first.result(60)
        with pytest.raises(TrainingFailed, match=r"has failed .*the loss is NaN"):
            second.result(60)
    assert len(tried) == 1
    with pytest.raises(ValueError, match="the loss is NaN"):  # a later run tries again
        store.get(config, data, failing)
    assert len(tried) == 2
