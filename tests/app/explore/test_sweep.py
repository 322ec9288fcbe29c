"""A multirun by qspinn's own sweeper: what Hydra's would do, faster, and whatever happens."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter

import pytest
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf

import qspinn.app.run.train  # registers what conf/train.yaml uses
from qspinn.app.explore.sweep import Composer
from qspinn.records import comparable, find_records, read_failure, read_record

STEP = "qspinn.learning.supervised:SupervisedLearning:training_step"
GRID = (
    "--multirun",
    "quantization.scheme=ptq,itq",
    "quantization.word_length=3,5",
    "quantization.rounding=stochastic",
)

AXES = [
    ("seed=0,1", "quantization.word_length=range(2,5)"),
    ("case=supervised_quick,unsupervised_quick", "quantization.scheme=ptq,itq"),
    ("+trainer.max_steps=3,4", "network.channels=[4,4,4],[8,8,8]"),
    ("~callbacks.pictures", "learning.optimizer.lr=0.1,0.2", "fresh=true"),
    ("learning.scheduler.max_lr=0.5", "learning.optimizer.lr=0.1,0.2"),
    ("quantization.roles.membrane.format=Q1.6,null", "logger=csv,wandb"),
    ("experiment=unsupervised_quick", "network.neurons=9,16", "++network.time_steps=7,8"),
]


@pytest.mark.few(0.1)
@pytest.mark.parametrize("arguments", AXES, ids=str)
def test_jobs_are_composed_as_hydra_composes_them(repository, arguments):
    assert qspinn.app.run.train
    with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("train", ["launcher=workers"], run_mode=RunMode.MULTIRUN)
        context = HydraContext(config_loader=loader, callbacks=Callbacks())
        HydraConfig.instance().set_config(config)
        parser = OverridesParser.create(config_loader=loader)
        (jobs,) = BasicSweeper.split_arguments(parser.parse_overrides(list(arguments)), None)
        composer = Composer(context, config)
        ours = [composer.candidate(number, list(job)) for number, job in enumerate(jobs)]
        assert len(ours) == len(jobs) > 1
        for job, candidate in zip(jobs, ours, strict=True):
            wanted = loader.load_sweep_config(config, list(job))
            HydraConfig.instance().set_config(wanted)
            folder = os.path.join(wanted.hydra.sweep.dir, wanted.hydra.sweep.subdir)
            assert str(candidate.folder) == os.path.abspath(folder)
            values = OmegaConf.to_container(
                OmegaConf.masked_copy(wanted, [key for key in wanted if key != "hydra"]),
                resolve=True,
            )
            assert OmegaConf.to_container(candidate.config, resolve=True) == values
        assert len({candidate.folder for candidate in ours}) == len(jobs)


def records_of(folder):
    return {path.parent.name: comparable(read_record(path)) for path in find_records(folder)}


def grid_in(folder, launcher="workers"):
    return (
        *GRID,
        f"launcher={launcher}",
        f"hydra.sweep.dir={folder / 'runs'}",
        f"baselines.dir={folder / 'store'}",
    )


@pytest.mark.slow
def test_folders_and_records_are_those_of_hydra(launch, tmp_path):
    sweeps = {}
    for launcher in ("workers", "basic"):
        folder = tmp_path / launcher
        done = launch(*grid_in(folder, launcher), "trainer.max_epochs=1")
        assert done.returncode == 0, done.stderr
        sweeps[launcher] = records_of(folder / "runs")
    assert len(sweeps["workers"]) == 4
    assert sweeps["workers"] == sweeps["basic"]


def epochs_trained(folder):
    """How often each epoch of each training was trained to its end."""
    found = Counter()
    for path in sorted(folder.glob("runs/*/output.txt")):
        found.update(re.findall(r"^epoch \d/3  train/loss [\d.]+", path.read_text(), re.M))
    return found


@pytest.mark.campaign
@pytest.mark.slow
def test_a_grid_that_is_killed_twice_ends_as_an_unbroken_one(launch, launch_killed, tmp_path):
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    # In the second epoch of the baseline; then in the third of the first ITQ training, which the
    # 8 batches that the baseline still had precede.
    for count, records in ((6, 0), (18, 2)):
        killed = launch_killed(STEP, count, *grid_in(broken))
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert len(records_of(broken / "runs")) == records
    for folder in (broken, unbroken):
        done = launch(*grid_in(folder))
        assert done.returncode == 0, done.stderr
    assert len(records_of(broken / "runs")) == 4
    assert records_of(broken / "runs") == records_of(unbroken / "runs")
    # Three trainings of three epochs: none was trained to its end twice.
    counts = epochs_trained(broken)
    assert counts == epochs_trained(unbroken)
    assert sum(counts.values()) == 9
    again = launch(*grid_in(broken))
    assert again.returncode == 0
    assert epochs_trained(broken) == counts


def launched(repository, arguments):
    from tests.app.conftest import TINY

    assert arguments[0] == "--multirun"
    return subprocess.Popen(
        [sys.executable, "train.py", "--multirun", *TINY, *arguments[1:]],
        cwd=repository,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_processes_that_are_killed_with_their_parent(launch, repository, tmp_path):
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    two = (*grid_in(broken), "exploration.workers=2")
    for _ in range(2):
        process = launched(repository, two)
        assert "4 jobs in 2 processes" in process.stdout.readline()
        line = process.stdout.readline()  # until something is done
        assert line.startswith("[1/4]"), line
        process.kill()
        process.communicate()
    for overrides in (two, grid_in(unbroken)):
        done = launch(*overrides)
        assert done.returncode == 0, done.stderr
    assert records_of(broken / "runs") == records_of(unbroken / "runs")


@pytest.mark.parametrize("launcher", ["workers", pytest.param("joblib", marks=pytest.mark.slow)])
def test_a_job_that_fails_stops_no_other_and_shows_in_the_exit_code(launch, tmp_path, launcher):
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="pip install .[joblib]")
    done = launch(
        "--multirun",
        f"launcher={launcher}",
        "trainer.max_epochs=1",
        "quantization.word_length=0,4",
        f"hydra.sweep.dir={tmp_path}",
    )
    assert done.returncode == 1
    assert "word_length=0; write 1 to 24" in done.stderr
    (record,) = find_records(tmp_path)
    assert read_record(record).word_lengths["weight"] == [4]
    (failure,) = tmp_path.glob("*/failure.json")
    assert read_failure(failure).error == "ConfigurationError"


def test_a_bad_number_of_workers_is_one_line(launch, tmp_path):
    done = launch(*grid_in(tmp_path), "exploration.workers=0")
    assert done.returncode == 2
    assert done.stderr == "error: exploration.workers=0; write a number of processes, 1 or more\n"
