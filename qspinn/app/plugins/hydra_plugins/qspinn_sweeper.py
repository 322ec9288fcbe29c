"""The sweeper of qspinn, in a package of the name that Hydra searches for plugins."""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


# No `from __future__ import annotations` here: Hydra executes this file before the module is in
# sys.modules, where dataclasses resolve annotations that are strings.
@dataclass
class QspinnSweeperConfig:
    """Its settings: see ``conf/launcher/workers.yaml``."""

    _target_: str = "hydra_plugins.qspinn_sweeper.QspinnSweeper"
    workers: Any = "${exploration.workers}"
    params: dict[str, str] | None = None


ConfigStore.instance().store(
    group="hydra/sweeper", name="qspinn", node=QspinnSweeperConfig, provider="qspinn"
)


class QspinnSweeper(Sweeper):
    """Runs the jobs of a multirun in persistent processes; in this one if there is only one.

    Args:
        workers: Processes, 1 or more.
        params: Keys to the values that are swept, as on the command line (``"2,4,6"``).
    """

    def __init__(self, workers: Any = 1, params: dict[str, str] | None = None) -> None:
        self.workers = workers
        self.params = dict(params or {})

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra hands over."""
        del task_function
        self.hydra_context = hydra_context
        self.config = config

    def sweep(self, arguments: list[str]) -> Any:
        """Run a job for each combination of values."""
        from qspinn.app.explore.sweep import sweep

        assert self.hydra_context is not None  # set just before
        assert self.config is not None
        swept = [f"{key}={values}" for key, values in self.params.items()]
        return sweep(self.hydra_context, self.config, [*swept, *arguments], self.workers)
