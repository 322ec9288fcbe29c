"""Paths where Hydra changes into the output folder before a job begins."""

import pytest
from hydra.core.hydra_config import HydraConfig

from qspinn.app.paths import from_start, start_folder, started_in, with_paths
from qspinn.records import comparable, find_records, read_record
from tests.app.conftest import TINY
from tests.data.test_mnist import write_files

DATA = ("data=mnist", "data.root=files/here", "data.val_size=10", "trainer.max_epochs=1")
STORE = ("baselines.dir=store", "baselines.train_for_itq=true")


@pytest.fixture
def start(repository, tmp_path, forked):
    """Return a function that runs train.py in a folder of its own, with data in it."""
    write_files(tmp_path / "files" / "here" / "MNIST" / "raw")

    def run(*arguments):
        program = str(repository / "train.py")
        done = forked([program, *arguments, *TINY, *DATA, *STORE], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def entries(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


@pytest.mark.slow
def test_one_store_and_the_same_record_with_and_without(start, tmp_path):
    start("hydra.run.dir=out/plain")
    written = start("hydra.run.dir=out/changed", "hydra.job.chdir=true")
    assert "32-bit training taken from" in written
    assert len(entries(tmp_path / "store")) == 1
    assert len(list(tmp_path.rglob("store"))) == 1
    plain, changed = (
        read_record(tmp_path / "out" / n / "record.json") for n in ("plain", "changed")
    )
    assert comparable(changed) == comparable(plain)


@pytest.mark.slow
@pytest.mark.parametrize(
    "workers",
    [(), pytest.param(("launcher=workers", "exploration.workers=2"), marks=pytest.mark.slow)],
)
def test_a_multirun_shares_the_store(start, tmp_path, workers):
    bits = "quantization.word_length=4,6"
    start("-m", bits, "hydra.job.chdir=true", "hydra.sweep.dir=sweep", *workers)
    assert entries(tmp_path) == ["files", "store", "sweep"]
    assert len(entries(tmp_path / "store")) == 1
    assert len(list(find_records(tmp_path / "sweep"))) == 2


@pytest.mark.slow
def test_an_exploration_in_processes_shares_the_store(start, tmp_path):
    start(
        "hydra.run.dir=explored",
        "hydra.job.chdir=true",
        "exploration.strategy=significance",
        "exploration.roles=[weight]",
        "exploration.word_lengths=[3,6]",
        "exploration.workers=2",
    )
    assert entries(tmp_path) == ["explored", "files", "store"]
    assert len(entries(tmp_path / "store")) == 1


@pytest.fixture
def no_job(monkeypatch):
    """As before any job: Hydra keeps the last one's configuration in its process."""
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)


@pytest.mark.usefixtures("no_job")
def test_what_is_a_path(tmp_path, monkeypatch):
    node = {
        "_target_": "qspinn.data.NMNIST",
        "root": "a",
        "cache": "b/c",
        "by": "time",
        "mine": [{"dirpath": "d", "weights_file": "e", "url_path": "https://f", "name": "g"}],
    }
    monkeypatch.chdir(tmp_path)
    assert with_paths(node) == node  # nobody has changed the folder
    with started_in(tmp_path.parent):
        assert start_folder() == tmp_path.parent
        assert from_start("/a/b") == "/a/b"
        assert with_paths(node) == {
            **node,
            "root": str(tmp_path.parent / "a"),
            "cache": str(tmp_path.parent / "b/c"),
            "mine": [
                {
                    "dirpath": str(tmp_path.parent / "d"),
                    "weights_file": str(tmp_path.parent / "e"),
                    "url_path": "https://f",
                    "name": "g",
                }
            ],
        }
        annotated = {"_target_": "qspinn.report.table.read_table", "source": "x", "path": "y"}
        assert with_paths(annotated)["path"] == str(tmp_path.parent / "y")
    assert start_folder() == tmp_path
