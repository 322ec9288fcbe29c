"""Weights & Biases: the only file that imports wandb."""

from __future__ import annotations

import functools
import os
import urllib.error
import urllib.request
from collections.abc import Sequence

import wandb
from lightning.pytorch.loggers import WandbLogger

from qspinn.app.errors import ConfigurationError
from qspinn.app.folder import RunFolder

__all__ = ["finish_wandb", "start_wandb", "wandb_mode"]

MODES = ("online", "offline", "disabled", "shared")
CONNECT_SECONDS = 5.0


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


def start_wandb(
    save_dir: str,
    project: str = "qspinn",
    entity: str | None = None,
    name: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
) -> WandbLogger:
    """Start a run of its own, or take up the one that this output folder began.

    Args:
        save_dir: The output folder. The run's files go there, unless the environment variable
            ``WANDB_DIR`` names another place.
        project: Project on the server.
        entity: Account or team; None: the user's own.
        name: Shown name; None: W&B invents one.
        group: Runs of one group are shown together.
        tags: Labels.
    """
    mode = wandb_mode()
    finish_wandb(0)  # a run that an earlier job left open would be taken for this one
    id_file = RunFolder(save_dir).wandb_id
    run = wandb.init(
        project=project,
        entity=entity,
        name=name,
        group=group,
        tags=list(tags),
        dir=os.environ.get("WANDB_DIR", save_dir),
        id=id_file.read_text(encoding="utf-8").strip() if id_file.exists() else None,
        resume="allow" if mode == "online" else None,
        mode=mode,  # type: ignore[arg-type]  # one of MODES
        settings=wandb.Settings(silent=mode != "online", console="off"),
    )
    id_file.write_text(run.id + "\n", encoding="utf-8")
    return WandbLogger(experiment=run, save_dir=save_dir, project=project)


def finish_wandb(exit_code: int) -> None:
    """End the run in progress, if there is one; any code but 0 marks it as failed."""
    if wandb.run is not None:
        wandb.finish(exit_code=exit_code)
