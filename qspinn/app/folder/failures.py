"""Records why a run failed."""

from __future__ import annotations

import pickle
import sys
import traceback
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qspinn.app.errors import ConfigurationError
from qspinn.app.folder.folder import RunFolder
from qspinn.app.folder.identity import identity, now
from qspinn.app.folder.ownership import FolderError
from qspinn.app.signals import raise_if_stopped
from qspinn.records import RunFailure


def record_failure(config: DictConfig, output: Path, error: BaseException) -> RunFailure:
    """Write ``failure.json`` into the output folder of a run that an error has ended.

    Raises:
        Stopped: A signal did, and the error is a consequence.
    """
    raise_if_stopped()
    try:
        values: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException:  # perhaps that is the error
        values = OmegaConf.to_container(config)
    trace = "".join(traceback.format_exception(error)) if error.__traceback__ else ""
    failure = failure_of(error, _printable(identity(cast(dict[str, Any], values))), trace)
    if not isinstance(error, FolderError):  # that folder is not this run's
        try:
            RunFolder(output).save_failure(failure)
        except (OSError, ConfigurationError) as trouble:  # the first error is the one to show
            print(f"failure.json cannot be written in {output}: {trouble}", file=sys.stderr)
    return failure


def failure_of(error: BaseException, config: dict[str, Any], trace: str = "") -> RunFailure:
    """Return what is written of an error that came just now."""
    return RunFailure(
        error=type(error).__name__,
        message=str(error),
        traceback=trace,
        config=config,
        created=now(),
    )


class ProcessDied(Exception):
    """The process of a run was ended from outside."""


def transportable(error: Exception) -> Exception:
    """Return the error, or one with its message if it cannot be pickled.

    A launcher with worker processes would lose all its jobs over an error that it cannot send.
    """
    try:
        travelled = pickle.loads(pickle.dumps(error))
    except Exception:
        travelled = None
    if type(travelled) is type(error) and str(travelled) == str(error):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def _printable(value: Any) -> Any:
    """The same with strings for what JSON cannot hold: NaN and infinity."""
    if isinstance(value, dict):
        return {str(key): _printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_printable(item) for item in value]
    is_odd = isinstance(value, float) and (value != value or value in (float("inf"), -float("inf")))
    return str(value) if is_odd else value
