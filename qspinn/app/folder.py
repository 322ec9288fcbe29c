"""The output folder of a run: what lies in it, and whether a run may use it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from qspinn.app.errors import ConfigurationError, naming
from qspinn.records import (
    FAILURE_NAME,
    RECORD_NAME,
    RecordError,
    RunRecord,
    config_hash,
    read_record,
)

__all__ = ["LAUNCH_KEYS", "RunFolder", "identity"]

# What says how this launch goes and not what is computed: neither recorded nor hashed.
LAUNCH_KEYS = ("fresh", "progress", "baselines", "exploration")

PICTURES = (
    "weights.png",
    "confusion_matrix.png",
    "ptq_weights.png",
    "ptq_confusion_matrix.png",
    "events.gif",
    "spikes.png",
    "membranes.png",
)


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the configuration that is recorded."""
    return {key: value for key, value in config.items() if key not in LAUNCH_KEYS}


class RunFolder:
    """The files of one run.

    Args:
        path: The folder; it is made.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self.record = self.path / RECORD_NAME
        self.failure = self.path / FAILURE_NAME
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.csv"
        self.output = self.path / "output.txt"
        self.wandb_id = self.path / "wandb_run_id.txt"
        self.pictures = [self.path / name for name in PICTURES]
        self.checkpoints = self.path / "checkpoints"
        self.last_checkpoint = self.checkpoints / "last.ckpt"

    @classmethod
    def existing(cls, path: str | os.PathLike[str]) -> RunFolder | None:
        """Return the folder, if there is one."""
        return cls(path) if os.path.isdir(path) else None

    def adopt(self, other: RunFolder, checkpoint: bool) -> None:
        """Take over the metrics and the pictures of a training in another folder.

        Args:
            other: The folder; nothing in it is changed.
            checkpoint: Take over its checkpoint as well.
        """
        shutil.copyfile(other.metrics, self.metrics)
        files = [path for path in other.pictures if path.exists()]
        for path in [*files, *([other.last_checkpoint] if checkpoint else [])]:
            _link(path, self.path / path.relative_to(other.path))

    def clear(self) -> None:
        """Delete what a run leaves, and nothing else."""
        files = (self.record, self.failure, self.config, self.metrics, self.output, self.wandb_id)
        for file in (*files, *self.pictures):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def finished_record(self, config: Mapping[str, Any]) -> RunRecord | None:
        """Return the record of this configuration, where one lies in the folder.

        Raises:
            ConfigurationError: The folder holds the work of another configuration, or a record
                that cannot be read.
        """
        with naming("configuration"):
            wanted = config_hash(identity(config))
        if self.record.exists():
            try:
                record = read_record(self.record)
            except RecordError as error:
                raise ConfigurationError(
                    f"{error}. Delete the file to go on from the checkpoint, or write fresh=true"
                ) from error
            self._check_same(record.config_hash == wanted, record.config, config)
            return record
        if self.config.exists():
            earlier = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(self.config)))
            self._check_same(config_hash(identity(earlier)) == wanted, identity(earlier), config)
        elif self.last_checkpoint.exists():
            raise ConfigurationError(
                f"{self.path} holds a checkpoint but no config.yaml that says what it is of: "
                "write hydra.run.dir=FOLDER with another folder, or fresh=true"
            )
        return None

    def save_config(self, config: Mapping[str, Any]) -> None:
        """Write the resolved configuration, all of it or nothing."""
        temporary = self.config.with_name(f".{self.config.name}.tmp")
        temporary.write_text(OmegaConf.to_yaml(dict(config)), encoding="utf-8")
        os.replace(temporary, self.config)

    def _check_same(
        self, is_same: bool, earlier: Mapping[str, Any], config: Mapping[str, Any]
    ) -> None:
        if is_same:
            return
        differences = list(_differences(earlier, identity(config)))
        shown = ", ".join(differences[:5]) + (", ..." if len(differences) > 5 else "")
        raise ConfigurationError(
            f"{self.path} holds a run of another configuration ({shown}): write "
            "hydra.run.dir=FOLDER with another folder, or fresh=true to delete that run"
        )


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, where the file system can; else copy it.

    Files of a run are replaced as a whole, never changed, so that either name keeps its content.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)
    temporary.unlink(missing_ok=True)  # renaming over another name of the same file does nothing


def _differences(earlier: Any, now: Any, place: str = "") -> list[str]:
    """Return one text per place where two configurations differ."""
    if isinstance(earlier, Mapping) and isinstance(now, Mapping):
        keys = dict.fromkeys([*earlier, *now])
        return [
            text
            for key in keys
            for text in _differences(
                earlier.get(key), now.get(key), f"{place}.{key}" if place else key
            )
        ]
    return [] if earlier == now else [f"{place}: {earlier!r} there, {now!r} now"]
