"""Launchers of other packages: their settings compose, and those that are installed run a grid."""

import importlib.util
import os
import signal

import lightning
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from qspinn.app.run.train import train
from qspinn.records import find_records, read_record

PLUGINS = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "ray": "hydra_plugins.hydra_ray_launcher",
    "slurm": "hydra_plugins.hydra_submitit_launcher",
}
LOCAL_RAY = (
    "+hydra.launcher.ray.init.num_cpus=2",
    "+hydra.launcher.ray.init.include_dashboard=false",
    "hydra.launcher.ray.init.object_store_memory=80000000",
)
SLURM_TASK = {
    "SLURM_NTASKS": "2",
    "SLURM_JOB_NAME": "run",
    "SLURM_JOB_ID": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_NODELIST": "localhost",
}


def need(launcher):
    import qspinn.app.run.train  # noqa: F401  (makes hydra_plugins a package, whatever is installed)

    if importlib.util.find_spec(PLUGINS[launcher]) is None:
        pytest.skip(f"launcher={launcher} is not installed: pip install '.[{launcher}]'")


@pytest.mark.parametrize("launcher", PLUGINS)
def test_the_settings_of_a_launcher_are_its_own(repository, launcher):
    need(launcher)
    with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
        overrides = ["experiment=grid_quick", f"launcher={launcher}", "exploration.workers=3"]
        config = compose("train", overrides, return_hydra_config=True)
    settings = OmegaConf.to_container(config.hydra.launcher, resolve=True)
    assert settings["_target_"].startswith("hydra_plugins.qspinn_launchers.")
    assert config.hydra.sweeper._target_.endswith("BasicSweeper")
    assert config.hydra.sweeper.params["quantization.scheme"] == "ptq,itq"
    shown = {"joblib": ("n_jobs", 3), "slurm": ("cpus_per_task", 1), "ray": None}[launcher]
    assert shown is None or settings[shown[0]] == shown[1]


def run_grid(launch, tmp_path, launcher, *more, **environment):
    done = launch(
        "--multirun",
        f"launcher={launcher}",
        "trainer.max_epochs=1",
        "quantization.word_length=3,5",
        f"hydra.sweep.dir={tmp_path / 'runs'}",
        f"baselines.dir={tmp_path / 'store'}",
        *more,
        **environment,
    )
    assert done.returncode == 0, done.stderr
    records = [read_record(path) for path in find_records(tmp_path / "runs")]
    assert sorted(record.word_lengths["weight"] for record in records) == [[3], [5]]
    assert len(list((tmp_path / "store").glob("*/baseline.json"))) == 1


@pytest.mark.slow
def test_a_grid_runs_on_a_local_ray_instance(launch, tmp_path):
    need("ray")
    # Ray lets its workers give way to all others (nice 15): they starve on a busy machine.
    run_grid(launch, tmp_path, "ray", *LOCAL_RAY, RAY_worker_niceness="0")


@pytest.mark.slow
def test_a_grid_runs_with_joblib(launch, tmp_path):
    need("joblib")
    run_grid(launch, tmp_path, "joblib", "exploration.workers=2")


@pytest.mark.slow
def test_a_grid_runs_with_submitit_on_this_machine(launch, tmp_path):
    """Submitit's own stand-in for a cluster: the same jobs, the same pickling, no Slurm."""
    need("slurm")
    run_grid(launch, tmp_path, "basic", "hydra/launcher=submitit_local")


def test_without_an_address_ray_starts_on_this_machine(repository):
    need("ray")
    with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
        config = compose("train", ["launcher=ray"], return_hydra_config=True)
    assert config.hydra.launcher.ray.init.address == "local"


def test_a_slurm_allocation_of_several_tasks_is_not_taken_for_the_runs_own(
    composed, tmp_path, monkeypatch
):
    """Lightning would wait for the others, or refuse, and take over the signals of Submitit."""
    for name, value in SLURM_TASK.items():
        monkeypatch.setenv(name, value)
    handler = signal.getsignal(signal.SIGUSR2)
    record = train(composed("trainer.max_epochs=1"), tmp_path / "run")
    assert record.accuracy >= 0
    assert signal.getsignal(signal.SIGUSR2) is handler


def test_nothing_is_said_of_srun_where_slurm_is_installed(composed, tmp_path, monkeypatch, recwarn):
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{srun.parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.warns(match="srun"):  # Lightning by itself
        lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    recwarn.clear()
    train(composed("trainer.max_epochs=1"), tmp_path / "run")
    assert not [warning for warning in recwarn if "srun" in str(warning.message)]
