"""The output folder of a run: what lies in it, and whether a run may use it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qspinn.app.errors import ConfigurationError, naming
from qspinn.app.folder_files import (
    CHECKPOINTS,
    LAST_CHECKPOINT,
    OUTPUT_START,
    PICTURES,
    check_files,
    delete_files,
    is_writable,
    sweep_up,
)
from qspinn.app.folder_lock import Holder, locked, try_locked
from qspinn.app.ownership import FolderError, Owner, check_checkpoint
from qspinn.app.paths import from_start
from qspinn.app.saved_config import read_saved_config, write_saved_config
from qspinn.records import (
    FAILURE_NAME,
    RECORD_NAME,
    RecordError,
    RunFailure,
    RunRecord,
    config_hash,
    read_record,
    write_failure,
)

__all__ = [
    "LAUNCH_KEYS",
    "FolderError",
    "RunFolder",
    "check_fresh",
    "identity",
    "owner_of",
]

# What says how this launch goes and not what is computed: neither recorded nor hashed.
LAUNCH_KEYS = ("fresh", "progress", "baselines", "exploration")
# Another run is refused when its holder was seen so many times in a row: the first look may find
# what a run left that was killed.
LOOKS = 3


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the configuration that is recorded."""
    return {key: value for key, value in config.items() if key not in LAUNCH_KEYS}


class RunFolder:
    """The files of one run.

    Args:
        path: The folder; it is made.

    Raises:
        FolderError: It cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise FolderError(
                f"{self.path} cannot be an output folder ({reason}): write hydra.run.dir=FOLDER "
                "with another folder"
            ) from error
        self.record = self.path / RECORD_NAME
        self.failure = self.path / FAILURE_NAME
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.csv"
        self.output = self.path / "output.txt"
        self.wandb_id = self.path / "wandb_run_id.txt"
        self.pictures = [self.path / name for name in PICTURES]
        self.checkpoints = self.path / CHECKPOINTS
        self.last_checkpoint = self.checkpoints / LAST_CHECKPOINT

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

    @contextlib.contextmanager
    def held(self, config: Mapping[str, Any]) -> Iterator[bool]:
        """Have the folder alone, as whoever reads, writes or deletes files of its run has to.

        Whoever runs the same configuration there is waited for. A thread that has the folder may
        ask for it again.

        Yields:
            Whether the thread did not have it before.

        Raises:
            FolderError: Another configuration is run there at this moment, or the files there are
                not those of a run. ``fresh=true`` does not wait: it would delete what the other
                one is about to finish.
        """
        seen = 0

        def wait(holder: Holder | None) -> None:
            nonlocal seen
            if holder is None:
                return
            seen += 1
            if seen < LOOKS:
                return
            if config["fresh"]:
                raise FolderError(
                    f"{self.path} is in use by {holder}, and fresh=true deletes nothing under a "
                    "run: wait for its end, or write hydra.run.dir=FOLDER with another folder"
                )
            self._check_holder(holder, config)
            if seen == LOOKS:
                print(f"waiting for the run in {self.path} ({holder})", flush=True)

        with locked(self.path, identity(config), wait) as is_new:
            if is_new:
                check_files(self.path)
                sweep_up(self.path)
            yield is_new

    def clear(self, keep_output: bool = False) -> None:
        """Delete what a run leaves, and nothing else.

        Args:
            keep_output: Leave the file for what a run prints, as somebody is writing to it.

        Raises:
            FolderError: A file by such a name was not written by a run; nothing is deleted.
        """
        delete_files(self.path, {self.output} if keep_output else set())

    def start_output(self) -> None:
        """Begin the file for what a run prints, if there is none."""
        if not self.output.exists() or self.output.stat().st_size == 0:
            self.output.write_text(OUTPUT_START, encoding="utf-8")

    def finished_record(self, config: Mapping[str, Any]) -> RunRecord | None:
        """Return the record of this configuration, where one lies in the folder.

        Raises:
            FolderError: The folder holds the work of another configuration, or a record that
                cannot be read.
        """
        with naming("configuration"):
            wanted = config_hash(identity(config))
        if self.record.exists():
            try:
                record = read_record(self.record)
            except RecordError as error:
                raise FolderError(
                    f"{error}. Delete the file to go on from the checkpoint (fresh=true deletes "
                    "only what it can read)"
                ) from error
            self._check_same(record.config_hash == wanted, record.config, config)
            return record
        if self.config.exists():
            earlier = read_saved_config(self.config).values
            is_same = config_hash(identity(earlier)) == wanted
            self._check_same(is_same, identity(earlier), config)
        elif self.last_checkpoint.exists():
            raise FolderError(
                f"{self.path} holds a checkpoint but no config.yaml that says what it is of: "
                "write hydra.run.dir=FOLDER with another folder, or fresh=true"
            )
        return None

    def check_data(self, config: Mapping[str, Any], fingerprint: str | None) -> None:
        """See that what lies in the folder was computed from the same data.

        Args:
            config: Of the run that is to be done.
            fingerprint: Of its data; None where it is not known. Where one of the two is not
                known, the data are the same if ``data.root`` is.

        Raises:
            FolderError: The data are others, or it cannot be told.
        """
        if self.record.exists():
            record = read_record(self.record)
            earlier, known = record.config, record.data_fingerprint
        elif self.config.exists():
            saved = read_saved_config(self.config)
            earlier, known = saved.values, None if saved.owner is None else saved.owner.data
        else:
            return
        now = Owner.of("0" * 64, fingerprint).data
        roots = [_root_of(values) for values in (earlier, config)]
        if known == now if known and now else roots[0] == roots[1]:
            return
        way_out = "write hydra.run.dir=FOLDER with another folder, or fresh=true to delete that run"
        if known and now:
            raise FolderError(
                f"{self.path} holds a run on other data than there are now (data.root={roots[1]}, "
                f"{roots[0]} then): {way_out}"
            )
        raise FolderError(
            f"{self.path} holds a run with data.root={roots[0]}, now it is {roots[1]}, and whether "
            f"the data are the same cannot be told: {way_out}"
        )

    def save_config(self, config: Mapping[str, Any], fingerprint: str | None = None) -> None:
        """Write the resolved configuration, all of it or nothing.

        Args:
            config: Plain types.
            fingerprint: Of the data.
        """
        write_saved_config(self.config, config, owner_of(config, fingerprint))

    def checkpoint_to_resume(
        self, config: Mapping[str, Any], fingerprint: str | None = None
    ) -> Path | None:
        """Return the checkpoint that a run goes on from; None where there is none.

        Raises:
            FolderError: It is damaged, or of another run.
        """
        if not os.path.lexists(self.last_checkpoint):
            return None
        check_checkpoint(self.last_checkpoint, owner_of(config, fingerprint))
        return self.last_checkpoint

    def save_failure(self, failure: RunFailure) -> None:
        """Write why a run failed, unless the folder is another run's or holds a record."""
        with try_locked(self.path) as is_mine:
            if not is_mine or os.path.lexists(self.record) or not is_writable(self.failure):
                return
            if self.config.exists():
                try:
                    earlier = read_saved_config(self.config).values
                    if config_hash(identity(earlier)) != config_hash(failure.config):
                        return
                except (FolderError, RecordError):
                    return
            write_failure(failure, self.failure)

    def _check_holder(self, holder: Holder, config: Mapping[str, Any]) -> None:
        if holder.config is None:
            return
        now = identity(config)
        with naming("configuration"):
            if config_hash(holder.config) == config_hash(now):
                return
        raise FolderError(
            f"{self.path} is in use by {holder}, which runs another configuration "
            f"({_shown(_differences(holder.config, now))}): write hydra.run.dir=FOLDER with "
            "another folder"
        )

    def _check_same(
        self, is_same: bool, earlier: Mapping[str, Any], config: Mapping[str, Any]
    ) -> None:
        if is_same:
            return
        raise FolderError(
            f"{self.path} holds a run of another configuration "
            f"({_shown(_differences(earlier, identity(config)))}): write hydra.run.dir=FOLDER "
            "with another folder, or fresh=true to delete that run"
        )


def check_fresh(fresh: object) -> None:
    """See that what decides whether a run is deleted is a truth value, and nothing like one.

    Raises:
        ConfigurationError: It is something else; ``no`` and ``off`` are texts on a command line.
    """
    if not isinstance(fresh, bool):
        raise ConfigurationError(
            f"fresh={fresh!r}: write true to delete what an earlier run left in the output "
            "folder, or false; nothing was deleted"
        )


def owner_of(config: Mapping[str, Any], fingerprint: str | None) -> Owner:
    """Return what the files of a run say whose they are.

    Args:
        config: The resolved configuration.
        fingerprint: Of its data; None where it is not known.
    """
    with naming("configuration"):
        return Owner.of(config_hash(identity(config)), fingerprint)


def _root_of(config: Mapping[str, Any]) -> str | None:
    """Where the data lie, if the configuration says so."""
    data = config.get("data")
    root = data.get("root") if isinstance(data, Mapping) else None
    return os.path.realpath(from_start(root)) if isinstance(root, str) else None


def _shown(differences: list[str]) -> str:
    return ", ".join(differences[:5]) + (", ..." if len(differences) > 5 else "")


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
