"""The store of 32-bit trainings: what many runs start from is trained once."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from hydra.utils import get_object

from qspinn.app.errors import ConfigurationError
from qspinn.app.folder import RunFolder, identity
from qspinn.app.outcome import library_versions
from qspinn.app.paths import from_start
from qspinn.records import RecordError, RunRecord, config_hash, write_json

__all__ = ["Baseline", "BaselineStore", "store_from_config"]

BASELINE_NAME = "baseline.json"
# The parts of qspinn that decide what a 32-bit training ends with.
SOURCES = ("data", "networks", "learning", "metrics", "fixed_point")
LIBRARIES = ("torch", "spikingjelly", "lightning", "numpy")
CHECKPOINT = {"_target_": "qspinn.app.checkpoints.EpochCheckpoint", "every_n_epochs": 1}


@dataclass(frozen=True)
class Baseline:
    """A finished 32-bit training.

    Attributes:
        folder: Holds its checkpoint (of the last epoch), its metrics and its pictures.
        record: What it measured.
        measured: The metrics of its test, as the trainer gave them.
    """

    folder: RunFolder
    record: RunRecord
    measured: dict[str, float]


Train = Callable[[dict[str, Any], RunFolder], tuple[RunRecord, dict[str, float]]]
"""Runs a configuration without quantisation in a folder, or goes on with it there."""


class BaselineStore:
    """Finished 32-bit trainings, each in a folder that is named by what determined it.

    Everything that a training depends on is hashed: the configuration without quantisation,
    loggers and launch settings, the versions of the libraries, the sources of qspinn and of
    whatever classes the configuration names, and the kind of device. A lock per training, which
    the operating system releases when its holder dies, lets one process train and the others wait;
    the next one goes on from the checkpoint of one that died.

    Args:
        path: The folder of the store.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def find(self, config: Mapping[str, Any]) -> Baseline | None:
        """Return the training that a configuration starts from, if it is done.

        Raises:
            ConfigurationError: It cannot be read.
        """
        return _read(self._entry(float_config(config)))

    def get(self, config: Mapping[str, Any], train: Train) -> Baseline:
        """Return the training that a configuration starts from; run it, or wait for it.

        Args:
            config: The resolved configuration.
            train: Called if nobody has done it yet, by one process at a time.

        Raises:
            ConfigurationError: It cannot be read.
        """
        values = float_config(config)
        entry = self._entry(values)
        found = _read(entry)
        if found is not None:
            return found
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{entry}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"waiting for the 32-bit training in {entry}", flush=True)
            lock.acquire()
        try:
            return _read(entry) or _trained(entry, values, train)
        finally:
            lock.release()

    def _entry(self, values: Mapping[str, Any]) -> Path:
        names = (values["network"]["_target_"], values["data"]["_target_"])
        readable = "-".join(name.rpartition(".")[2] for name in names)
        return self.path / f"{readable}-seed={values['seed']}-{training_key(values)[:16]}"


def store_from_config(settings: Mapping[str, Any]) -> BaselineStore | None:
    """Return the store that the group ``baselines`` describes; None where it is switched off.

    Raises:
        ConfigurationError: A value that cannot be.
    """
    folder, train_for_itq = settings["dir"], settings["train_for_itq"]
    if folder is not None and (not isinstance(folder, str) or not folder):
        raise ConfigurationError(f"baselines.dir={folder!r}: write a folder, or null for no store")
    if not isinstance(train_for_itq, bool):
        raise ConfigurationError(f"baselines.train_for_itq={train_for_itq!r}: write true or false")
    if folder is None and train_for_itq:
        raise ConfigurationError(
            "baselines.train_for_itq=true needs a store: write baselines.dir=FOLDER"
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
    return values | {
        "trainer": trainer,
        "quantization": {"scheme": "none"},
        "logger": {},
        "callbacks": callbacks | {"checkpoint": CHECKPOINT},
    }


def training_key(values: Mapping[str, Any]) -> str:
    """Hash all that a 32-bit training depends on, 64 hexadecimal digits.

    Args:
        values: From :func:`float_config`.
    """
    versions = library_versions()
    data = dict(values["data"])
    if isinstance(data.get("root"), str):
        data["root"] = os.path.realpath(from_start(data["root"]))
    basis = {
        "config": {**identity(values), "data": data},
        "sources": {**_own_sources(), **dict(_named_sources(values))},
        "versions": {name: versions[name] for name in LIBRARIES},
        "device": _device(values["trainer"].get("accelerator")),
    }
    return config_hash(basis, exclude=())


def _read(entry: Path) -> Baseline | None:
    file, folder = entry / BASELINE_NAME, RunFolder.existing(entry)
    if folder is None or not file.exists() or not folder.last_checkpoint.exists():
        return None
    try:
        values = json.loads(file.read_bytes())
        record, measured = RunRecord.from_dict(values["record"]), dict(values["measured"])
    except (OSError, ValueError, KeyError, TypeError, RecordError) as error:
        raise ConfigurationError(
            f"{file} cannot be read ({error}): delete the folder {entry} to train anew"
        ) from error
    return Baseline(folder, record, measured)


def _trained(entry: Path, values: dict[str, Any], train: Train) -> Baseline:
    print(f"32-bit training, kept for other runs in {entry}", flush=True)
    folder = RunFolder(entry)
    record, measured = train(values, folder)
    if not folder.last_checkpoint.exists():
        raise RuntimeError(f"the training in {entry} has left no checkpoint")
    write_json({"record": record.to_dict(), "measured": measured}, entry / BASELINE_NAME)
    return Baseline(folder, record, measured)


@functools.lru_cache(maxsize=1)
def _own_sources() -> dict[str, str]:
    package = Path(__file__).resolve().parents[1]
    found = {}
    for name in SOURCES:
        digest = hashlib.sha256()
        for path in sorted((package / name).rglob("*.py")):
            digest.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
        found[f"qspinn.{name}"] = digest.hexdigest()
    return found


def _named_sources(node: Any) -> Iterator[tuple[str, str]]:
    """The file of each class or function outside of qspinn that the configuration names."""
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if isinstance(target, str) and not target.startswith("qspinn."):
            try:
                file = inspect.getsourcefile(inspect.unwrap(get_object(target)))
            except TypeError:  # built in, and as old as its library
                file = None
            if file is not None:
                yield target, hashlib.sha256(Path(file).read_bytes()).hexdigest()
        for item in node.values():
            yield from _named_sources(item)
    elif isinstance(node, list):
        for item in node:
            yield from _named_sources(item)


def _device(accelerator: object) -> str:
    """The kind of device that an accelerator stands for here."""
    if accelerator in ("auto", None):
        return "gpu" if torch.cuda.is_available() else "cpu"
    return str(accelerator)
