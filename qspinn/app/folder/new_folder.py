"""Output folders, made before Hydra writes there: a new one for each run, or the one named."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from qspinn.app.errors import ConfigurationError, print_error

_ROOM = 65536
"""Bytes that Hydra's files and the first of a run take."""
_NEW = "${qspinn.new_folder:"


def new_folder(path: str) -> str:
    """The resolver ``qspinn.new_folder``: marks a folder that a run must not share with another.

    It creates nothing, because Hydra resolves it more than once, even just to show the
    configuration. :class:`OutputFolder` makes the folder when a run begins.
    """
    return path


class OutputFolder(Callback):
    """Creates the folder of a single run, or refuses it, before Hydra writes there.

    ``conf/train.yaml`` names it under ``hydra.callbacks``.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Create the folder of a single run, exclusively if it is to be a new one."""
        del kwargs
        stated = OmegaConf.to_container(config.hydra.run, resolve=False)
        assert isinstance(stated, dict)
        with _ending():
            path = check_output("hydra.run.dir", config.hydra.run.dir)
            if str(stated["dir"]).startswith(_NEW):
                with read_write(config.hydra), open_dict(config.hydra):
                    config.hydra.run.dir = str(make_new_folder(path))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse an invalid folder of a sweep."""
        del kwargs
        with _ending():
            check_output("hydra.sweep.dir", config.hydra.sweep.dir)


@contextmanager
def _ending() -> Iterator[None]:
    """Ends the process with a message if the folder is invalid; Hydra hides other errors."""
    try:
        yield
    except ConfigurationError as error:
        print_error(error)
        raise SystemExit(2) from None


def check_output(key: str, value: object) -> Path:
    """Return the output folder that a key of the configuration names, if it is valid.

    Raises:
        ConfigurationError: Nothing, the folder of the command itself, a file, or a place in which
            nothing can be written.
    """
    way_out = f"write {key}=FOLDER"
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{key}={value!r} names no folder: {way_out}")
    path = Path(value)
    if os.path.realpath(path) == os.path.realpath(os.getcwd()):
        raise ConfigurationError(
            f"{key}={value!r} is the folder in which the command was started, which is not a "
            f"run's alone: {way_out} with another folder"
        )
    there = path
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise ConfigurationError(f"{key}={value!r}: {there} is no folder: {way_out}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"{key}={value!r}: nothing can be written in {there}: {way_out} elsewhere"
        )
    _check_room(there, f"{way_out} elsewhere")
    return path


def _check_room(folder: Path, way_out: str) -> None:
    """Refuse a full disk before Hydra writes there, whose error would not name the file."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_ROOM))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigurationError(
            f"{folder}: nothing can be written there ({error.strerror}); make room, or {way_out}"
        ) from error


def make_new_folder(path: Path) -> Path:
    """Create a new folder; if the name is taken, ``-2``, ``-3`` ... is appended.

    Several processes that ask for the same name at the same time get different folders.

    Raises:
        ConfigurationError: It cannot be made.
    """
    made, number = path, 1
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                made.mkdir()
                return made
            except FileExistsError:
                number += 1
                made = path.with_name(f"{path.name}-{number}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"{path} cannot be made ({reason}); write hydra.run.dir=FOLDER with another folder"
        ) from error
