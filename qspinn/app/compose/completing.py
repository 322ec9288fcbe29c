"""Defaults for groups and keys of the configuration that were deleted or set to null."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from qspinn.app.errors import ConfigurationError

# The values of missing keys. Deleting a key means "without", so these are what does least:
# no logger, no store, no exploration.
_EXPLORATION = {
    "workers": 1,
    "strategy": None,
    "by": "validation",
    "unit": "role",
    "roles": None,
    "word_lengths": [2, 3, 4, 6, 8, 12],
    "max_drop": 0.01,
    "evaluations": 60,
    "gate": None,
}
_BASELINES = {"dir": None, "train_for_itq": False}
_WITHOUT: dict[str, Any] = {
    "callbacks": {},
    "logger": {},
    "energy": None,
    "threads": None,
    "progress": "auto",
    "fresh": False,
    "objective": "reward",
    "baselines": _BASELINES,
    "exploration": _EXPLORATION,
}
# The same of keys in groups.
_WITHOUT_IN_GROUP: dict[str, dict[str, Any]] = {
    "baselines": _BASELINES,
    "exploration": _EXPLORATION,
    "quantization": {
        "scale": "power_of_two",
        "roles": {},
        "rules": [],
        "allow_no_neurons": False,
        "calibration_batches": 8,
        "repair": "none",
        "start_epoch": 0,
        "freeze_epoch": None,
        "learned_steps": "none",
        "step_rate": 1.0,
        "saturated": "returning",
        "compile_steps": False,
        "fidelity_samples": 64,
        "save_model": True,
    },
}
# What cannot be left out, and how to write it.
_NEEDED = {
    "seed": "seed=0, or another whole number",
    "data": "data=mnist_subset, or another file of conf/data",
    "data._target_": "data=mnist_subset, or data._target_=CLASS",
    "network": "network=conv_snn, or another file of conf/network",
    "network._target_": "network=conv_snn, or network._target_=CLASS",
    "learning": "learning=supervised, or another file of conf/learning",
    "learning._target_": "learning=supervised, or learning._target_=CLASS",
    "trainer": "trainer=default, and what differs, such as trainer.max_epochs=10",
    "trainer._target_": "trainer._target_=lightning.Trainer",
    "quantization": "quantization=default; quantization.scheme=none to quantise nothing",
    "quantization.scheme": "quantization.scheme=none to quantise nothing, or ptq or itq",
    "quantization.word_length": "quantization.word_length=8, or another number of bits",
    "quantization.rounding": "quantization.rounding=nearest, or another rounding",
    "quantization.overflow": "quantization.overflow=saturate, or wrap",
    "quantization.calibration": "quantization.calibration=mse, or another one",
    "quantization.granularity": "quantization.granularity=tensor, or channel",
}
_MAPPINGS = {
    **{name: _NEEDED[name] for name in ("data", "network", "learning", "trainer", "quantization")},
    "callbacks": "callbacks=null for none, or callbacks=default",
    "logger": "logger=null for none, or logger=csv or wandb",
    "energy": "energy=null for the usual figures, or energy=horowitz, and what differs",
    "baselines": "baselines.dir=FOLDER, or baselines=null for no store",
    "exploration": "exploration.strategy=significance, say, or exploration=null for one run",
}


def complete(config: DictConfig) -> DictConfig:
    """Return the configuration with a value for every key that the application reads.

    ``~logger``, ``logger=null`` and the like are what users write for "without": an optional group
    that is not there is empty then. The configuration itself is not changed.

    Args:
        config: What ``conf/train.yaml`` composes, perhaps with less.

    Raises:
        ConfigurationError: Something is missing that has no default.
    """
    made = copy.deepcopy(config)
    with open_dict(made):
        for name, value in _WITHOUT.items():
            if _is_null(made, name):
                made[name] = copy.deepcopy(value)
        for name, text in _MAPPINGS.items():
            if not _is_null(made, name) and not OmegaConf.is_dict(made[name]):
                raise ConfigurationError(f"{name}={made[name]!r} is no group; write {text}")
        for name, text in _NEEDED.items():
            if _is_null(made, name):
                raise ConfigurationError(f"{name} is missing or null; write {text}")
        for group, values in _WITHOUT_IN_GROUP.items():
            complete_group(made[group], values)
    return made


def complete_group(group: DictConfig, values: Mapping[str, Any]) -> None:
    """Put values into a group for the keys that it lacks; a null that is written stays."""
    with open_dict(group):
        for key, value in values.items():
            if key not in group:
                group[key] = copy.deepcopy(value)


def known_keys(group: str | None = None) -> tuple[str, ...]:
    """Return the keys that the application reads.

    Args:
        group: One with keys of its own: ``baselines``, ``exploration`` or ``quantization``; None:
            those at the top.
    """
    if group is None:
        return (*(name for name in _NEEDED if "." not in name), *_WITHOUT)
    start = f"{group}."
    needed = (name.removeprefix(start) for name in _NEEDED if name.startswith(start))
    return (*needed, *_WITHOUT_IN_GROUP[group])


def to_plain(config: DictConfig) -> dict[str, Any]:
    """Return a configuration as plain types, with every reference replaced by what it refers to.

    Raises:
        ConfigurationError: A reference to what is not there, such as a key that was deleted.
    """
    try:
        return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    except OmegaConfBaseException as error:
        reason = str(error).strip().partition("\n")[0]
        place = getattr(error, "full_key", None) or "configuration"
        raise ConfigurationError(
            f"{place}: {reason}. What it refers to was deleted; write the value of {place} itself"
        ) from error


def _is_null(config: DictConfig, dotted: str) -> bool:
    """Whether a place holds nothing; one that refers to another holds something."""
    *parents, last = dotted.split(".")
    node: Any = config
    for name in parents:
        node = node[name]
    return last not in node or (not OmegaConf.is_interpolation(node, last) and node[last] is None)
