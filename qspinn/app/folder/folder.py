"""The output folder of a run: what lies in it, and whether a run may use it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qspinn.app.errors import naming
from qspinn.app.folder.files import (
    CHECKPOINTS,
    LAST_CHECKPOINT,
    OUTPUT_START,
    PICTURES,
    check_files,
    delete_files,
    is_writable,
    sweep_up,
)
from qspinn.app.folder.identity import (
    hash_of,
    identity,
    owner_of,
    root_of,
    shown,
)
from qspinn.app.folder.lock import Holder, locked, try_locked
from qspinn.app.folder.ownership import FolderError, Owner, check_checkpoint, seal, unseal
from qspinn.app.folder.saved_config import read_saved_config, write_saved_config
from qspinn.atomic import atomic_file
from qspinn.records import (
    FAILURE_NAME,
    GATE_NAME,
    RECORD_NAME,
    RecordError,
    RunFailure,
    RunRecord,
    config_hash,
    read_record,
    write_failure,
)

# A run is refused when the same other holder was seen so many times in a row: the first time it may
# be left from a run that was killed.
LOOKS = 3


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
                f"{self.path} cannot be an output folder ({reason}); write hydra.run.dir=FOLDER "
                "with another folder"
            ) from error
        self.record = self.path / RECORD_NAME
        self.failure = self.path / FAILURE_NAME
        self.gate = self.path / GATE_NAME
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.csv"
        self.output = self.path / "output.txt"
        self.wandb_id = self.path / "wandb_run_id.txt"
        self.pictures = [self.path / name for name in PICTURES]
        self.checkpoints = self.path / CHECKPOINTS
        self.last_checkpoint = self.checkpoints / LAST_CHECKPOINT

    def adopt(self, other: RunFolder, owner: Owner, checkpoint: bool) -> None:
        """Take over the metrics and the pictures of a training in another folder.

        Files are copied, so that neither run depends on the other.

        Args:
            other: The folder; nothing in it is changed.
            owner: The run that the checkpoint belongs to from now on.
            checkpoint: Take over its checkpoint as well.
        """
        for path in (other.metrics, *(path for path in other.pictures if path.exists())):
            with atomic_file(self.path / path.name) as temporary:
                shutil.copyfile(path, temporary)
        if checkpoint:
            with atomic_file(self.last_checkpoint) as temporary:
                shutil.copyfile(other.last_checkpoint, temporary)
                unseal(temporary)
                seal(temporary, owner)

    @contextlib.contextmanager
    def held(self, config: Mapping[str, Any]) -> Iterator[bool]:
        """Lock the folder, as is required to read, write or delete the files of its run.

        Waits for another process that runs the same configuration there. Reentrant within a thread.

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
                    "run; wait for its end, or write hydra.run.dir=FOLDER with another folder"
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
            keep_output: Keep the file with the output of the run, which is being written.

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
                    f"{error}; delete the file to go on from the checkpoint (fresh=true deletes "
                    "only what it can read)"
                ) from error
            if record.config_hash != wanted:
                raise self._of_another(record.config, config)
            return record
        if self.config.exists():
            saved = read_saved_config(self.config)
            if hash_of(saved) != wanted:
                raise self._of_another(identity(saved.values()), config)
        elif self.last_checkpoint.exists():
            raise FolderError(
                f"{self.path} holds a checkpoint but no config.yaml that says what it is of; "
                "write hydra.run.dir=FOLDER with another folder, or fresh=true"
            )
        return None

    def check_data(
        self,
        config: Mapping[str, Any],
        fingerprint: str | None,
        record: RunRecord | None = None,
    ) -> None:
        """Check that what lies in the folder was computed from the same data.

        Args:
            config: Of the run that is to be done.
            fingerprint: Of its data; None where it is not known. Where one of the two is not
                known, the data are the same if ``data.root`` is.
            record: What :meth:`finished_record` has found; None: there is none.

        Raises:
            FolderError: The data differ, or it is unknown whether they do.
        """
        if record is not None:
            known = record.data_fingerprint
        elif self.config.exists():
            owner = read_saved_config(self.config).owner
            known = None if owner is None else owner.data
        else:
            return
        now = owner_of(config, fingerprint).data
        if known and known == now:
            return
        # Parsing the file takes time and is not needed for a run on known data.
        earlier = read_saved_config(self.config).values() if record is None else record.config
        roots = [root_of(values) for values in (earlier, config)]
        if not (known and now) and roots[0] == roots[1]:
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
        """Write the resolved configuration and the fingerprint of its data, all or nothing."""
        write_saved_config(self.config, config, owner_of(config, fingerprint))

    def checkpoint_to_resume(
        self, config: Mapping[str, Any], fingerprint: str | None = None
    ) -> Path | None:
        """Return the checkpoint that a run resumes from; None if there is none.

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
                    saved = read_saved_config(self.config)
                    if hash_of(saved) != config_hash(failure.config):
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
            f"({shown(holder.config, now)}); write hydra.run.dir=FOLDER with "
            "another folder"
        )

    def _of_another(self, earlier: Mapping[str, Any], config: Mapping[str, Any]) -> FolderError:
        return FolderError(
            f"{self.path} holds a run of another configuration "
            f"({shown(earlier, identity(config))}); write hydra.run.dir=FOLDER "
            "with another folder, or fresh=true to delete that run"
        )
