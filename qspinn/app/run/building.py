"""From the configuration to the objects of a run: data, network, learning, trainer."""

from __future__ import annotations

import copy
import inspect
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from hydra.utils import instantiate
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.loggers.logger import Logger
from torch import nn

from qspinn.app.errors import ConfigurationError, is_whole, naming, refused
from qspinn.app.folder.folder import RunFolder
from qspinn.app.folder.ownership import Owner
from qspinn.app.paths import with_paths
from qspinn.app.run.checkpoints import AtomicCheckpointIO
from qspinn.app.run.data_fingerprint import remember_state
from qspinn.callbacks.random_state import capture_random_states

MAX_SEED = 2**32 - 1
# The data that this process has read last, by their settings, with their fingerprint then.
_READ: dict[str, tuple[Any, str]] = {}
# Values that a network or a learning rule takes from the data if they are null.
FROM_DATA = ("input_shape", "num_classes")
# The same, but optional: still images have no time steps, and the class has a default.
FROM_DATA_IF_THERE = ("time_steps",)


@dataclass(frozen=True)
class Parts:
    """What learns, and from what."""

    data: LightningDataModule
    network: nn.Module
    module: LightningModule


def check_seed(seed: object) -> int:
    """Return the seed, if it is valid."""
    if not is_whole(seed) or not 0 <= seed <= MAX_SEED:
        raise refused("seed", seed, f"a whole number from 0 to {MAX_SEED}")
    return seed


def set_threads(threads: object) -> None:
    """Set the number of CPU threads; None: leave it as it is."""
    if threads is None:
        return
    if not is_whole(threads) or threads < 1:
        raise refused("threads", threads, "1 or more, or null")
    torch.set_num_threads(threads)


def build_parts(config: Mapping[str, Any]) -> Parts:
    """Make the data, the network and the learning module, and read the data.

    Raises:
        ConfigurationError: A group whose values make nothing, with the error of its class.
    """
    with naming("data"):
        data = load_data(config["data"])
    with naming("network"):
        network = instantiate(with_data(with_paths(config["network"]), data))
    with naming("learning"):
        check_optimizer(config["learning"])
        # Lists as plain lists: those of an optimizer (its betas) end up in checkpoints.
        learning = with_data(with_paths(config["learning"]), data)
        module = instantiate(learning, _partial_=True, _convert_="all")(network=network)
        _check_made("learning", module, "training_step", "a lightning.LightningModule")
    check_manual(config["trainer"], module)
    return Parts(data, network, module)


def has_validation(config: Mapping[str, Any], data: LightningDataModule) -> bool:
    """Whether data that were read have a validation part, and the trainer validates on it."""
    loaders = data.val_dataloader()  # Lightning takes an empty list for none
    is_there = not isinstance(loaders, (list, tuple)) or len(loaders) > 0
    return is_there and config["trainer"].get("limit_val_batches") != 0


def load_data(settings: Mapping[str, Any]) -> LightningDataModule:
    """Make the data module and read its data, unless this process has read them for another run.

    Only qspinn's own data are kept for the next run, since nothing in them changes while they are
    used, and only if reading them draws no random number, since each run has its own. They are read
    again when their files have changed.
    """
    settings = with_paths(settings)
    key = json.dumps(settings, sort_keys=True, default=str)
    kept, state = _READ.get(key, (None, None))
    if kept is None or kept.fingerprint() != state:
        before = capture_random_states()
        kept = instantiate(settings)
        _check_made("data", kept, "train_dataloader", "a lightning.LightningDataModule")
        kept.prepare_data()
        is_own = type(kept).__module__.startswith("qspinn.data.")
        state = kept.fingerprint() if is_own else None
        if state is not None:
            remember_state(kept, state)
        kept.setup("fit")
        if state is None or not _same(before, capture_random_states()):
            return kept
        _READ.clear()
        _READ[key] = kept, state
    # A data module refers to its trainer, which differs in each run.
    return copy.copy(kept)


def _same(one: Any, other: Any) -> bool:
    """Whether two states of the random generators are equal."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return all(_same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def with_data(group: Mapping[str, Any], data: object) -> dict[str, Any]:
    """Return the group with its null values filled in from the data.

    Raises:
        ConfigurationError: A value that the class requires and the data do not provide.
    """
    filled = dict(group)
    for name in FROM_DATA:
        if name in filled and filled[name] is None:
            if not hasattr(data, name):
                raise ConfigurationError(
                    f"{name}=null: {type(data).__name__} does not say its {name}; write the value"
                )
            filled[name] = getattr(data, name)
    for name in FROM_DATA_IF_THERE:
        if name in filled and filled[name] is None:
            if hasattr(data, name):
                filled[name] = getattr(data, name)
            else:
                del filled[name]
    return filled


def check_optimizer(learning: Mapping[str, Any]) -> None:
    """Try the optimizer and the scheduler on one parameter: Lightning creates them late."""
    optimizer = None
    if learning.get("optimizer") is not None:
        with naming("learning.optimizer"):
            optimizer = instantiate(learning["optimizer"])([nn.Parameter(torch.zeros(1))])
    if optimizer is not None and learning.get("scheduler") is not None:
        with naming("learning.scheduler"):
            scheduler = instantiate(learning["scheduler"])
            names = inspect.signature(scheduler.func).parameters
            given = {name for name, value in scheduler.keywords.items() if value is not None}
            steps = {name: 10 for name in ("total_steps", "T_max") if name in names}
            scheduler(optimizer, **({} if given & {*steps, "epochs"} else steps))


def check_manual(trainer: Mapping[str, Any], module: LightningModule) -> None:
    """Refuse settings that Lightning supports only with automatic optimization; it checks late."""
    if module.automatic_optimization:
        return
    for name, neutral in (("gradient_clip_val", None), ("accumulate_grad_batches", 1)):
        if trainer.get(name, neutral) not in (neutral, 0):
            shown = "null" if neutral is None else neutral
            raise ConfigurationError(
                f"trainer.{name}={trainer[name]!r}: {type(module).__name__} makes its updates by "
                f"itself, without such a gradient; write {shown}"
            )


def build_callbacks(callbacks: Mapping[str, Any] | None) -> list[Callback]:
    """Make the callbacks of the group, in its order; null entries are left out."""
    built = []
    for name, node in _entries("callbacks", callbacks):
        with naming(name):
            made = instantiate(node)
            _check_made(name, made, "state_key", "a lightning.Callback")
            built.append(made)
    return built


def _check_made(place: str, made: object, attribute: str, kind: str) -> None:
    """Refuse an object that lacks what its place in the configuration requires."""
    if not hasattr(made, attribute):
        raise ConfigurationError(
            f"{place}._target_ makes a {type(made).__name__}; write the name of {kind}"
        )


def build_loggers(loggers: Mapping[str, Any] | None, folder: RunFolder) -> list[Logger]:
    """Make the loggers of the group; each is given the output folder as ``save_dir``."""
    built = []
    for name, node in _entries("logger", loggers):
        with naming(name):
            made = instantiate(node, _partial_=True)(save_dir=str(folder.path))
            _check_made(name, made, "log_metrics", "a logger of Lightning")
            built.append(made)
    return built


def _entries(group: str, nodes: Mapping[str, Any] | None) -> Iterator[tuple[str, Any]]:
    """The entries of a group that are not null, with their places."""
    for name, node in (nodes or {}).items():
        place = f"{group}.{name}"
        if node is None:
            continue
        if not isinstance(node, Mapping) or not node.get("_target_"):
            raise ConfigurationError(
                f"{place}={node!r} names no class; write {place}._target_=CLASS, or {place}=null"
            )
        yield place, with_paths(node)


def _environment() -> list[ClusterEnvironment]:
    """Keeps Lightning from taking the tasks of a Slurm allocation for processes of one run.

    It would wait for the others, and handle the signals by which Submitit requeues a job.
    """
    is_slurm = "SLURM_NTASKS" in os.environ and not TorchElasticEnvironment.detect()
    return [LightningEnvironment()] if is_slurm else []


def build_trainer(
    trainer: Mapping[str, Any],
    folder: RunFolder,
    callbacks: list[Callback],
    loggers: list[Logger],
    has_progress: bool,
    owner: Owner,
) -> Trainer:
    """Make the trainer; its checkpoints say that they belong to ``owner``.

    Raises:
        ConfigurationError: A value that Lightning refuses, or that trains nothing.
    """
    with naming("trainer"):
        made: Trainer = instantiate(trainer, _partial_=True)(
            callbacks=callbacks,
            logger=loggers,
            plugins=[AtomicCheckpointIO(owner), *_environment()],
            default_root_dir=str(folder.path),
            enable_progress_bar=has_progress,
        )
        _check_made("trainer", made, "fit", "lightning.Trainer")
    return made
