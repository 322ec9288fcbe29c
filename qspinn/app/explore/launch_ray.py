"""Jobs as Ray tasks, of which some may fail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn

from qspinn.app.explore.launched import (
    Job,
    composed,
    failed,
    lost,
    numbered,
    say_failures,
    say_jobs,
)
from qspinn.app.hydra_internals import ray_launcher


def launch(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Run the jobs of a multirun as Hydra's Ray launcher does, but survive dead jobs.

    Ray itself restarts a job whose process died up to three times; then the job has failed, and
    the others continue.
    """
    jobs = numbered(launcher, job_overrides, first)
    hydra_ray = ray_launcher()
    hydra_ray.start_ray(launcher.ray_cfg.init)
    say_jobs(jobs, f"Ray runs {len(jobs)} jobs")
    state = Singleton.get_state()
    tasks = [
        hydra_ray.launch_job_on_ray(
            launcher.hydra_context,
            launcher.ray_cfg.remote,
            composed(launcher, job, f"job_id_for_{job.number}"),
            launcher.task_function,
            state,
        )
        for job in jobs
    ]
    return say_failures(
        jobs, [_gathered(launcher, job, task) for job, task in zip(jobs, tasks, strict=True)]
    )


def _gathered(launcher: Any, job: Job, task: Any) -> JobReturn:
    """Wait for a job."""
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        return failed(job, RuntimeError(str(error)))
    except ray.exceptions.RayError as error:
        return lost(launcher, job, f"{type(error).__name__}: {' '.join(str(error).split())}")
