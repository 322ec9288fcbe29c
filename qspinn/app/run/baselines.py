"""The store of 32-bit trainings: a network that many runs start from is trained once."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from qspinn.app.errors import PACKAGE, ConfigurationError, refused, switch
from qspinn.app.folder.identity import identity, owner_of
from qspinn.app.paths import from_start
from qspinn.app.run.baseline_entry import Baseline, Entry, Train
from qspinn.app.run.data_fingerprint import (
    DataState,
    UnknownDataError,
    files_fingerprint,
    named_paths,
)
from qspinn.app.run.named_sources import named_sources
from qspinn.app.run.outcome import library_versions
from qspinn.records import config_hash

# Keys of qspinn's own data that name their location; the fingerprint is hashed instead. In other
# classes the same keys may mean anything.
WHERE = ("root", "download", "cache")
# Groups whose classes may read files and folders that their settings or defaults name. Folders that
# other groups name may be written to: of those only files count.
WITH_FILES = ("network", "learning")
# The parts of qspinn on which the result of a 32-bit training depends.
SOURCES = ("data", "networks", "learning", "metrics", "fixed_point", "steps", "stdp")
LIBRARIES = ("torch", "spikingjelly", "lightning", "torchmetrics", "numpy", "numba")
CHECKPOINT = {"_target_": "qspinn.app.run.checkpoints.EpochCheckpoint", "every_n_epochs": 1}


class BaselineStore:
    """Finished 32-bit trainings, each in a folder that is named by what determined it.

    Everything that a training depends on is hashed: the configuration without quantisation,
    loggers and launch settings, the data themselves, files that the configuration names, the
    versions of the libraries, the sources of qspinn and of whatever classes the configuration
    names, and the kind of device. A lock per training, which the operating system releases when
    its holder dies, lets one process train and the others wait; if it dies, the next one resumes
    from its checkpoint.

    Args:
        path: The folder of the store.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def find(self, config: Mapping[str, Any], data: DataState) -> Baseline | None:
        """Return the training that a configuration starts from, if it is done; see `get`."""
        if data.fingerprint is None:
            return None
        return self._entry(float_config(config), data.fingerprint).read()

    def get(self, config: Mapping[str, Any], data: DataState, train: Train) -> Baseline | None:
        """Return the training that a configuration starts from; run it, or wait for it.

        Args:
            config: The resolved configuration.
            data: What is known of its data.
            train: Called if the training does not exist yet, by one process at a time.

        Returns:
            The training; None if it is unknown whether another one had the same data.

        Raises:
            ConfigurationError: It cannot be read, or is not the training that it should be.
            TrainingFailed: Another process tried while this one waited, and failed.
        """
        if data.fingerprint is None:
            print(
                f"the 32-bit training is not shared with other runs: {data.reason}; give the class "
                "a method fingerprint() that returns a text which changes when the data change",
                flush=True,
            )
            return None
        entry = self._entry(float_config(config), data.fingerprint)
        found = entry.read()
        if found is not None:
            return found
        with entry.held() as has_failed:
            found = entry.read()
            if found is None and has_failed:
                raise entry.failed()
            return found or entry.trained(train)

    def _entry(self, values: dict[str, Any], fingerprint: str) -> Entry:
        names = (values["network"]["_target_"], values["data"]["_target_"])
        readable = "-".join(name.rpartition(".")[2] for name in names)
        key = training_key(values, fingerprint)
        path = self.path / f"{readable}-seed={values['seed']}-{key[:16]}"
        return Entry(path, values, key, owner_of(values, fingerprint))


def store_from_config(settings: Mapping[str, Any]) -> BaselineStore | None:
    """Return the store that the group ``baselines`` describes; None where it is switched off.

    Raises:
        ConfigurationError: An invalid value.
    """
    folder, train_for_itq = settings["dir"], settings["train_for_itq"]
    if folder is not None and (not isinstance(folder, str) or not folder):
        raise refused("baselines.dir", folder, "a folder, or null for no store")
    if switch("baselines.train_for_itq", train_for_itq) and folder is None:
        raise ConfigurationError(
            "baselines.train_for_itq=true needs a store; write baselines.dir=FOLDER"
        )
    return None if folder is None else BaselineStore(from_start(folder))


def float_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of the 32-bit training of a run.

    It quantises nothing, logs to its own table only and writes a checkpoint after every epoch.
    """
    values = identity(config) | {"progress": config["progress"]}
    callbacks = {
        name: node
        for name, node in (values["callbacks"] or {}).items()
        if node is not None and node.get("_target_") != CHECKPOINT["_target_"]
    }
    trainer = {name: v for name, v in values["trainer"].items() if name != "enable_checkpointing"}
    values.pop("energy", None)  # learning does not depend on it
    return values | {
        "trainer": trainer,
        "quantization": {"scheme": "none"},
        "logger": {},
        "callbacks": callbacks | {"checkpoint": CHECKPOINT},
    }


def training_key(values: Mapping[str, Any], fingerprint: str) -> str:
    """Hash all that a 32-bit training depends on, 64 hexadecimal digits.

    Args:
        values: From :func:`float_config`.
        fingerprint: Of the data, in place of their location.
    """
    versions = {"numba": importlib.metadata.version("numba"), **library_versions()}
    recorded = identity(values)
    is_own = str(recorded["data"].get("_target_")).startswith("qspinn.data.")
    where = WHERE if is_own else ()
    data = {name: value for name, value in recorded["data"].items() if name not in where}
    others = {name: node for name, node in recorded.items() if name not in ("data", *WITH_FILES)}
    basis = {
        "config": {**recorded, "data": data},
        "data": fingerprint,
        "files": [_named_files(others), [_files_of(name, recorded[name]) for name in WITH_FILES]],
        "sources": {**_own_sources(PACKAGE), **named_sources(values)},
        "versions": {name: versions[name] for name in LIBRARIES},
        "device": _device(values["trainer"].get("accelerator")),
    }
    return config_hash(basis, exclude=())


def _files_of(group: str, node: Any) -> str:
    """The contents of the files and folders that a group names, such as initial weights."""
    try:
        return files_fingerprint(named_paths(node)) if isinstance(node, Mapping) else ""
    except UnknownDataError as error:
        raise ConfigurationError(
            f"{group} names files whose content cannot be told, on which its 32-bit training "
            f"depends: {error}; name others, or write baselines.dir=null"
        ) from error


def _named_files(node: Any) -> dict[str, str]:
    """Files that the configuration names, and their contents."""
    if isinstance(node, str):
        path = Path(from_start(node))
        try:
            is_file = bool(node) and path.is_file()
        except (OSError, ValueError):  # too long for a path, or with a NUL
            return {}
        return {node: _files_of("the configuration", {"file": node})} if is_file else {}
    items = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
    return {name: text for item in items for name, text in _named_files(item).items()}


@functools.lru_cache(maxsize=1)
def _own_sources(package: Path) -> dict[str, str]:
    found = {}
    for name in SOURCES:
        digest = hashlib.sha256()
        for path in sorted((package / name).rglob("*.py")):
            digest.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
        found[f"qspinn.{name}"] = digest.hexdigest()
    return found


def _device(accelerator: object) -> str:
    """The kind of device that an accelerator means on this machine."""
    is_gpu = accelerator in ("gpu", "cuda", "auto", None) and torch.cuda.is_available()
    if is_gpu:
        return f"gpu {torch.cuda.get_device_name()}"
    return "cpu" if accelerator in ("auto", None) else str(accelerator)
