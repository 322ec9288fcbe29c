"""Everything that is used of Hydra and its launchers beyond their public interfaces."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn
from omegaconf import DictConfig

__all__ = [
    "BasicSweeper",
    "ConfigLoaderImpl",
    "apply_overrides",
    "get_overrides_dirname",
    "joblib_launcher",
    "ray_launcher",
    "result_or_error",
    "sets_a_value",
]


def apply_overrides(overrides: Sequence[Override], config: DictConfig) -> None:
    """Set values in a composed configuration, as Hydra does in its last step of composing one."""
    ConfigLoaderImpl._apply_overrides_to_config(list(overrides), config)


def sets_a_value(loader: ConfigLoaderImpl, override: Override) -> bool:
    """Whether an override only changes the value of an existing key."""
    is_plain = not (override.is_add() or override.is_force_add() or override.is_delete())
    return is_plain and not loader.repository.group_exists(override.key_or_group)


def result_or_error(told: JobReturn) -> object:
    """Return the result or the error of a job; the public property would raise the error."""
    return told._return_value


def joblib_launcher() -> ModuleType:
    """The code of the joblib launcher, which is an optional package."""
    from hydra_plugins.hydra_joblib_launcher import _core as core

    return core


def ray_launcher() -> ModuleType:
    """The code of the Ray launcher, which is an optional package."""
    from hydra_plugins.hydra_ray_launcher import _launcher_util as util

    return util
