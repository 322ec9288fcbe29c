"""Launchers of other packages that survive the death of a job: see ``conf/launcher``.

Each is Hydra's own with its settings; only the distribution of jobs is replaced. A launcher whose
package is not installed is not defined.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

# Hydra imports this file at every start: what it calls is imported when a launcher is used.
with suppress(ImportError):
    from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher

    class QspinnJoblibLauncher(JoblibLauncher):
        """Processes of joblib on this machine."""

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Any:
            """Run the jobs and return the outcome of each for Hydra."""
            from qspinn.app.explore.launch_joblib import launch

            return launch(self, job_overrides, initial_job_idx)


with suppress(ImportError):
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher

    class QspinnSlurmLauncher(SlurmLauncher):
        """Job arrays of Slurm."""

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Any:
            """Run the jobs and return the outcome of each for Hydra."""
            from qspinn.app.explore.launch_slurm import launch

            return launch(self, job_overrides, initial_job_idx)


with suppress(ImportError):
    from hydra_plugins.hydra_ray_launcher.ray_launcher import RayLauncher

    class QspinnRayLauncher(RayLauncher):
        """Tasks of Ray."""

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Any:
            """Run the jobs and return the outcome of each for Hydra."""
            from qspinn.app.explore.launch_ray import launch

            return launch(self, job_overrides, initial_job_idx)
