"""Launchers of processes, of which some die: what is lost is that job's and nobody else's."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

# A program of a few lines in the place of train.py: its jobs die before PyTorch could be imported.
APP = """
import os, signal, sys, time
from pathlib import Path
import hydra
from hydra.core.hydra_config import HydraConfig

@hydra.main(version_base="1.3", config_path=".", config_name="app")
def run(config):
    folder = Path(HydraConfig.get().runtime.output_dir)
    attempt = len(list(folder.glob("attempt*")))
    (folder / f"attempt{attempt}").touch()
    # joblib ends all processes with one: let the other job that dies have come to its first line.
    while config.what == "dies" and not (folder.parent / "1" / "attempt0").exists():
        time.sleep(0.05)
    if config.what == "dies" or (config.what == "dies once" and attempt == 0):
        os.kill(os.getpid(), signal.SIGKILL)
    if config.what == "raises":
        raise ValueError("no such value")
    if config.what == "exits":
        sys.exit(143)
    (folder / "record").touch()
    return 1.0

run()
"""
CONFIG = """
defaults:
  - _self_
  - override hydra/launcher: {launcher}
what: fine
threads: 1
hydra:
  sweep:
    dir: runs
    subdir: ${{hydra:job.num}}
  launcher:
    _target_: hydra_plugins.qspinn_launchers.{name}
    {settings}
"""
LAUNCHERS = {
    "joblib": ("QspinnJoblibLauncher", "n_jobs: 2", "joblib"),
    "ray": (
        "QspinnRayLauncher",
        "ray: {init: {address: local, num_cpus: 2, include_dashboard: false,"
        " object_store_memory: 80000000}, remote: {max_retries: 1}}",
        "ray",
    ),
}
WHATS = ["fine", "dies once", "raises", "exits", "dies", "fine as well"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["joblib", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_job_that_dies_ends_no_other(repository, tmp_path, kind):
    name, settings, package = LAUNCHERS[kind]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install '.[{kind}]'")
    (tmp_path / "app.py").write_text(APP)
    text = CONFIG.format(launcher=kind, name=name, settings=settings)
    (tmp_path / "app.yaml").write_text(text)
    plugins = repository / "qspinn" / "app" / "plugins"
    done = subprocess.run(
        [sys.executable, "app.py", "-m", f"what={','.join(WHATS)}"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": f"{repository}{os.pathsep}{plugins}",
            "RAY_worker_niceness": "0",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    runs = [tmp_path / "runs" / str(number) for number in range(len(WHATS))]
    recorded = {what for what, run in zip(WHATS, runs, strict=True) if (run / "record").exists()}
    assert recorded == {"fine", "dies once", "fine as well"}, done.stderr
    dead = [run for what, run in zip(WHATS, runs, strict=True) if what == "dies"]
    for run in dead:
        assert json.loads((run / "failure.json").read_text())["error"] == "ProcessDied"
        # joblib ends all processes with one, and may have done so before the job's first line.
        assert len(list(run.glob("attempt*"))) in ((1, 2) if kind == "joblib" else (2,))
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: #")]
    assert [line.split()[2].removeprefix("what=").rstrip(":") for line in errors] == [
        what for what in WHATS if what in ("dies", "raises", "exits")
    ]
    assert "3 done, 3 failed" in done.stdout
    assert done.returncode == 1
