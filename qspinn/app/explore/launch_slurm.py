"""Jobs as Slurm arrays: first those that train a 32-bit network for others, then the rest."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import cloudpickle
import submitit
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
from omegaconf import OmegaConf

from qspinn.app.explore.launched import Job, failed, lost, numbered, say_failures, say_jobs
from qspinn.app.explore.slurm_arrays import baseline_of, in_order, max_array_size, parts
from qspinn.app.explore.sweep import Composer


def launch(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Run the jobs of a multirun in arrays, one after the other, as large as Slurm allows.

    Jobs that start from the same 32-bit training would wait for the one that trains it, each in an
    allocation of its own. The first array therefore has one job for each such training, the others
    follow.
    """
    jobs = numbered(launcher, job_overrides, first)
    print(f"composing {len(jobs)} jobs", flush=True)
    composer = Composer(launcher.hydra_context, launcher.config)
    ahead, rest = in_order(jobs, [_baseline(composer, job) for job in jobs])
    size = max_array_size()
    arrays = [part for group in (ahead, rest) for part in parts(group, size)]
    executor = _executor(launcher)
    common = Common(launcher, Singleton.get_state())
    told: dict[int, JobReturn] = {}
    for place, array in enumerate(arrays, 1):
        say_jobs(array, f"array {place} of {len(arrays)}: {len(array)} jobs")
        numbers = [job.number for job in array]
        submitted = executor.map_array(common, [job.overrides for job in array], numbers)
        print(f"submitted as {submitted[0].job_id.partition('_')[0]}", flush=True)
        for job, task in zip(array, submitted, strict=True):
            told[job.number] = _gathered(launcher, job, task)
    return say_failures(jobs, [told[job.number] for job in jobs])


class Common:
    """What all jobs share, pickled once: a job in an array of thousands is then a few words.

    Args:
        launcher: Hydra's; called in the job, it runs it.
        state: Hydra's, of the process that launches.
    """

    def __init__(self, launcher: Any, state: dict[type, Singleton]) -> None:
        self.pickled = cloudpickle.dumps((launcher, state))

    def __call__(self, overrides: list[str], number: int) -> JobReturn:
        """Run a job."""
        launcher, state = pickle.loads(self.pickled)
        told: JobReturn = launcher(
            overrides, "hydra.sweep.dir", number, f"job_id_for_{number}", state
        )
        return told

    def checkpoint(self, *arguments: Any) -> submitit.helpers.DelayedSubmission:
        """The job that Submitit requeues when the time limit is reached: the same one."""
        return submitit.helpers.DelayedSubmission(self, *arguments)


def _baseline(composer: Composer, job: Job) -> str | None:
    """The training that a job starts from; None too if its configuration is invalid."""
    try:
        return baseline_of(composer.candidate(job.number, job.overrides).config)
    except Exception:
        return None


def _executor(launcher: Any) -> submitit.AutoExecutor:
    """Submitit's, with the settings of Hydra's launcher."""
    settings = dict(launcher.params)
    executor = submitit.AutoExecutor(
        folder=settings.pop("submitit_folder"),
        cluster="slurm",
        slurm_max_num_timeout=settings.pop("max_num_timeout"),
    )
    general = set(OmegaConf.structured(BaseQueueConf))
    executor.update_parameters(
        **{name if name in general else f"slurm_{name}": v for name, v in settings.items()}
    )
    return executor


def _gathered(launcher: Any, job: Job, task: submitit.Job[JobReturn]) -> JobReturn:
    """Wait for a job."""
    try:
        return task.results()[0]
    except submitit.core.utils.FailedJobError as error:
        return failed(job, RuntimeError(str(error)))
    except submitit.core.utils.UncompletedJobError as error:
        return lost(launcher, job, f"Slurm job {task.job_id}: {str(error).splitlines()[0]}")
