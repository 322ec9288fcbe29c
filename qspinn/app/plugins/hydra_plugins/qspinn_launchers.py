"""Launchers of other packages that survive the death of a job: see ``conf/launcher``.

Each is Hydra's own with its settings; only the distribution of jobs is replaced. A launcher whose
package is not installed is not defined.
"""

from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any


class _Surviving:
    """Distributes jobs by the function ``launch`` of a module."""

    module: str

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Any:
        """Run the jobs and return the outcome of each for Hydra."""
        # Not at the top: Hydra imports this file at every start.
        module = import_module(f"qspinn.app.explore.{self.module}")
        return module.launch(self, job_overrides, initial_job_idx)


with suppress(ImportError):
    from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher

    class QspinnJoblibLauncher(_Surviving, JoblibLauncher):
        """Processes of joblib on this machine."""

        module = "launch_joblib"


with suppress(ImportError):
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher

    class QspinnSlurmLauncher(_Surviving, SlurmLauncher):
        """Job arrays of Slurm."""

        module = "launch_slurm"


with suppress(ImportError):
    from hydra_plugins.hydra_ray_launcher.ray_launcher import RayLauncher

    class QspinnRayLauncher(_Surviving, RayLauncher):
        """Tasks of Ray."""

        module = "launch_ray"
