"""Refuses configurations that cannot work or would train nothing, before anything runs.

Only what is certain to fail is refused, by a ConfigurationError that names the key, the value and
what to write. Classes of the configuration check their own arguments when they are instantiated;
what depends on the data is checked when they have been read.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from lightning import LightningDataModule
from omegaconf import DictConfig, OmegaConf

from qspinn.app.compose.completing import known_keys
from qspinn.app.errors import ConfigurationError, is_number, is_whole, refused, require

TRAIN_NOTHING = ("max_epochs", "limit_train_batches")
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
    """Refuse numbers with which nothing is trained or tested, or that are impossible."""
    trainer = config["trainer"]
    _check_epochs(trainer)
    for name in ("train", "val", "test", "predict"):
        _check_batches(f"limit_{name}_batches", trainer, may_be_none=name in ("val", "predict"))
    every = trainer.get("accumulate_grad_batches", 1)
    require(is_whole(every) and every >= 1, "trainer.accumulate_grad_batches", every, "1 or more")
    clip = trainer.get("gradient_clip_val")
    is_fine = clip is None or (is_number(clip) and 0 <= clip < math.inf)
    require(is_fine, "trainer.gradient_clip_val", clip, "a number above 0, or null for no limit")
    _check_devices(trainer)
    trial = trainer.get("fast_dev_run")
    instead = "trainer.max_epochs=1 trainer.limit_train_batches=1 instead"
    require(not trial, "trainer.fast_dev_run", trial, f"{instead}: a trial leaves no record")
    _check_processes(config)
    _check_backend(config["network"], trainer)
    if config["quantization"]["scheme"] == "itq":
        _check_itq(config["quantization"], trainer["max_epochs"])
    has_optimizer = config["learning"].get("optimizer", "its own") is not None
    wanted = "learning.optimizer._target_=CLASS and its values"
    require(has_optimizer, "learning.optimizer", None, wanted)


def _check_epochs(trainer: Mapping[str, Any]) -> None:
    epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    is_fine = is_whole(steps) and (steps == -1 or steps >= 1)
    require(is_fine, "trainer.max_steps", steps, "1 or more, or -1 for as many as there are")
    has_end = steps != -1 and epochs in (-1, None)
    if not has_end and not (is_whole(epochs) and epochs >= 1):
        raise _trains_nothing("max_epochs", epochs, "1 or more: training has to come to an end")
    most = math.inf if has_end or not is_whole(epochs) else epochs
    least = trainer.get("min_epochs")
    is_fine = least is None or (is_whole(least) and 0 <= least <= most)
    require(is_fine, "trainer.min_epochs", least, f"0 to trainer.max_epochs={epochs}, or null")
    place, every = "trainer.check_val_every_n_epoch", trainer.get("check_val_every_n_epoch", 1)
    if every is None:
        return  # then val_check_interval counts batches
    require(is_whole(every) and every >= 1, place, every, "1 or more")
    wanted = f"1 to trainer.max_epochs={epochs}, or trainer.limit_val_batches=0 for no validation"
    require(every <= most, place, every, wanted)


def _check_batches(name: str, trainer: Mapping[str, Any], may_be_none: bool) -> None:
    value = trainer.get(name)
    if value is None:
        return
    least = "0 (none)" if may_be_none else "1"
    wanted = f"{least} or more batches, a part such as 0.5, or null for all"
    is_part = not isinstance(value, float) or value <= 1
    is_fine = is_number(value) and value >= 0 and is_part
    if not is_fine or (value == 0 and not may_be_none):
        raise _trains_nothing(name, value, wanted)


def _check_devices(trainer: Mapping[str, Any]) -> None:
    devices, nodes = trainer.get("devices", 1), trainer.get("num_nodes", 1)
    is_one = nodes == 1 and not isinstance(nodes, bool)
    require(is_one, "trainer.num_nodes", nodes, "1: a run trains on one machine")
    several = len(devices) if isinstance(devices, (list, tuple)) else devices
    wanted = "1: a run trains on one device; launcher=workers does several runs at a time"
    require(not is_whole(several) or several <= 1, "trainer.devices", devices, wanted)


def _check_backend(network: Mapping[str, Any], trainer: Mapping[str, Any]) -> None:
    """Refuse kernels for a GPU where the run will not have one."""
    has_gpu = torch.cuda.is_available() and trainer.get("accelerator") != "cpu"
    is_fine = has_gpu or network.get("backend") != "triton"
    require(is_fine, "network.backend", "triton", "auto, numba or torch: this run has no GPU")


def _check_processes(config: Mapping[str, Any]) -> None:
    """Refuse more processes and threads than the machine supports."""
    most = max(64, 4 * (os.cpu_count() or 1))
    for place, group, name in (
        ("data.num_workers", config["data"], "num_workers"),
        ("exploration.workers", config["exploration"], "workers"),
        ("threads", config, "threads"),
    ):
        value = group.get(name)
        is_fine = not is_whole(value) or value <= most
        require(is_fine, place, value, f"at most {most} on this machine")


def _check_itq(quantization: Mapping[str, Any], epochs: Any) -> None:
    if not is_whole(epochs) or epochs < 1:
        return
    wanted = f"0 to {epochs - 1}: epochs are counted from 0, to trainer.max_epochs={epochs}"
    for name in ("start_epoch", "freeze_epoch"):
        value = quantization[name]
        require(not is_whole(value) or value < epochs, f"quantization.{name}", value, wanted)


def check_data_fits(config: Mapping[str, Any], data: LightningDataModule, batch: Any) -> None:
    """Refuse data of which no batch is used, and classes that the network does not have.

    The data are read; of the first test batch the labels count where it is a pair.
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
        if count and isinstance(limit, float) and limit > 0:
            wanted = f"{1 / count:.2g} or more, or 1: there are {count} batches"
            require(int(count * limit) >= 1, f"trainer.limit_{name}_batches", limit, wanted)
    _check_interval(trainer, counts["train"])
    known, largest = getattr(data, "num_classes", None), _largest_label(batch)
    for group in ("network", "learning"):
        place, classes = f"{group}.num_classes", config[group].get("num_classes")
        if is_whole(classes) and is_whole(known):
            require(classes >= known, place, classes, f"{known} or null: the data have {known}")
        if is_whole(classes) and largest is not None:
            wanted = f"{largest + 1} or more: a label is {largest}"
            require(classes > largest, place, classes, wanted)
    one, other = (_classes(config[group], known) for group in ("network", "learning"))
    if is_whole(one) and is_whole(other) and one != other:
        place, value, wanted = "learning.num_classes", other, f"{one}, as network.num_classes"
        if config["learning"]["num_classes"] is None:
            place, value, wanted = "network.num_classes", one, f"{other} or null, as the data have"
        raise refused(place, value, wanted)


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
    wanted = (
        f"1 to {used}, the batches of an epoch, or trainer.check_val_every_n_epoch=null as well "
        "to count batches across epochs"
    )
    require(interval <= used, "trainer.val_check_interval", interval, wanted)


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


def _trains_nothing(name: str, value: object, wanted: str) -> ConfigurationError:
    if name in TRAIN_NOTHING and value == 0:
        return ConfigurationError(f"trainer.{name}={value} trains nothing; write {wanted}")
    return refused(f"trainer.{name}", value, wanted)
