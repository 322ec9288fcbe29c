"""Folders with damaged files, or with files that no run wrote."""

import os
import random
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from qspinn.app.compose.completing import complete, to_plain
from qspinn.app.errors import ConfigurationError
from qspinn.app.explore.exploring import Candidate, evaluate
from qspinn.app.folder.folder import RunFolder
from qspinn.app.folder.ownership import FolderError
from qspinn.app.run.metrics_table import ROWS_KEY, MetricsTable
from qspinn.app.run.train import fingerprint_of, train
from qspinn.data import MNISTSubset
from qspinn.records import comparable, write_record

NO_STORE = "baselines.dir=null"
TWO_EPOCHS = ("trainer.max_epochs=2", "quantization.scheme=none")
FAST, SLOW = 300, 1000


@pytest.fixture(scope="module")
def finished(composed, tmp_path_factory):
    """A finished run and its record; tests get copies of the folder."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, train(composed(*TWO_EPOCHS), folder)


@pytest.fixture
def broken_off(finished, tmp_path):
    """A folder as it is when a run is killed after the last epoch."""
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    (folder / "record.json").unlink()
    table = MetricsTable(folder)
    table.keep_epochs(2)
    return folder


@pytest.fixture(scope="module")
def configs(composed):
    """The configuration without and with fresh=true; composing takes longer than refusing."""
    return [composed(*TWO_EPOCHS, f"fresh={fresh}") for fresh in ("false", "true")]


@pytest.fixture
def values(configs):
    return to_plain(complete(configs[0]))


def tree(folder):
    """What lies in a folder: contents, and where links lead."""
    return {
        path.relative_to(folder): os.readlink(path)
        if path.is_symlink()
        else (path.read_bytes() if path.is_file() else None)
        for path in sorted(folder.rglob("*"))
    }


def resumed(folder, values, fingerprint):
    """All that a run takes from a folder before it goes on; plain types and tensors."""
    run = RunFolder(folder)
    with run.held(values):
        assert run.finished_record(values) is None
        run.check_data(values, fingerprint)
        table = MetricsTable(folder)
        checkpoint = run.checkpoint_to_resume(values, fingerprint)
        if checkpoint is None:
            return None
        loaded = torch.load(checkpoint, weights_only=True)
        table.go_on_from(loaded[ROWS_KEY])
        table.keep_epochs(loaded["epoch"] + 1)
        return loaded, table.path.read_bytes()


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def mutated(content, rng):
    """Change, drop, insert or double some bytes, or cut the end off; never the same bytes."""
    while True:
        data = bytearray(content)
        at = rng.randrange(len(data))
        kind = rng.randrange(6)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.choice(b"0123456789,.:-{}[]&*#\n\0 \xff")
        elif kind == 2:
            del data[at : at + rng.randrange(1, 40)]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.randrange(1, 20))
        elif kind == 4:
            del data[at:]
        else:
            end = min(len(data), at + 200)
            data[at:at] = data[at:end]
        if data != content:
            return bytes(data)


def fuzz(file, folder, values, count):
    """Every outcome is a refusal that names a file and deletes none, or the very same state."""
    content = (folder / file).read_bytes()
    fingerprint = fingerprint_of(values)
    expected = resumed(folder, values, fingerprint)
    before = tree(folder)
    rng = random.Random(20)
    refused = 0
    for number in range(count):
        changed = mutated(content, rng)
        (folder / file).write_bytes(changed)
        try:
            got = resumed(folder, values, fingerprint)
        except ConfigurationError as error:
            refused += 1
            check_message(str(error), folder)
            now = tree(folder)
            assert now.pop(Path(file)) == changed
            assert now == {path: held for path, held in before.items() if path != Path(file)}
        else:
            assert same(got, expected), (number, changed[:300])
        for path in {Path(file), Path("metrics.csv")}:
            (folder / path).write_bytes(before[path])
    return refused


def check_message(message, folder):
    """It is one line, which names the folder or a file in it and says what to do."""
    assert str(folder) in message
    assert "elete" in message or "another folder" in message
    assert "\n" not in message


FILES = ["checkpoints/last.ckpt", "metrics.csv", "config.yaml"]


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_damage_is_named_or_harmless(broken_off, values, file):
    assert fuzz(file, broken_off, values, FAST) > FAST / 2


@pytest.mark.few(0.34, "campaign")
@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_much_damage_is_named_or_harmless(broken_off, values, file):
    assert fuzz(file, broken_off, values, SLOW) > SLOW / 2


def test_a_checkpoint_is_still_one_for_other_programs(finished):
    path = finished[0] / "checkpoints" / "last.ckpt"
    assert torch.load(path, weights_only=True)["epoch"] == 1
    assert zipfile.ZipFile(path).testzip() is None


def make_alias_bomb(path):
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    path.write_text("\n".join(lines))


def make_huge(path):
    with open(path, "wb") as file:
        file.truncate(3 << 30)


MADE = {
    "an alias bomb": make_alias_bomb,
    "an alias bomb that says it is ours": lambda path: (
        make_alias_bomb(path),
        path.write_text("# Written by qspinn {} sha256:0\n" + path.read_text()),
    ),
    "deep": lambda path: path.write_text("[" * 100_000),
    "huge": make_huge,
    "a FIFO": os.mkfifo,
    "a folder": Path.mkdir,
    "a link": lambda path: path.symlink_to("elsewhere"),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 9),
    "NUL": lambda path: path.write_bytes(b"epoch,step\n0,\0\n"),
    "a huge field": lambda path: path.write_text("epoch,step,x\n0,1," + "9" * 200_000),
    "other columns": lambda path: path.write_text("time,step\n1,2\n"),
    "no numbers": lambda path: path.write_text("epoch,step,x\n0,4,many\n"),
    "empty": Path.touch,
}


OURS = [("metrics.csv", kind) for kind in ("NUL", "a huge field", "no numbers")]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("kind", MADE)
def test_a_resume_refuses_what_is_not_the_file_of_a_run(broken_off, configs, file, kind):
    (broken_off / file).unlink()
    MADE[kind](broken_off / file)
    there = os.lstat(broken_off / file)
    names = sorted(broken_off.rglob("*"))
    # Where it does say whose it is, fresh=true may delete it.
    is_ours = "says it is ours" in kind or (file, kind) in OURS
    for config in configs[:1] if is_ours else configs:
        with pytest.raises(FolderError, match=rf"{Path(file).name} .*(?i:delete)"):
            train(config, broken_off)
        now = os.lstat(broken_off / file)
        assert (now.st_ino, now.st_size, now.st_mtime_ns) == (
            there.st_ino,
            there.st_size,
            there.st_mtime_ns,
        )
        assert sorted(broken_off.rglob("*")) == names


@pytest.mark.slow
@pytest.mark.parametrize("missing", [["metrics.csv"], ["checkpoints/last.ckpt"], FILES[::2]])
def test_what_the_messages_say_to_delete_may_be_deleted(
    broken_off, finished, composed, missing, capsys
):
    for file in missing:
        (broken_off / file).unlink()
    record = train(composed(*TWO_EPOCHS), broken_off)
    assert comparable(record) == comparable(finished[1])
    assert (broken_off / "metrics.csv").read_bytes() == (finished[0] / "metrics.csv").read_bytes()
    assert ("resuming" in capsys.readouterr().out) == (missing == ["metrics.csv"])


def test_a_checkpoint_of_another_run_is_refused(broken_off, finished, composed, tmp_path):
    other = tmp_path / "other"
    train(composed(*TWO_EPOCHS, "seed=1"), other)
    shutil.copy(other / "checkpoints" / "last.ckpt", broken_off / "checkpoints")
    with pytest.raises(FolderError, match=r"last\.ckpt is a checkpoint of .*another configuration"):
        train(composed(*TWO_EPOCHS), broken_off)
    # With its configuration as well, it is that run's folder.
    shutil.copy(other / "config.yaml", broken_off)
    with pytest.raises(FolderError, match="seed: 1 there, 0 now"):
        train(composed(*TWO_EPOCHS), broken_off)
    # And the configuration alone makes no other run of the checkpoint.
    shutil.copy(finished[0] / "checkpoints" / "last.ckpt", broken_off / "checkpoints")
    with pytest.raises(FolderError, match=r"last\.ckpt is a checkpoint of .*another configuration"):
        train(composed(*TWO_EPOCHS, "seed=1"), broken_off)


@pytest.mark.parametrize("fresh", ["no", "off", "n", "'false'", "'true'", "yes", "0", "1", "[]"])
def test_only_a_boolean_deletes_a_run(finished, composed, fresh):
    before = tree(finished[0])
    with pytest.raises(ConfigurationError, match=r"fresh=.*write true"):
        train(composed(*TWO_EPOCHS, f"fresh={fresh}"), finished[0])
    done = evaluate(Candidate(composed(*TWO_EPOCHS, f"fresh={fresh}"), finished[0]))
    assert "write true" in done.error
    assert tree(finished[0]) == before


def test_null_is_no_wish_to_delete(finished, composed):
    before = tree(finished[0])
    assert train(composed(*TWO_EPOCHS, "fresh=null"), finished[0]) == finished[1]
    assert tree(finished[0]) == before


def test_fresh_deletes_what_the_run_wrote_and_nothing_else(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    theirs = ["notes.txt", "checkpoints/thesis/precious.ckpt", "checkpoints/best.ckpt", "a.png"]
    for name in theirs:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("precious")
    # Left by runs that were killed while they wrote; and a name that only looks like theirs.
    for name in (f".metrics.csv.{'a' * 32}.tmp", f"checkpoints/.last.ckpt.{'0' * 32}.tmp"):
        (folder / name).touch()
    (folder / ".thesis.tmp").touch()
    run = RunFolder(folder)
    with run.held({"fresh": True}):
        run.clear()
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert left == {*theirs, ".thesis.tmp"}


@pytest.mark.slow
def test_a_training_taken_from_the_store_is_this_runs_own(composed, tmp_path, capsys):
    """A run killed after it took the training goes on, with the store and without."""
    store = f"baselines.dir={tmp_path / 'store'}"
    short = ("trainer.max_epochs=1", "quantization.scheme=ptq")
    first = train(composed(*short, store), tmp_path / "run")
    (entry,) = (tmp_path / "store").glob("*/checkpoints/last.ckpt")
    kept = entry.read_bytes()
    for where, said in ((store, "32-bit training taken"), (NO_STORE, "resuming after epoch 1")):
        (tmp_path / "run" / "record.json").unlink()
        capsys.readouterr()
        assert comparable(train(composed(*short, where), tmp_path / "run")) == comparable(first)
        assert said in capsys.readouterr().out
    assert entry.read_bytes() == kept


@pytest.fixture
def on_data(composed, monkeypatch):
    """Return a function that runs on data which lie somewhere and have some content."""

    class Data(MNISTSubset):
        content = None

        def __init__(self, root: str = "", **settings):
            super().__init__(**settings)

        def fingerprint(self):
            return self.content

    def run(folder, root, content, *overrides):
        monkeypatch.setattr(Data, "content", content)
        short = ("trainer.max_epochs=1", "quantization.scheme=none", f"+data.root={root}")
        return train(composed(*short, *overrides), folder)

    monkeypatch.setattr("qspinn.data.MNISTSubset", Data)
    return run


@pytest.mark.slow
def test_a_run_on_other_data_is_another_run(on_data, tmp_path):
    record = on_data(tmp_path, "here", "80 recordings")
    assert record.data_fingerprint is not None
    assert on_data(tmp_path, "there", "80 recordings") == record  # the same, moved
    for file in ("record.json", "metrics.csv"):
        with pytest.raises(FolderError, match="holds a run on other data than there are now"):
            on_data(tmp_path, "here", "90 recordings")
        (tmp_path / file).unlink()  # then what is left goes on from the checkpoint
    shutil.copy(tmp_path / "config.yaml", tmp_path / "kept")
    assert comparable(on_data(tmp_path, "there", "80 recordings"))["accuracy"] == record.accuracy
    again = on_data(tmp_path, "here", "90 recordings", "fresh=true")
    assert again.data_fingerprint != record.data_fingerprint
    (tmp_path / "record.json").unlink()
    shutil.copy(tmp_path / "kept", tmp_path / "config.yaml")
    with pytest.raises(FolderError, match=r"last\.ckpt is a checkpoint of a run on other data"):
        on_data(tmp_path, "here", "80 recordings")


def test_data_of_which_nothing_is_known_are_the_same_where_they_lie(on_data, tmp_path):
    record = replace(on_data(tmp_path, "here", "80 recordings"), data_fingerprint=None)
    write_record(record, tmp_path)  # as earlier versions did
    assert on_data(tmp_path, "here", "80 recordings") == record
    with pytest.raises(FolderError, match="whether the data are the same cannot be told"):
        on_data(tmp_path, "there", "80 recordings")


FOREIGN = [
    "record.json",
    "failure.json",
    "config.yaml",
    "metrics.csv",
    "output.txt",
    "wandb_run_id.txt",
    "weights.png",
    "events.gif",
    "checkpoints/last.ckpt",
    "checkpoints",
]


@pytest.mark.few(0.25)
@pytest.mark.parametrize("file", FOREIGN)
@pytest.mark.parametrize("kind", ["a file", "a link", "a folder"])
def test_foreign_files_are_left_alone(configs, finished, tmp_path, file, kind):
    if (file, kind) == ("checkpoints", "a folder"):
        pytest.skip("a folder of checkpoints is no run's name alone")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("precious")
    for name, has_run in (("empty", False), ("run", True)):
        folder = tmp_path / name
        if has_run:
            shutil.copytree(finished[0], folder)
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        if kind == "a file":
            target.write_text("my thesis, chapter 1\n")
        elif kind == "a link":
            target.symlink_to(mine)
        else:
            target.mkdir()
            (target / "thesis.txt").write_text("precious")
        before = tree(folder)
        for config in configs:
            with pytest.raises(FolderError, match=f"{target.name} is not what a run"):
                train(config, folder)
            assert "is not what a run" in evaluate(Candidate(config, folder)).error
            assert tree(folder) == before
    assert (mine / "thesis.txt").read_text() == "precious"


def test_the_folder_of_an_earlier_version_is_read_and_deleted(finished, composed, tmp_path):
    """Before files said that qspinn wrote them."""
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    config = folder / "config.yaml"
    config.write_text(config.read_text().partition("\n")[2])
    (folder / "output.txt").write_text("epoch 1/2\n")
    (folder / "weights.png").write_bytes(b"\x89PNG of an earlier version")
    assert train(composed(*TWO_EPOCHS), folder) == finished[1]
    checkpoint = folder / "checkpoints" / "last.ckpt"
    torch.save(torch.load(checkpoint, weights_only=True), checkpoint)  # says nothing any more
    (folder / "record.json").rename(tmp_path / "record.json")
    with pytest.raises(FolderError, match=r"last\.ckpt does not say which run it is of"):
        train(composed(*TWO_EPOCHS), folder)
    run = RunFolder(folder)
    with run.held({"fresh": True}):
        run.clear()
    assert not list(folder.iterdir())
