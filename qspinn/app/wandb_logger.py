"""Weights & Biases: the only file that imports wandb."""

from __future__ import annotations

import functools
import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

import wandb
from lightning.pytorch.loggers import WandbLogger

from qspinn.app.environment import from_environment
from qspinn.app.errors import ConfigurationError
from qspinn.app.folder import RunFolder
from qspinn.app.paths import from_start
from qspinn.records import RECORD_NAME, RunRecord
from qspinn.selection import LinearReward

__all__ = ["RECORD_KEY", "RunLogger", "finish_wandb", "open_api", "start_wandb", "wandb_mode"]

MODES = ("online", "offline", "disabled", "shared")
CONNECT_SECONDS = 5.0
API_SECONDS = 20
RECORD_KEY = "qspinn_record"
"""Name in a run's summary of the whole record as JSON, which select.py reads."""


@functools.lru_cache(maxsize=1)
def wandb_mode() -> str:
    """Decide once per process whether runs go to the server or stay on this machine.

    The environment variable ``WANDB_MODE`` decides where it is set. Else a run is online with a
    key (``WANDB_API_KEY``, or ``wandb login`` done before) and a server that answers, and offline
    without, which one printed line says. Nobody is ever asked.

    Raises:
        ConfigurationError: ``WANDB_MODE`` holds no mode.
    """
    stated = os.environ.get("WANDB_MODE")
    if stated:
        if stated not in MODES:
            raise ConfigurationError(f"WANDB_MODE={stated!r}: write one of {', '.join(MODES)}")
        return stated
    reason = _why_offline()
    if reason is None:
        return "online"
    print(f"W&B: offline, {reason}; `wandb sync` uploads the run later", flush=True)
    return "offline"


def _why_offline() -> str | None:
    settings = wandb.setup().settings
    was_silent = settings.silent
    settings.silent = True  # else it asks the server whose key it is, and waits for the answer
    has_key = wandb.login(prompt=False, verify=False)
    settings.silent = was_silent
    if not has_key:
        return "no API key (set WANDB_API_KEY or run `wandb login`)"
    try:
        urllib.request.urlopen(settings.base_url, timeout=CONNECT_SECONDS).close()
    except urllib.error.HTTPError:
        return None  # it answered
    except OSError as error:
        return f"{settings.base_url} does not answer ({error})"
    return None


def open_api() -> Any:
    """Return W&B's interface for reading runs.

    Raises:
        ConfigurationError: There is no key, or the server does not answer; nobody is asked.
    """
    reason = _why_offline()
    if reason is not None:
        raise ConfigurationError(f"W&B cannot be asked for runs: {reason}")
    try:
        return wandb.Api(timeout=API_SECONDS)
    except Exception as error:
        raise ConfigurationError(f"W&B cannot be asked for runs: {error}") from error


class RunLogger(WandbLogger):
    """Lightning's logger for W&B, which logs at the end what the run hands over."""

    def log_record(self, record: RunRecord, folder: RunFolder) -> None:
        """Log a record: numbers to compare runs by, tables, plots, and the network as an artifact.

        Args:
            record: Of the run.
            folder: Holds the checkpoint, if one was written.
        """
        run = self.experiment
        run.tags = tuple(dict.fromkeys([*(run.tags or ()), *_tags(record)]))
        roles = {role: bits for role, bits in record.footprint_bits_by_role.items() if bits}
        sizes = wandb.Table(columns=["role", "bits", "bits in 32-bit"])
        for role, bits in record.footprint_bits_by_role.items():
            sizes.add_data(role, bits, record.baseline_footprint_bits_by_role.get(role, 0))
        about = ("role", "format", "rounding", "overflow")
        formats = wandb.Table(columns=["tensor", *about])
        for path, entry in record.formats.items():
            formats.add_data(path, *(entry[key] for key in about))
        bars = wandb.plot.bar(sizes, "role", "bits", title="Footprint by role (bits)")
        run.log({"footprint": sizes, "formats": formats, "footprint by role": bars})
        if record.summary is not None:
            run.config.update({"quantized": record.summary}, allow_val_change=True)
        summary = _summary(record)
        text = json.dumps(record.to_dict(), sort_keys=True, separators=(",", ":"))
        run.summary.update({**summary, RECORD_KEY: text})
        run.summary.update({f"footprint_bits/{role}": bits for role, bits in roles.items()})
        artifact = wandb.Artifact(f"network-{run.id}", type="model", metadata=summary)
        if record.checkpoint is not None and (folder.path / record.checkpoint).is_file():
            artifact.add_file(str(folder.path / record.checkpoint), name="last.ckpt")
        with artifact.new_file(RECORD_NAME, mode="w", encoding="utf-8") as file:
            json.dump(record.to_dict(), file, sort_keys=True, indent=2)
        run.log_artifact(artifact)


def _tags(record: RunRecord) -> list[str]:
    """What W&B's table of runs is filtered by."""
    lengths = {bits for given in record.word_lengths.values() for bits in given}
    bits = f"{lengths.pop()}-bit" if len(lengths) == 1 else "mixed precision"
    about = [] if record.rounding is None else [record.rounding, bits]
    return [record.scheme, *about, record.network, record.data]


def _summary(record: RunRecord) -> dict[str, Any]:
    reward = LinearReward()
    values = {
        "accuracy": record.accuracy,
        "baseline_accuracy": record.baseline_accuracy,
        "drop": record.drop,
        "footprint_bits": record.footprint_bits,
        "baseline_footprint_bits": record.baseline_footprint_bits,
        "training_footprint_bits": record.training_footprint_bits,
        "reduction": record.reduction,
        "quantized_parameters_share": record.parameters_share,
        "quantized_states_share": record.states_share,
        "quantized": "\n".join(record.summary_lines) or None,
        "reward": reward(record),
        "reward_formula": str(reward),
        "scheme": record.scheme,
        "rounding": record.rounding,
    }
    for role, lengths in record.word_lengths.items():
        if lengths:
            values[f"word_length/{role}"] = max(lengths)  # of several tensors the longest
    return {name: value for name, value in values.items() if value is not None}


def start_wandb(
    save_dir: str,
    project: str | None = None,
    entity: str | None = None,
    name: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
) -> RunLogger:
    """Start a run of its own, or take up the one that this output folder began.

    What is not given here is left to W&B's environment variables (``WANDB_ENTITY``, ``WANDB_NAME``,
    ``WANDB_RUN_GROUP``, ``WANDB_TAGS``, ``WANDB_NOTES`` and the others).

    Args:
        save_dir: The output folder. The run's files go there, unless the environment variable
            ``WANDB_DIR`` names another place.
        project: Project on the server; None: ``WANDB_PROJECT``, else ``qspinn``.
        entity: Account or team; None: the user's own.
        name: Shown name; None: W&B invents one.
        group: Runs of one group are shown together.
        tags: Labels.
    """
    project = project or from_environment("WANDB_PROJECT", "qspinn")
    mode = wandb_mode()
    finish_wandb(0)  # a run that an earlier job left open would be taken for this one
    id_file = RunFolder(save_dir).wandb_id
    run = wandb.init(
        project=project,
        entity=entity,
        name=name,
        group=group,
        tags=list(tags) or None,  # an empty list would hide WANDB_TAGS
        dir=_directory(save_dir),
        id=id_file.read_text(encoding="utf-8").strip() if id_file.exists() else None,
        resume="allow" if mode == "online" else None,
        mode=mode,  # type: ignore[arg-type]  # one of MODES
        settings=_settings(mode),
    )
    id_file.write_text(run.id + "\n", encoding="utf-8")
    return RunLogger(experiment=run, save_dir=save_dir, project=project)


def _directory(save_dir: str) -> str:
    stated = from_environment("WANDB_DIR")
    return save_dir if stated is None else from_start(stated)


def _settings(mode: str) -> wandb.Settings:
    """Little is printed, unless an environment variable asks for more."""
    wanted: dict[str, Any] = {"silent": mode != "online", "console": "off"}
    return wandb.Settings(
        **{k: v for k, v in wanted.items() if not from_environment(f"WANDB_{k.upper()}")}
    )


def finish_wandb(exit_code: int) -> None:
    """End the run in progress, if there is one; any code but 0 marks it as failed."""
    if wandb.run is not None:
        wandb.finish(exit_code=exit_code)
