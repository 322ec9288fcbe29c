"""Runs that are logged to Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Sequence

from qspinn.app.errors import ConfigurationError, refused, switch
from qspinn.app.folder.folder import RunFolder
from qspinn.app.paths import from_start
from qspinn.app.tracking.client import (
    begin,
    checked_mode,
    end_other_run,
    server_or_reason,
    wandb_mode,
)
from qspinn.app.tracking.run_logger import FINISH_SECONDS, RunLogger
from qspinn.app.tracking.server import Server

_open: list[RunLogger] = []  # the logger of the run in progress


def start_wandb(
    save_dir: str,
    project: str | None = None,
    entity: str | None = None,
    name: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    job_type: str | None = None,
    notes: str | None = None,
    mode: str | None = None,
    artifact: bool = True,
    finish_seconds: float = FINISH_SECONDS,
    changes: str = "",
) -> RunLogger:
    """Start a run, or resume the one that was begun in this output folder.

    What is not given here is left to W&B's environment variables (``WANDB_ENTITY``, ``WANDB_NAME``,
    ``WANDB_RUN_GROUP``, ``WANDB_TAGS``, ``WANDB_NOTES`` and the others). A run that cannot be
    started on the server is offline, unless a mode is given.

    Args:
        save_dir: The output folder. The run's files go there, unless the environment variable
            ``WANDB_DIR`` names another place.
        project: Project on the server; None: ``WANDB_PROJECT``, else ``qspinn``.
        entity: Account or team; None: the user's own.
        name: Shown name; None: W&B invents one.
        group: Runs of one group are shown together.
        tags: Labels.
        job_type: Kind of run, to filter by.
        notes: A comment.
        mode: ``online`` (an error where that cannot be), ``offline``, ``disabled``, ``shared``;
            None: see :func:`wandb_mode`.
        artifact: Whether the network and the record are uploaded.
        finish_seconds: How long the end of the run waits for its upload, while the server answers.
        changes: Overrides, from which :func:`qspinn.app.folder.naming.named_loggers` makes the
            name.

    Raises:
        ConfigurationError: An invalid value, or a stated mode that needs a server that cannot
            be used.
    """
    del changes
    switch("artifact", artifact)
    if isinstance(finish_seconds, bool) or not 0 < finish_seconds < float("inf"):
        raise refused("finish_seconds", finish_seconds, "a number of seconds")
    finish_wandb(0)  # a run that an earlier job left open would be taken for this one
    stated = checked_mode(mode, "mode") if mode else os.environ.get("WANDB_MODE") or None
    mode = stated or wandb_mode()
    server: Server | None = None
    if checked_mode(mode, "WANDB_MODE") in ("online", "shared"):
        found = server_or_reason()
        reason = found if isinstance(found, str) else None
        if stated is not None and isinstance(found, Server):
            reason = found.why_unusable()
        if reason is not None:
            raise ConfigurationError(
                f"W&B: {reason}, and mode={mode} was asked for; write mode=offline, or none"
            )
        server = found if isinstance(found, Server) else None
    project = project or os.environ.get("WANDB_PROJECT") or "qspinn"
    stated_dir = os.environ.get("WANDB_DIR")
    about = {
        "project": project,
        "entity": entity,
        "name": name,
        "group": group,
        "job_type": job_type,
        "notes": notes,
        "tags": list(tags) or None,  # an empty list would hide WANDB_TAGS
        "dir": from_start(stated_dir) if stated_dir else save_dir,
    }
    id_file = RunFolder(save_dir).wandb_id
    run = begin(about, mode, stated is not None, id_file)
    logger = RunLogger(
        run,
        save_dir,
        project,
        lambda: begin(about, "offline", True, id_file),
        artifact,
        None if run.offline else server,
        float(finish_seconds),
    )
    if logger.server is not None:
        print(f"W&B: {run.url}", flush=True)
    _open[:] = [logger]
    return logger


def finish_wandb(exit_code: int) -> None:
    """End the run in progress, if there is one; any code but 0 marks it as failed.

    Never raises, and waits for a server only as long as it answers.
    """
    for logger in _open:
        logger.finish(exit_code)
    _open.clear()
    end_other_run(exit_code)
