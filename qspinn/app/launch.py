"""What a launch of train.py runs: a single run, a job of a multirun, or a search."""

from __future__ import annotations

import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from qspinn.app.completing import complete
from qspinn.app.errors import ConfigurationError
from qspinn.app.failures import record_failure, transportable
from qspinn.app.orphans import end_with_launcher
from qspinn.app.train import train

__all__ = ["main"]


def main(config: DictConfig) -> float:
    """Run one job of a launch and return its accuracy.

    A value that cannot be ends a single run with a message and exit code 2. In a multirun the error
    is recorded in the job's folder and raised, so that the other jobs go on and Hydra exits with 1.
    """
    end_with_launcher()
    output = Path(HydraConfig.get().runtime.output_dir)
    is_single = HydraConfig.get().mode is not RunMode.MULTIRUN
    try:
        config = complete(config)
        if config.exploration.strategy is not None:
            from qspinn.app.strategies import explore_by_strategy

            return explore_by_strategy(config, output)
        return train(config, output).accuracy
    except ConfigurationError as error:
        if not is_single:
            record_failure(config, output, error)
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except Exception as error:
        record_failure(config, output, error)
        if is_single:
            raise
        raise transportable(error) from error
