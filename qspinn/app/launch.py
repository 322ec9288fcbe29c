"""What a launch of train.py runs: a single run, a job of a multirun, or a search."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import cast

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from qspinn.app.compose.completing import complete, to_plain
from qspinn.app.compose.limits import check_known_keys
from qspinn.app.errors import (
    ConfigurationError,
    RunError,
    is_full,
    is_message,
    print_error,
    storage_trouble,
)
from qspinn.app.explore.objective import check_objective, objective_of, objective_of_stopped
from qspinn.app.folder.failures import record_failure, transportable
from qspinn.app.folder.files import CHECKPOINTS
from qspinn.app.orphans import end_with_launcher
from qspinn.app.run.gate import CandidateStopped
from qspinn.app.run.train import train
from qspinn.app.signals import Stopped, raise_if_stopped, say_on_stop


def main(config: DictConfig) -> float | tuple[float, ...]:
    """Run one job of a launch and return what its objective names, for a sweeper to choose by.

    Accuracies are those on validation data; on test data only where nothing was held out.

    An invalid value ends a single run with a message and exit code 2, a run that cannot continue
    with a message and 1. In a multirun the error is recorded in the job's folder and raised, so
    that the other jobs continue and Hydra exits with 1. A signal ends all of them.
    """
    end_with_launcher()
    output = Path(HydraConfig.get().runtime.output_dir)
    is_single = HydraConfig.get().mode is not RunMode.MULTIRUN
    if is_single:
        say_on_stop(lambda: how_to_go_on(config, output))
    try:
        check_known_keys(config, cast(DictConfig, HydraConfig.get()))
        return run(complete(config), output)
    except ConfigurationError as error:
        raise_if_stopped()
        if not is_single:
            record_failure(config, output, error)
            raise
        print_error(error)
        raise SystemExit(2) from None
    except Exception as error:
        raise_if_stopped()
        shown = short(error)
        ends = shown is not None and (is_single or (is_full(error) and _is_one_after_another()))
        if ends:  # before what follows from it
            print_error(shown)
        record_failure(config, output, error if shown is None else shown)
        if ends:
            raise SystemExit(1) from None
        if not is_single:
            raise transportable(shown or error) from error
        raise


def _is_one_after_another() -> bool:
    """Whether Hydra's basic launcher runs the jobs: on a full disk it would fail with the next one.

    It writes the configuration of each there before the job begins, and says only its own error.
    """
    return str(HydraConfig.get().launcher.get("_target_", "")).endswith(".BasicLauncher")


def run(config: DictConfig, output: Path) -> float | tuple[float, ...]:
    """Run what the configuration asks for.

    Raises:
        RunError: Code of the run has tried to end the program, which would look like success.
    """
    objective = to_plain(config)["objective"]
    check_objective(objective)
    try:
        if config.exploration.strategy is not None:
            from qspinn.app.explore.strategies import explore_by_strategy

            return explore_by_strategy(config, output)
        return objective_of(train(config, output), objective)
    except CandidateStopped as stop:  # what a Hydra sweeper is told
        return objective_of_stopped(stop.report.validation_accuracy, objective)
    except Stopped:
        raise
    except SystemExit as error:
        raise_if_stopped()
        raise RunError(
            f"something in the run called sys.exit({error.code!r}) before it was done: there is "
            "no record"
        ) from error


def short(error: Exception) -> Exception | None:
    """Return the error as one sentence; None if only a traceback would explain it."""
    if isinstance(error, RunError):
        return error
    trouble = storage_trouble(error)
    if trouble is None:
        return RunError(str(error)) if is_message(error) else None
    return RunError(
        f"{trouble}; make room there, or see who may write; what was computed is kept up to the "
        "last checkpoint, and the run goes on when it is started again in its folder"
    )


def how_to_go_on(config: DictConfig, output: Path) -> str:
    """Return how to continue after a single run or a search was stopped.

    The configuration may have less than what ``conf/train.yaml`` composes.
    """
    name = str(output)
    if not re.fullmatch(r"[\w./+@~-]+", name):  # else Hydra would take it for a list, say
        escaped = re.sub(r"(\\*)'", r"\1\1\\'", name)
        name = f"'{escaped}'"
    exploration = config.get("exploration")
    checkpoints = output / CHECKPOINTS
    if exploration is not None and exploration.get("strategy") is not None:
        what = "goes on with what is left"
    elif checkpoints.is_dir() and any(checkpoints.glob("*.ckpt")):
        what = "goes on from its last checkpoint"
    else:
        what = "starts it anew there"
    return f"the same command with {shlex.quote(f'hydra.run.dir={name}')} {what}"
