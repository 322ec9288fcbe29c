"""Refuses configurations that cannot work or would train nothing, before anything runs.

Only what is certain to fail is refused. Classes of the configuration check their own arguments when
they are instantiated; what depends on the data is checked when they have been read.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

import lightning
import torch
from omegaconf import DictConfig, OmegaConf

from qspinn.app.compose.completing import known_keys
from qspinn.app.errors import ConfigurationError
from qspinn.app.refusing import is_number, is_whole, refused

TRAIN_NOTHING = ("trainer.max_epochs", "trainer.limit_train_batches")
# Groups whose keys are not passed to a class that would refuse unknown ones.
GROUPS = ("baselines", "exploration", "quantization")


def check_known_keys(config: DictConfig, *others: DictConfig) -> None:
    """Refuse keys that nothing reads: most are misspelt.

    A key at the top to which another value refers, ``${key}``, is read.

    Args:
        config: Not resolved yet; its node ``hydra``, if there is one, is Hydra's.
        others: More configurations that may refer to it.

    Raises:
        ConfigurationError: Names the key, and the one that was perhaps meant.
    """
    values = cast(dict[str, Any], OmegaConf.to_container(config, resolve=False))
    texts = (str(OmegaConf.to_container(one, resolve=False)) for one in (config, *others))
    used = {name for text in texts for name in re.findall(r"\$\{(\w+)", text)}
    for key in values:
        if key not in known_keys() and key not in used and key != "hydra":
            raise ConfigurationError(_unknown(str(key), known_keys()))
    for group in GROUPS:
        for key in values.get(group) or ():
            if key not in known_keys(group):
                places = [f"{group}.{name}" for name in known_keys(group)]
                raise ConfigurationError(_unknown(f"{group}.{key}", places))


def _unknown(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, list(known), n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    return f"{key}: nothing reads this key; {hint}"


def check_limits(config: Mapping[str, Any]) -> None:
    """Refuse numbers with which nothing is trained or tested, or that are impossible.

    Args:
        config: The resolved configuration, plain types.

    Raises:
        ConfigurationError: Names the key, the value and what to write.
    """
    trainer = config["trainer"]
    _check_epochs(trainer)
    for name in ("train", "val", "test", "predict"):
        _check_batches(f"limit_{name}_batches", trainer, may_be_none=name in ("val", "predict"))
    _whole(trainer, "accumulate_grad_batches", 1)
    clip = trainer.get("gradient_clip_val")
    if clip is not None and not (is_number(clip) and 0 <= clip < math.inf):
        raise _refused("trainer.gradient_clip_val", clip, "a number above 0, or null for no limit")
    _check_devices(trainer)
    if trainer.get("fast_dev_run"):
        raise _refused(
            "trainer.fast_dev_run",
            trainer["fast_dev_run"],
            "trainer.max_epochs=1 trainer.limit_train_batches=1 instead: a trial leaves no record",
        )
    _check_processes(config)
    _check_backend(config["network"], trainer)
    if config["quantization"]["scheme"] == "itq":
        _check_itq(config["quantization"], trainer["max_epochs"])
    learning = config["learning"]
    if "optimizer" in learning and learning["optimizer"] is None:
        raise _refused(
            "learning.optimizer", None, "learning.optimizer._target_=CLASS and its values"
        )


def _check_epochs(trainer: Mapping[str, Any]) -> None:
    epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    if not is_whole(steps) or (steps != -1 and steps < 1):
        raise _refused("trainer.max_steps", steps, "1 or more, or -1 for as many as there are")
    has_end = steps != -1 and epochs in (-1, None)
    if not has_end and not (is_whole(epochs) and epochs >= 1):
        raise _refused("trainer.max_epochs", epochs, "1 or more: training has to come to an end")
    most = math.inf if has_end or not is_whole(epochs) else epochs
    least = trainer.get("min_epochs")
    if least is not None and not (is_whole(least) and 0 <= least <= most):
        raise _refused("trainer.min_epochs", least, f"0 to trainer.max_epochs={epochs}, or null")
    every = trainer.get("check_val_every_n_epoch", 1)
    if every is None:
        return  # then val_check_interval counts batches
    if not is_whole(every) or every < 1:
        raise _refused("trainer.check_val_every_n_epoch", every, "1 or more")
    if every > most:
        raise _refused(
            "trainer.check_val_every_n_epoch",
            every,
            f"1 to trainer.max_epochs={epochs}, or trainer.limit_val_batches=0 for no validation",
        )


def _check_batches(name: str, trainer: Mapping[str, Any], may_be_none: bool) -> None:
    value = trainer.get(name)
    if value is None:
        return
    least = "0 (none)" if may_be_none else "1"
    wanted = f"{least} or more batches, a part such as 0.5, or null for all"
    if not is_number(value) or value < 0 or (isinstance(value, float) and not value <= 1):
        raise _refused(f"trainer.{name}", value, wanted)
    if value == 0 and not may_be_none:
        raise _refused(f"trainer.{name}", value, wanted)


def _check_devices(trainer: Mapping[str, Any]) -> None:
    devices, nodes = trainer.get("devices", 1), trainer.get("num_nodes", 1)
    if nodes != 1 or isinstance(nodes, bool):
        raise _refused("trainer.num_nodes", nodes, "1: a run trains on one machine")
    several = len(devices) if isinstance(devices, (list, tuple)) else devices
    if is_whole(several) and several > 1:
        raise _refused(
            "trainer.devices",
            devices,
            "1: a run trains on one device; launcher=workers does several runs at a time",
        )


def _check_backend(network: Mapping[str, Any], trainer: Mapping[str, Any]) -> None:
    """Refuse kernels for a GPU where the run will not have one."""
    has_gpu = torch.cuda.is_available() and trainer.get("accelerator") != "cpu"
    if network.get("backend") == "triton" and not has_gpu:
        raise _refused("network.backend", "triton", "auto, numba or torch: this run has no GPU")


def _check_processes(config: Mapping[str, Any]) -> None:
    """Refuse more processes and threads than the machine supports."""
    most = max(64, 4 * (os.cpu_count() or 1))
    for place, group, name in (
        ("data.num_workers", config["data"], "num_workers"),
        ("exploration.workers", config["exploration"], "workers"),
        ("threads", config, "threads"),
    ):
        value = group.get(name)
        if is_whole(value) and value > most:
            raise _refused(place, value, f"at most {most} on this machine")


def _check_itq(quantization: Mapping[str, Any], epochs: Any) -> None:
    start, freeze = quantization["start_epoch"], quantization["freeze_epoch"]
    if not is_whole(epochs) or epochs < 1:
        return
    for name, value in (("start_epoch", start), ("freeze_epoch", freeze)):
        if is_whole(value) and value >= epochs:
            raise _refused(
                f"quantization.{name}",
                value,
                f"0 to {epochs - 1}: epochs are counted from 0, to trainer.max_epochs={epochs}",
            )


def check_data_fits(
    config: Mapping[str, Any], data: lightning.LightningDataModule, batch: Any
) -> None:
    """Refuse data of which no batch is used, and classes that the network does not have.

    Args:
        config: The resolved configuration.
        data: The data, read.
        batch: The first test batch; its labels count where it is a pair.

    Raises:
        ConfigurationError: Names the key, the value and what to write.
    """
    trainer = config["trainer"]
    loaders = {"train": data.train_dataloader(), "test": data.test_dataloader()}
    counts = {name: _length(loader) for name, loader in loaders.items()}
    for name, count in counts.items():
        if count == 0:
            raise ConfigurationError(f"data: {type(data).__name__} has no {name} data")
    counts["val"] = _length(data.val_dataloader())
    for name, count in counts.items():
        limit = trainer.get(f"limit_{name}_batches")
        if count and isinstance(limit, float) and limit > 0 and int(count * limit) < 1:
            raise _refused(
                f"trainer.limit_{name}_batches",
                limit,
                f"{1 / count:.2g} or more, or 1: there are {count} batches",
            )
    _check_interval(trainer, counts["train"])
    known, largest = getattr(data, "num_classes", None), _largest_label(batch)
    for group in ("network", "learning"):
        classes = config[group].get("num_classes")
        if not is_whole(classes):
            continue
        if is_whole(known) and classes < known:
            raise _refused(
                f"{group}.num_classes", classes, f"{known} or null: the data have {known}"
            )
        if largest is not None and classes <= largest:
            raise _refused(
                f"{group}.num_classes", classes, f"{largest + 1} or more: a label is {largest}"
            )
    one, other = (_classes(config[group], known) for group in ("network", "learning"))
    if is_whole(one) and is_whole(other) and one != other:
        place, value, wanted = "learning.num_classes", other, f"{one}, as network.num_classes"
        if config["learning"]["num_classes"] is None:
            place, value, wanted = "network.num_classes", one, f"{other} or null, as the data have"
        raise _refused(place, value, wanted)


def _classes(group: Mapping[str, Any], known: Any) -> Any:
    """The number of classes of a group; what is null there is the data's."""
    given = group.get("num_classes")
    return known if given is None and "num_classes" in group else given


def _check_interval(trainer: Mapping[str, Any], count: int | None) -> None:
    """Refuse to validate after more batches than an epoch has."""
    interval, limit = trainer.get("val_check_interval"), trainer.get("limit_train_batches")
    if not is_whole(interval) or count is None or trainer.get("check_val_every_n_epoch", 1) is None:
        return
    used = min(count, limit) if is_whole(limit) else int(count * (1.0 if limit is None else limit))
    if interval > used:
        raise _refused(
            "trainer.val_check_interval",
            interval,
            f"1 to {used}, the batches of an epoch, or trainer.check_val_every_n_epoch=null as "
            "well to count batches across epochs",
        )


def _length(loader: Any) -> int | None:
    """The number of batches; None if unknown."""
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        return None


def _largest_label(batch: Any) -> int | None:
    labels: Any = batch[1] if isinstance(batch, (list, tuple)) and len(batch) == 2 else None
    kind = getattr(labels, "dtype", None)
    is_list = kind is not None and not kind.is_floating_point and labels.ndim == 1 and len(labels)
    return int(labels.max()) if is_list else None


def _whole(group: Mapping[str, Any], name: str, least: int) -> None:
    value = group.get(name, least)
    if not is_whole(value) or value < least:
        raise _refused(f"trainer.{name}", value, f"{least} or more")


def _refused(place: str, value: object, wanted: str) -> ConfigurationError:
    if place in TRAIN_NOTHING and value == 0:
        return ConfigurationError(f"{place}={value} trains nothing; write {wanted}")
    return refused(place, value, wanted)
