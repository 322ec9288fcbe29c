"""Data that changed are other data: no training is shared, and no record taken for theirs."""

import os
import random
import shutil

import lightning
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from qspinn.app.errors import ConfigurationError
from qspinn.app.run.data_fingerprint import data_state
from qspinn.app.run.train import train
from qspinn.callbacks.random_state import capture_random_states

NMNIST = (
    "data=nmnist",
    "data.time_steps=4",
    "data.downsample=2",
    "data.batch_size=4",
    "network.time_steps=null",
    "trainer.max_epochs=1",
    "quantization.scheme=ptq",
)


def recording(folder, name, seed, events=300):
    """Write a random recording in N-MNIST's format: 5 bytes per event."""
    chance = np.random.default_rng(seed)
    times = np.sort(chance.integers(0, 300_000, events))
    rows = np.zeros((events, 5), np.uint8)
    rows[:, 0], rows[:, 1] = chance.integers(0, 34, (2, events))
    rows[:, 2] = (chance.integers(0, 2, events) << 7) | (times >> 16)
    rows[:, 3], rows[:, 4] = (times >> 8) & 255, times & 255
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(rows.tobytes())


@pytest.fixture
def recordings(tmp_path):
    root = tmp_path / "nmnist"
    for digit in range(10):
        for index in range(3):
            recording(root / "Train" / str(digit), f"{index}.bin", 10 * digit + index)
        recording(root / "Test" / str(digit), "0.bin", 1000 + digit)
    return root


@pytest.mark.slow
def test_more_recordings_in_the_same_folder_are_other_data(composed, recordings, tmp_path):
    def config(store):
        return composed(
            *NMNIST, f"data.root={recordings}", "data.cache=null", f"baselines.dir={store}"
        )

    store = tmp_path / "store"
    train(config(store), tmp_path / "few")
    for digit in range(10):
        for index in range(3, 8):
            recording(recordings / "Train" / str(digit), f"{index}.bin", 5000 + 10 * digit + index)
    with pytest.raises(ConfigurationError, match="a run on other data than there are now"):
        train(config(store), tmp_path / "few")
    shared = train(config(store), tmp_path / "shared")
    alone = train(config("null"), tmp_path / "alone")
    assert shared.baseline_accuracy == alone.baseline_accuracy
    assert (shared.accuracy, shared.metrics) == (alone.accuracy, alone.metrics)
    assert len(list(store.glob("*/baseline.json"))) == 2


@pytest.mark.slow
def test_a_copy_elsewhere_is_the_same_data(composed, recordings, tmp_path):
    store = f"baselines.dir={tmp_path / 'store'}"
    settings = (*NMNIST, "data.cache=null", store)
    first = train(composed(*settings, f"data.root={recordings}"), tmp_path / "run")
    copied = shutil.copytree(recordings, tmp_path / "copied", copy_function=shutil.copyfile)
    again = train(composed(*settings, f"data.root={copied}"), tmp_path / "run")
    assert again.created == first.created  # the record of this run already
    train(composed(*settings, f"data.root={copied}", "quantization.word_length=5"), tmp_path / "5")
    assert len(list((tmp_path / "store").glob("*/baseline.json"))) == 1


def test_a_finished_run_is_reported_when_its_data_are_gone(composed, recordings, tmp_path):
    def config():
        settings = (*NMNIST, "quantization.scheme=none", "data.cache=null", "baselines.dir=null")
        return composed(*settings, f"data.root={recordings}")

    first = train(config(), tmp_path / "run")
    shutil.rmtree(recordings)
    assert train(config(), tmp_path / "run").created == first.created
    with pytest.raises(ConfigurationError, match=r"data: nmnist: no folder Train"):
        train(config(), tmp_path / "another")


@pytest.mark.parametrize("change", ["one bit", "one file less", "another name", "labels"])
def test_every_change_of_the_files_counts(composed, recordings, change):
    from qspinn.data import NMNIST as Recordings

    before = Recordings(recordings, cache=None).fingerprint()
    (recordings / ".DS_Store").write_bytes(b"nothing of the data")
    assert Recordings(recordings, cache=None).fingerprint() == before
    file = recordings / "Train" / "3" / "1.bin"
    if change == "one bit":
        content = bytearray(file.read_bytes())
        content[7] ^= 1
        file.write_bytes(content)
    elif change == "one file less":
        file.unlink()
    elif change == "another name":
        file.rename(file.with_name("9.bin"))
    else:
        file.rename(recordings / "Train" / "4" / "7.bin")
    assert Recordings(recordings, cache=None).fingerprint() != before


class Samples(Dataset):
    """Samples of any kind, given by a function of the index."""

    def __init__(self, length, sample):
        self.length, self.sample = length, sample

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return self.sample(index)


class Stream(IterableDataset):
    def __iter__(self):
        yield torch.zeros(1), torch.tensor(0)


class Strange(lightning.LightningDataModule):
    """A stranger's data module, which knows nothing of fingerprints."""

    def __init__(self, dataset, test=None):
        super().__init__()
        self.dataset, self.test = dataset, dataset if test is None else test

    def train_dataloader(self):
        return DataLoader(self.dataset)

    def val_dataloader(self):
        return []

    def test_dataloader(self):
        return [DataLoader(self.test), DataLoader(self.dataset)]


def tensors(*changed):
    values = torch.arange(500.0).reshape(100, 5)
    for index, value in changed:
        values[index] = value
    return TensorDataset(values, torch.arange(100))


def state_of(data, **settings):
    return data_state({"_target_": f"{__name__}.Strange", **settings}, data)


def test_the_samples_of_a_stranger_count():
    same = state_of(Strange(tensors()))
    assert same.fingerprint is not None
    assert state_of(Strange(tensors())) == same
    assert state_of(Strange(tensors((0, 7.0)))) != same
    assert state_of(Strange(tensors((99, 7.0)))) != same
    assert state_of(Strange(tensors(), tensors((0, 7.0)))) != same
    assert state_of(Strange(TensorDataset(*tensors()[:99]))) != same


def test_every_sample_of_a_small_data_set_counts():
    """Also one that is not among those which are read of a large one."""
    values = [float(index) for index in range(1000)]
    data = Strange(Samples(1000, lambda index: (values[index], 0)))
    assert state_of(data).fingerprint == state_of(data).fingerprint
    for index in (1, 500, 998):
        before = state_of(data)
        values[index] += 0.5
        assert state_of(data) != before


def test_a_large_data_set_needs_files_that_are_named(tmp_path):
    """Some samples do not tell whether any of 20,000 has changed, but the files do."""
    data = Strange(Samples(20_000, lambda index: float(index)))
    state = state_of(data)
    assert state.fingerprint is None
    assert "its settings name no file" in state.reason
    file = tmp_path / "samples.bin"
    file.write_bytes(b"one")
    named = state_of(data, file=str(file))
    assert named.fingerprint is not None
    file.write_bytes(b"two")
    assert state_of(data, file=str(file)) != named


def test_data_that_change_while_they_are_read_are_refused(
    composed, recordings, tmp_path, monkeypatch
):
    """What was read is of neither fingerprint: kept under one of them, it would be a lie."""
    from qspinn.data import NMNIST as Recordings

    original = Recordings.setup

    def growing(self, stage=None):
        original(self, stage)
        if not (recordings / "Train" / "0" / "new.bin").exists():
            recording(recordings / "Train" / "0", "new.bin", 7)

    monkeypatch.setattr(Recordings, "setup", growing)
    config = composed(
        *NMNIST, f"data.root={recordings}", "data.cache=null", f"baselines.dir={tmp_path / 's'}"
    )
    with pytest.raises(ConfigurationError, match="have changed while they were read"):
        train(config, tmp_path / "run")
    assert not list((tmp_path / "s").glob("*"))
    train(config, tmp_path / "run")  # once it is over


def idx(path, array):
    """Write an IDX file of bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_all_four_files_of_mnist_count(tmp_path, name):
    import qspinn.data

    folder = tmp_path / name / "raw"
    for part in ("train", "t10k"):
        idx(folder / f"{part}-images-idx3-ubyte", np.zeros((3, 28, 28), np.uint8))
        idx(folder / f"{part}-labels-idx1-ubyte", np.zeros(3, np.uint8))
    data = getattr(qspinn.data, name)(tmp_path, val_size=0)
    seen = {data.fingerprint()}
    for file in sorted(folder.iterdir()):
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        seen.add(data.fingerprint())
    assert len(seen) == 5
    (folder / "notes.txt").write_text("nothing of the data")
    assert data.fingerprint() in seen
    copied = shutil.copytree(tmp_path / name, tmp_path / "copied" / name)
    assert copied.is_dir()
    there = getattr(qspinn.data, name)(tmp_path / "copied", val_size=0)
    assert there.fingerprint() == data.fingerprint()


@pytest.mark.parametrize("change", ["labels", "list", "recording", "one more"])
def test_what_a_folder_of_gestures_holds_counts(tmp_path, change):
    from qspinn.data import DVSGesture

    for name in ("user01_led.aedat", "user24_led.aedat"):
        (tmp_path / name).write_bytes(b"events")
        (tmp_path / name.replace(".aedat", "_labels.csv")).write_text("1,0,9\n")
    (tmp_path / "trials_to_train.txt").write_text("user01_led.aedat\n")
    (tmp_path / "trials_to_test.txt").write_text("user24_led.aedat\n")
    data = DVSGesture(tmp_path, cache=None)
    before = data.fingerprint()
    (tmp_path / "._user01_led.aedat").write_bytes(b"what an archiver leaves")
    assert data.fingerprint() == before
    files = {
        "labels": "user01_led_labels.csv",
        "list": "trials_to_test.txt",
        "recording": "user24_led.aedat",
        "one more": "user02_led.aedat",
    }
    (tmp_path / files[change]).write_bytes(b"other")
    assert data.fingerprint() != before


def test_large_data_are_known_by_names_sizes_and_times(tmp_path):
    from qspinn.data.fingerprint import content_fingerprint

    file = tmp_path / "large.bin"
    file.write_bytes(b"12345678")

    def of():
        return content_fingerprint([file], tmp_path, most_digested=4)

    seen = {of()}
    assert seen == {of()}
    os.utime(file, ns=(1, 1))
    seen.add(of())
    file.write_bytes(b"123456789")
    os.utime(file, ns=(1, 1))
    seen.add(of())
    assert len(seen) == 3
    assert all(text.startswith("files-") for text in seen)


def test_the_files_that_a_stranger_names_count(tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("one")
    (tmp_path / "folder").mkdir()
    settings = {"names": str(names), "more": [{"place": str(tmp_path / "folder")}]}
    states = [state_of(Strange(tensors()), **settings)]
    names.write_text("two")
    states.append(state_of(Strange(tensors()), **settings))
    (tmp_path / "folder" / "new.txt").write_text("new")
    states.append(state_of(Strange(tensors()), **settings))
    assert len({state.fingerprint for state in states}) == 3
    assert None not in {state.fingerprint for state in states}


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.rand(3),
        lambda: np.random.rand(3),  # noqa: NPY002
        lambda: random.random(),
    ],
)
def test_random_transforms_are_no_change(draw):
    def states():
        return state_of(Strange(Samples(10, lambda index: (draw(), index))))

    before = capture_random_states()
    assert states().fingerprint is not None
    assert states() == states()
    after = capture_random_states()
    assert torch.equal(before["torch"], after["torch"])
    assert before["python"] == after["python"]


@pytest.mark.parametrize(
    ("dataset", "reason"),
    [
        (Stream(), "cannot be read by index"),
        (Samples(3, lambda index: np.random.default_rng().random(3)), "not the same when"),
        (Samples(3, lambda index: object()), "its samples hold a object"),
        (Samples(3, lambda index: 1 / 0), "cannot be read twice"),
    ],
)
def test_what_cannot_be_told_is_not_guessed(dataset, reason):
    state = state_of(Strange(dataset))
    assert state.fingerprint is None
    assert reason in state.reason


def test_a_stranger_may_say_it():
    class Says(Strange):
        answer = "version 3 of the labels"

        def fingerprint(self):
            return self.answer

    assert state_of(Says(Stream())).fingerprint == "version 3 of the labels"
    Says.answer = None
    with pytest.raises(ConfigurationError, match=r"fingerprint\(\) returned None; return a text"):
        state_of(Says(Stream()))
