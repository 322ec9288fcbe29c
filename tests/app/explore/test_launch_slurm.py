"""Jobs as arrays of Slurm: cut and put in order without one, and run on one of a single node."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest

from qspinn.app.explore.launched import Job
from qspinn.app.explore.slurm_arrays import baseline_of, in_order, max_array_size, parts
from qspinn.records import comparable, find_records, read_record
from tests.app.conftest import TINY
from tests.app.explore import slurm_node

IS_INSTALLED = importlib.util.find_spec("submitit") is not None
needs_submitit = pytest.mark.skipif(
    not IS_INSTALLED, reason="launcher=slurm is not installed: pip install '.[slurm]'"
)


@pytest.fixture
def slurm(tmp_path):
    """Commands of a Slurm that takes three jobs in an array."""
    absent = slurm_node.missing()
    if absent is not None:
        pytest.skip(absent)
    with slurm_node.slurm_node(tmp_path / "slurm", max_array_size=3) as environment:
        yield environment


def test_what_trains_for_others_goes_ahead():
    jobs = [Job(number, []) for number in range(8)]
    baselines = ["a", None, "a", "b", "b", "c", None, "a"]
    ahead, rest = in_order(jobs, baselines)
    assert [job.number for job in ahead] == [0, 3]  # c trains for itself alone
    assert [job.number for job in rest] == [1, 2, 4, 5, 6, 7]
    assert [[job.number for job in part] for part in parts(rest, 4)] == [[1, 2, 4, 5], [6, 7]]
    assert in_order(jobs, [None] * 8) == ([], jobs)


def test_jobs_that_start_from_the_same_training_are_known(composed):
    store = "baselines.dir=store"
    one = baseline_of(composed(store, "quantization.word_length=3"))
    assert one is not None
    same = [("quantization.word_length=5",), ("quantization.scheme=none",), ("progress=none",)]
    others = [("seed=1",), ("network.channels=[8,8,8]",), ("trainer.max_epochs=2",)]
    assert {baseline_of(composed(store, *given)) for given in same} == {one}
    assert len({one, *(baseline_of(composed(store, *given)) for given in others)}) == 4
    assert baseline_of(composed(store, "quantization.scheme=itq")) is None
    twin = ("quantization.scheme=itq", "baselines.train_for_itq=true")
    assert baseline_of(composed(store, *twin)) == one
    assert baseline_of(composed("baselines.dir=null")) is None


@pytest.mark.parametrize(
    ("shown", "size"),
    [
        ("MaxArraySize            = 4001\nMaxJobCount = 10000", 4001),
        ("MaxArraySize=0", 1),
        ("MaxJobCount = 10000", 1001),
        (None, 1001),
    ],
)
def test_slurm_says_how_many_jobs_it_takes(tmp_path, monkeypatch, shown, size):
    if shown is not None:
        scontrol = tmp_path / "scontrol"
        scontrol.write_text(f"#!/bin/sh\ncat <<END\n{shown}\nEND\n")
        scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin" if shown else str(tmp_path))
    assert max_array_size() == size


@pytest.mark.slow
@needs_submitit
def test_a_grid_runs_on_slurm(launch, tmp_path, slurm):
    arguments = (
        "--multirun",
        "trainer.max_epochs=1",
        "quantization.word_length=3,4,5,6,0",
        f"baselines.dir={tmp_path / 'store'}",
    )
    folder = tmp_path / "runs"
    done = launch(
        *arguments,
        "launcher=slurm",
        "hydra.launcher.mem_gb=1",
        f"hydra.sweep.dir={folder}",
        **slurm,
    )
    assert re.findall(r"array (\d) of 3: (\d) jobs", done.stdout) == [
        ("1", "1"),  # trains the 32-bit network
        ("2", "3"),
        ("3", "1"),
    ], done.stderr
    assert done.returncode == 1
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "#4: quantization.word_length=0" in error
    logs = "".join(path.read_text() for path in folder.glob(".submitit/*/*_log.out"))
    assert "32-bit training" in logs
    assert "waiting for" not in logs
    errors = "".join(path.read_text() for path in folder.glob(".submitit/*/*_log.err"))
    assert "srun" not in errors
    assert "SLURM auto-requeueing" not in errors
    again = launch(*arguments, "launcher=basic", f"hydra.sweep.dir={tmp_path / 'basic'}")
    assert again.returncode == 1
    of_slurm, of_basic = (
        {path.parent.name: comparable(read_record(path)) for path in find_records(one)}
        for one in (folder, tmp_path / "basic")
    )
    assert len(of_slurm) == 4
    assert of_slurm == of_basic


@pytest.mark.slow
def test_a_run_in_an_allocation_of_several_tasks(repository, tmp_path, slurm):
    """``srun`` starts the program twice, and both are of the same run."""
    folder = tmp_path / "run"
    program = ("srun", "--ntasks=2", sys.executable, "train.py")
    done = subprocess.run(
        [*program, *TINY, "trainer.max_epochs=1", "baselines.dir=null", f"hydra.run.dir={folder}"],
        cwd=repository,
        env={**os.environ, **slurm},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert read_record(folder / "record.json").accuracy >= 0
    assert not (folder / "failure.json").exists()
    assert done.stdout.count("is the record of this run already") == 1
