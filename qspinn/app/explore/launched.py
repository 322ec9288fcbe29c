"""The outcomes of jobs that a Hydra launcher runs in other processes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict

from qspinn.app.errors import print_error
from qspinn.app.hydra_internals import result_or_error


@dataclass(frozen=True)
class Job:
    """A job of a multirun.

    Attributes:
        number: Its place in the multirun.
        overrides: What it sets.
    """

    number: int
    overrides: list[str]

    def __str__(self) -> str:
        return f"#{self.number}: {' '.join(filter_overrides(self.overrides))}"


def numbered(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> list[Job]:
    """Return the jobs that Hydra hands to a launcher, prepared as Hydra's own launchers do it.

    Args:
        launcher: Hydra's, with its settings.
        job_overrides: What each job sets.
        first: The number of the first.
    """
    setup_globals()
    configure_log(launcher.config.hydra.hydra_logging, launcher.config.hydra.verbose)
    folder = Path(str(launcher.config.hydra.sweep.dir))
    folder.mkdir(parents=True, exist_ok=True)
    if "mode" in launcher.config.hydra.sweep:
        folder.chmod(int(str(launcher.config.hydra.sweep.mode), 8))
    return [Job(first + place, list(given)) for place, given in enumerate(job_overrides)]


def say_jobs(jobs: Iterable[Job], title: str) -> None:
    """Print jobs under a title."""
    print(title, *jobs, sep="\n\t", flush=True)


def composed(launcher: Any, job: Job, name: str) -> DictConfig:
    """Compose a job, and say in it which one it is; its name is `hydra.job.id`."""
    config: DictConfig = launcher.hydra_context.config_loader.load_sweep_config(
        launcher.config, job.overrides
    )
    with open_dict(config.hydra.job):
        config.hydra.job.num = job.number
        config.hydra.job.id = name
    return config


def failed(job: Job, error: Exception) -> JobReturn:
    """What Hydra is told of a job that failed."""
    told = JobReturn(overrides=job.overrides, status=JobStatus.FAILED)
    told.return_value = error
    return told


def lost(launcher: Launcher, job: Job, message: str) -> JobReturn:
    """Record that the process of a job died, and return what Hydra is told of it."""
    # Not at the top: it imports PyTorch, and processes that start a job import this file first.
    from qspinn.app.folder.failures import ProcessDied, record_failure

    death = ProcessDied(message)
    record_failure(*split(composed(launcher, job, str(job.number))), death)
    return failed(job, death)


def say_failures(jobs: Sequence[Job], told: Iterable[JobReturn]) -> list[JobReturn]:
    """Print a line for each job that failed, all of them, and return what Hydra is told.

    Hydra itself names the first one only.
    """
    pairs = list(zip(jobs, told, strict=True))
    bad = [(job, one) for job, one in pairs if one.status is not JobStatus.COMPLETED]
    shared = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    for job, one in bad:
        own = Job(job.number, [text for text in job.overrides if text not in shared])
        print_error(f"{own}: {result_or_error(one)}")
    print(f"{len(pairs) - len(bad)} done, {len(bad)} failed", flush=True)
    return [one for _, one in pairs]


def split(config: DictConfig) -> tuple[DictConfig, Path]:
    """The configuration of a job without the node ``hydra``, and its folder.

    Whatever refers to the job's own node ``hydra`` is resolved before that is gone.
    """
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        folder = Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)
        with open_dict(config):
            del config["hydra"]
        OmegaConf.resolve(config)
    finally:
        HydraConfig.instance().cfg = before
    return config, folder.absolute()
