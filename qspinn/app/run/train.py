"""One training run: from a configuration to a record."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from qspinn.app.compose.checking import check_targets
from qspinn.app.compose.completing import complete, to_plain
from qspinn.app.compose.gate_settings import gate_settings
from qspinn.app.compose.limits import check_limits
from qspinn.app.compose.trainer_limits import check_trainer_arguments
from qspinn.app.console import quiet_lightning
from qspinn.app.errors import ConfigurationError, naming
from qspinn.app.folder.folder import RunFolder
from qspinn.app.folder.identity import check_fresh
from qspinn.app.folder.naming import changes, job_folder
from qspinn.app.folder.new_folder import new_folder
from qspinn.app.run.baselines import store_from_config
from qspinn.app.run.building import check_seed, load_data, set_threads
from qspinn.app.run.data_fingerprint import data_state
from qspinn.app.run.gate import CandidateStopped, Gate
from qspinn.app.run.job import Job
from qspinn.app.run.quantization import plan_from_config
from qspinn.records import RecordError, RunRecord, read_gate_report, write_record
from qspinn.report import print_footprint

# Hydra looks for plugins in every folder hydra_plugins on the path. Launchers send Hydra's state,
# which names the plugins, to processes that have to find them as well.
PLUGINS = str(Path(__file__).parents[1] / "plugins")
sys.path.append(PLUGINS)
if PLUGINS not in (paths := os.environ.get("PYTHONPATH", "").split(os.pathsep)):
    os.environ["PYTHONPATH"] = os.pathsep.join([*filter(None, paths), PLUGINS])

# conf/train.yaml: the name of a job's folder in a sweep.
OmegaConf.register_new_resolver("qspinn.job_folder", job_folder, replace=True)
# conf/train.yaml: a run gets a new folder.
OmegaConf.register_new_resolver("qspinn.new_folder", new_folder, replace=True)
# conf/logger/wandb.yaml: environment variables take precedence over its defaults, unless empty.
OmegaConf.register_new_resolver(
    "qspinn.env", lambda name, default=None: os.environ.get(name) or default, replace=True
)
# conf/logger/wandb.yaml: a run is named by its overrides.
OmegaConf.register_new_resolver("qspinn.changes", changes, replace=True)


def train(config: DictConfig, output: Path) -> RunRecord:
    """Train, quantise, evaluate and record as the configuration says.

    If the folder holds the record of this configuration, nothing is run. A run of it that was
    interrupted there is resumed from its last checkpoint, and ends with the same record as an
    uninterrupted run. If such a run is active there, this one waits for it.

    Raises:
        ConfigurationError: An invalid value; nothing has been trained.
        CandidateStopped: The gate has stopped the run; ``gate.json`` holds the reason.
    """
    values = to_plain(complete(config))
    check_targets(values)
    check_limits(values)
    check_trainer_arguments(values)
    check_seed(values["seed"])
    set_threads(values["threads"])
    plan = plan_from_config(values["quantization"])
    store = store_from_config(values["baselines"])
    train_for_itq = values["baselines"]["train_for_itq"]
    settings = gate_settings(values["exploration"])
    if settings is not None and store is None:
        raise ConfigurationError(
            "exploration.gate.enabled=true compares with the 32-bit training; write "
            "baselines.dir=FOLDER for a store that holds it"
        )
    check_fresh(values["fresh"])
    folder = RunFolder(output)
    with folder.held(values) as is_new:
        if values["fresh"]:
            folder.clear(keep_output=not is_new)
        record = folder.finished_record(values)
        if record is not None:
            known = record.data_fingerprint and fingerprint_of(values)
            folder.check_data(values, known, record)
            print(f"{folder.record} is the record of this run already (fresh=true runs it again)")
        else:
            with quiet_lightning(), closing_wandb(values["logger"]):
                is_quantized = values["quantization"]["scheme"] != "none"
                gate = Gate(settings, values, folder) if settings and is_quantized else None
                record, _ = Job(values, folder, plan, store, train_for_itq, gate).execute()
            write_record(record, folder.record)
            print(f"record: {folder.record}")
        folder.failure.unlink(missing_ok=True)
        forget_stop(folder)
    print_footprint(record)
    return record


def forget_stop(folder: RunFolder) -> None:
    """Delete the report of a gate on a run that was then evaluated in full."""
    try:
        if read_gate_report(folder.gate).stopped is not None:
            folder.gate.unlink(missing_ok=True)
    except RecordError:
        return


def fingerprint_of(values: Mapping[str, Any]) -> str | None:
    """Return the fingerprint of the data that a configuration names; None if they are gone."""
    try:
        with naming("data"):
            return data_state(values["data"], load_data(values["data"])).fingerprint
    except ConfigurationError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


@contextmanager
def closing_wandb(loggers: object) -> Iterator[None]:
    """End the W&B run that was started inside, as failed if an error is raised.

    wandb, which takes two seconds to import, is imported only if the configuration names it.
    """
    if "wandb" not in str(loggers):
        yield
        return
    from qspinn.app.tracking.logger import finish_wandb

    try:
        yield
    except CandidateStopped:
        finish_wandb(0)
        raise
    except BaseException:
        finish_wandb(1)
        raise
    finish_wandb(0)
