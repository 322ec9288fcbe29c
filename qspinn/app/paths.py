"""Paths as users write them: relative to the folder in which the command was started.

With ``hydra.job.chdir=true`` Hydra changes into the output folder before a job begins. Paths
in the configuration are kept as written, so that the identity of a run does not depend on where it
runs; they are resolved only where they are used.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object

_STARTED: ContextVar[Path | None] = ContextVar("started", default=None)
_PATH_KEY = re.compile(r"(.*_)?(root|cache|folder|file)|.*(dir|path)")


def start_folder() -> Path:
    """The folder in which the command was started, whatever Hydra has changed into since."""
    started = _STARTED.get()
    if started is not None:
        return started
    return Path(HydraConfig.get().runtime.cwd) if HydraConfig.initialized() else Path.cwd()


@contextlib.contextmanager
def started_in(folder: Path) -> Iterator[None]:
    """Set, in a process without Hydra, the folder in which the command was started."""
    token = _STARTED.set(folder)
    try:
        yield
    finally:
        _STARTED.reset(token)


def from_start(path: str) -> str:
    """A path that means the same from here as the given one from where the command was started.

    Unchanged if the current folder has not been changed.
    """
    start = start_folder()
    return path if _is_here(start) else os.path.join(start, path)


def with_paths(node: Any) -> Any:
    """A node of the configuration with the paths in it as :func:`from_start` says.

    A text is a path if the argument of the class is annotated as one, or by its key: ``root``,
    ``cache``, ``folder`` and ``file``, also as the end of ``..._root``, and whatever ends in
    ``dir`` or ``path``.
    """
    if _is_here(start_folder()):
        return node
    if isinstance(node, list):
        return [with_paths(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    annotated = _annotated_paths(node.get("_target_"))
    return {
        key: from_start(value)
        if isinstance(value, str) and (key in annotated or _is_path(key, value))
        else with_paths(value)
        for key, value in node.items()
    }


def _is_here(folder: Path) -> bool:
    return os.path.realpath(folder) == os.path.realpath(os.getcwd())


def _is_path(key: str, value: str) -> bool:
    is_address = re.match(r"\w+://", value) is not None
    return not is_address and _PATH_KEY.fullmatch(key) is not None


def _annotated_paths(target: object) -> set[str]:
    """The arguments of a class that its annotations call paths."""
    if not isinstance(target, str):
        return set()
    try:
        parameters = inspect.signature(get_object(target)).parameters
    except (TypeError, ValueError):  # written in C
        return set()
    return {
        name
        for name, parameter in parameters.items()
        if re.search(r"\bPath\b|PathLike", str(parameter.annotation))
    }
