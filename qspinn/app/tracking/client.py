"""The interface to wandb: the only file that imports it."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb
from wandb.errors import AuthenticationError

from qspinn.app.errors import ConfigurationError, refused
from qspinn.app.tracking.server import Server, in_time
from qspinn.atomic import write_text

MODES = ("online", "offline", "disabled", "shared")
API_SECONDS = 20
INIT_SECONDS = 5.0
ABANDON_SECONDS = 2.0

_decided: list[str] = []  # the mode of this process, as soon as it is known


def wandb_mode() -> str:
    """Decide once per process whether runs go to the server or stay on this machine.

    The environment variable ``WANDB_MODE`` decides where it is set, else what ``wandb offline``
    left; else a run is online with a key (``WANDB_API_KEY``, or ``wandb login`` done before) and a
    server that accepts it, and offline otherwise, which one printed line says. It never prompts.

    Raises:
        ConfigurationError: ``WANDB_MODE`` holds no mode, or W&B's settings cannot be used.
    """
    if not _decided:
        stated = os.environ.get("WANDB_MODE")
        if stated:
            return checked_mode(stated, "WANDB_MODE")
        reason = None
        mode = _global_settings().mode
        if mode == "online":
            reason = _why_offline()
            mode = "online" if reason is None else "offline"
        decide("offline" if mode in ("dryrun", "offline") else mode, reason)
    return _decided[0]


def decide(mode: str, reason: str | None) -> None:
    """Set the mode of this process's further runs, and say why they are offline."""
    _decided[:] = [mode]
    if reason is not None:
        print(f"W&B: offline, {reason}; `wandb sync` uploads the run later", flush=True)


def forget() -> None:
    """Decide again, as in a new process."""
    _decided.clear()


def checked_mode(mode: str, place: str) -> str:
    """Return the mode, if it is valid."""
    if mode not in MODES:
        raise refused(place, mode, f"one of {', '.join(MODES)}")
    return mode


def _global_settings() -> wandb.Settings:
    # Else wandb reports usage when the process ends, and waits ten seconds for a silent server.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        return wandb.setup().settings
    except Exception as error:
        raise ConfigurationError(f"W&B's settings cannot be used: {error}") from error


def server_or_reason() -> Server | str:
    """The server that the settings name; a text: why there is none."""
    settings = _global_settings()
    was_silent = settings.silent
    settings.silent = True  # else it asks the server whose key it is, and waits for the answer
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # it tells where the key is from
            has_key = wandb.login(prompt=False, verify=False)
    except AuthenticationError as error:
        return f"no usable API key ({error})"
    finally:
        settings.silent = was_silent
    if not has_key:
        return "no API key (set WANDB_API_KEY or run `wandb login`)"
    proxies = {"http": settings.http_proxy, "https": settings.https_proxy}
    return Server(
        settings.base_url.rstrip("/"),
        settings.api_key,
        dict(settings.x_extra_http_headers or {}),
        {scheme: proxy for scheme, proxy in proxies.items() if proxy},
        not settings.insecure_disable_ssl,
    )


def _why_offline() -> str | None:
    server = server_or_reason()
    return server if isinstance(server, str) else server.why_unusable()


def open_api() -> Any:
    """Return W&B's interface for reading runs.

    Raises:
        ConfigurationError: There is no key, or the server does not answer; it never prompts.
    """
    reason = _why_offline()
    if reason is not None:
        raise ConfigurationError(f"W&B cannot be asked for runs: {reason}")
    try:
        return wandb.Api(timeout=API_SECONDS)
    except Exception as error:
        raise ConfigurationError(f"W&B cannot be asked for runs: {error}") from error


def begin(about: dict[str, Any], mode: str, is_stated: bool, id_file: Path) -> Any:
    """Begin or resume the run; offline if the server refuses it."""
    before = id_file.read_text(encoding="utf-8").strip() if id_file.exists() else None
    run_id = os.environ.get("WANDB_RUN_ID") or before or secrets.token_hex(4)
    if run_id != before:
        write_text(run_id + "\n", id_file)
    resume = "allow" if before == run_id and mode in ("online", "shared") else None
    try:
        return _init(about, mode, run_id, resume)
    except Exception as error:
        if resume is not None and "deleted" in str(error):  # on the server, by its owner
            id_file.unlink()
            return begin(about, mode, is_stated, id_file)
        if is_stated or mode not in ("online", "shared"):
            raise ConfigurationError(f"W&B: {short(error)}") from error
        abandon()
        decide("offline", f"the server did not take the run ({short(error)})")
    try:
        return _init(about, "offline", run_id, None)
    except Exception as error:
        raise ConfigurationError(f"W&B: {short(error)}") from error


def _init(about: dict[str, Any], mode: str, run_id: str, resume: Any) -> Any:
    """Begin a run with little output, unless an environment variable asks for more."""
    wanted: dict[str, Any] = {
        "silent": mode != "online",
        "quiet": True,  # else it asks whose key it is, for ten seconds, to print that
        "console": "off",
        "init_timeout": INIT_SECONDS,
    }
    given = {k: v for k, v in wanted.items() if not os.environ.get(f"WANDB_{k.upper()}")}
    settings = wandb.Settings(**given)
    chosen: Any = mode  # one of MODES
    run = wandb.init(**about, id=run_id, resume=resume, mode=chosen, settings=settings)
    run.define_metric("epoch")
    run.define_metric("*", step_metric="epoch", step_sync=True)
    return run


def short(error: BaseException) -> str:
    """The first line of an error."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def abandon() -> None:
    """End the process that uploads for wandb, which would wait for its server for hours.

    wandb has no public way to stop waiting. What the process has not written is lost.
    """
    process = getattr(getattr(wandb.setup()._connection, "_proc", None), "_process", None)
    if process is not None:
        process.kill()
    with contextlib.suppress(BaseException):  # it exits with the code of the process
        in_time(wandb.teardown, ABANDON_SECONDS)


def end_other_run(exit_code: int) -> None:
    """End a run in progress that was not begun here."""
    if wandb.run is not None:
        wandb.finish(exit_code=exit_code)


def make_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Any:
    """Return a table to log."""
    return wandb.Table(columns=list(columns), data=[list(row) for row in rows])


def make_bars(table: Any, label: str, value: str, title: str) -> Any:
    """Return a bar chart of two columns of a table."""
    return wandb.plot.bar(table, label, value, title=title)


def make_artifact(
    name: str, about: dict[str, Any], files: Mapping[str, Path], texts: Mapping[str, str]
) -> Any:
    """Return an artifact of type ``model``; the files are copied."""
    artifact = wandb.Artifact(name, type="model", metadata=about)
    for inside, path in files.items():
        artifact.add_file(str(path), name=inside)
    for inside, text in texts.items():
        with artifact.new_file(inside, mode="w", encoding="utf-8") as file:
            file.write(text)
    return artifact
