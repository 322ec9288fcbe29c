"""Jobs in joblib processes, of which some may die.

When a loky process dies, joblib ends all others and raises an error, and their results are lost.
Here each job writes a file when it begins and one when it ends. Jobs that had not begun are given
to new processes. Which of the running jobs lost its process is unknown: each is run once more,
alone, after the others, and fails if its process dies again.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from joblib import Parallel, delayed
from joblib.externals.loky.backend.reduction import dumps
from joblib.externals.loky.process_executor import BrokenProcessPool

from qspinn.app.explore.launched import Job, failed, lost, numbered, say_failures, say_jobs
from qspinn.app.explore.workers import WorkersCannotStart
from qspinn.app.hydra_internals import joblib_launcher
from qspinn.atomic import write_bytes

MOST_ROUNDS = 2
"""Times that all processes may die before any begins with a job."""


def launch(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Run the jobs of a multirun as Hydra's joblib launcher does, but survive dead processes."""
    jobs = numbered(launcher, job_overrides, first)
    settings = {**launcher.joblib, "backend": "loky"}
    joblib_launcher().process_joblib_cfg(settings)
    shown = ",".join(f"{name}={value}" for name, value in settings.items())
    say_jobs(jobs, f"joblib.Parallel({shown}) runs {len(jobs)} jobs")
    state = Singleton.get_state()
    with tempfile.TemporaryDirectory(prefix="qspinn-") as folder:
        common = (launcher.hydra_context, launcher.config, launcher.task_function, state)
        rounds = Rounds(Path(folder), common, settings)
        deaths = rounds.run(jobs)
        told = [
            lost(launcher, job, deaths[job.number])
            if job.number in deaths
            else rounds.result(job.number)
            for job in jobs
        ]
    return say_failures(jobs, told)


class Rounds:
    """Hands jobs to joblib until all are done or have died.

    Args:
        folder: For the files that say which job has begun and ended.
        common: What all jobs are given.
        settings: Of :class:`joblib.Parallel`.
    """

    def __init__(self, folder: Path, common: tuple[Any, ...], settings: dict[str, Any]) -> None:
        self.folder = folder
        self.common = common
        self.settings = settings

    def run(self, jobs: Sequence[Job]) -> dict[int, str]:
        """Run jobs; the numbers of those whose processes died twice, and how."""
        waiting, suspects, idle = list(jobs), [], 0
        while waiting and (death := self._round(waiting, self.settings)):
            left = [job for job in waiting if not _file(self.folder, job.number, "ended").exists()]
            begun = [job for job in left if _file(self.folder, job.number, "begun").exists()]
            suspects += begun
            idle = idle + 1 if len(left) == len(waiting) and not begun else 0
            if idle == MOST_ROUNDS:
                raise WorkersCannotStart(f"no process of joblib begins with a job: {death}")
            waiting = [job for job in left if job not in begun]
            print(f"{death}\n{len(begun)} jobs were running: they are tried once more, alone")
        deaths = {}
        for job in suspects:
            # With one job and one process joblib would run it in this process.
            if death := self._round([job], {**self.settings, "n_jobs": 2}):
                deaths[job.number] = death
        return deaths

    def result(self, number: int) -> JobReturn:
        """What Hydra is told of a job that has ended."""
        return cast(JobReturn, pickle.loads(_file(self.folder, number, "ended").read_bytes()))

    def _round(self, jobs: Sequence[Job], settings: dict[str, Any]) -> str:
        """Run jobs; how a process died, or nothing."""
        calls = [delayed(_run)(self.folder, job.number, job.overrides, self.common) for job in jobs]
        try:
            Parallel(**settings)(calls)
        except BrokenProcessPool as error:
            return f"a process of joblib died: {' '.join(str(error).split())}"
        return ""


def _file(folder: Path, number: int, what: str) -> Path:
    return folder / f"{number}.{what}"


def _run(folder: Path, number: int, overrides: list[str], common: tuple[Any, ...]) -> None:
    """What a process does with a job."""
    _file(folder, number, "begun").touch()
    try:
        told = bytes(dumps(joblib_launcher().execute_job(number, overrides, *common)))
    except (Exception, SystemExit) as error:
        # joblib would end all other jobs because of it.
        shown = f"exit code {error.code}" if isinstance(error, SystemExit) else str(error)
        why = RuntimeError(f"{type(error).__name__}: {shown}")
        told = bytes(dumps(failed(Job(number, overrides), why)))
    write_bytes(told, _file(folder, number, "ended"))
