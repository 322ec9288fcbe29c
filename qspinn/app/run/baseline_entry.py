"""One 32-bit training in the store, and the integrity of its files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qspinn.app.errors import ConfigurationError
from qspinn.app.folder.failures import failure_of
from qspinn.app.folder.folder import RunFolder
from qspinn.app.folder.identity import identity
from qspinn.app.folder.lock import Holder, locked
from qspinn.app.folder.ownership import (
    FolderError,
    Owner,
    check_checkpoint,
    open_regular,
    read_whole,
)
from qspinn.app.run.outcome import Accuracies
from qspinn.records import (
    RecordError,
    RunRecord,
    read_failure,
    write_failure,
    write_json,
)

BASELINE_NAME = "baseline.json"
MOST_BYTES = 1 << 24


class TrainingFailed(ConfigurationError):
    """A 32-bit training that several runs waited for has failed."""


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
"""Runs or resumes a configuration without quantisation in a folder."""


@dataclass(frozen=True)
class Entry:
    """The place of one training in the store.

    Attributes:
        path: Its folder, which need not exist.
        config: The configuration of the training.
        key: Of all that it depends on.
        owner: The owner that is written into its checkpoint.
    """

    path: Path
    config: dict[str, Any]
    key: str
    owner: Owner

    def read(self) -> Baseline | None:
        """Return the training; None if it is not finished.

        Raises:
            ConfigurationError: Something in the folder was changed, is damaged, or belongs to
                another training. It names the file, and says what to delete.
        """
        file = self.path / BASELINE_NAME
        if not os.path.lexists(file):
            return None
        try:
            values = self._checked(file)
            record = RunRecord.from_dict(values["record"])
            measured = {str(name): float(value) for name, value in values["measured"].items()}
            if record.config_hash != self.owner.config:
                raise ValueError("its record is of another configuration")
            if Accuracies.of_metrics(measured) != Accuracies.of_record(record):
                raise ValueError("its accuracies are not those of its record")
            folder = RunFolder(self.path)
            files = dict(values["files"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecordError) as error:
            raise self._refused(file, str(error)) from error
        except RecursionError as error:
            raise self._refused(file, "it is nested too deep") from error
        self._check_files(folder, files)
        return Baseline(folder, record, measured)

    @contextlib.contextmanager
    def held(self) -> Iterator[bool]:
        """Lock the folder; wait for a process that trains there.

        Yields:
            Whether another process failed to train in the meantime.
        """
        folder = RunFolder(self.path)
        before = _state(folder.failure)
        has_waited = False

        def wait(holder: Holder | None) -> None:
            nonlocal has_waited
            if not has_waited:
                who = "" if holder is None else f" ({holder})"
                print(f"waiting for the 32-bit training in {self.path}{who}", flush=True)
            has_waited = True

        with locked(self.path, identity(self.config), wait):
            after = _state(folder.failure)
            yield has_waited and after is not None and after != before

    def trained(self, train: Train) -> Baseline:
        """Train, or resume a training that was interrupted here, and keep the result."""
        print(f"32-bit training, kept for other runs in {self.path}", flush=True)
        folder = RunFolder(self.path)
        try:
            record, measured = train(self.config, folder)
        except Exception as error:
            with contextlib.suppress(OSError):  # the first error is the one to show
                write_failure(failure_of(error, {}), folder.failure)  # for waiting processes
            raise
        if not folder.last_checkpoint.exists():
            raise RuntimeError(f"the training in {self.path} has left no checkpoint")
        kept = [folder.last_checkpoint, folder.metrics, *folder.pictures]
        files = {
            path.relative_to(self.path).as_posix(): _digest(path) for path in kept if path.exists()
        }
        values = {
            "key": self.key,
            "config_hash": self.owner.config,
            "files": files,
            "record": record.to_dict(),
            "measured": measured,
        }
        write_json({**values, "sha256": _digest_of(values)}, self.path / BASELINE_NAME)
        folder.failure.unlink(missing_ok=True)
        return Baseline(folder, record, measured)

    def failed(self) -> TrainingFailed:
        """Return the error of another process that could not train."""
        try:
            failure = read_failure(RunFolder(self.path).failure)
            reason = f"{failure.error}: {failure.message}"
        except RecordError as error:
            reason = str(error)
        return TrainingFailed(f"the 32-bit training in {self.path} has failed ({reason})")

    def _checked(self, file: Path) -> dict[str, Any]:
        """The content of ``baseline.json``, checked to belong to this training."""
        values: dict[str, Any] = json.loads(read_whole(file, MOST_BYTES))
        if values.pop("sha256") != _digest_of(values):
            raise ValueError("it has changed since it was written")
        if values["key"] != self.key or values["config_hash"] != self.owner.config:
            raise ValueError("it is of another training")
        return values

    def _check_files(self, folder: RunFolder, files: dict[str, str]) -> None:
        """Check that every file is unchanged since the training finished."""
        needed = (folder.last_checkpoint, folder.metrics)
        for path in (*needed, *folder.pictures):
            name = path.relative_to(self.path).as_posix()
            if name not in files and path in needed:
                raise self._refused(self.path / BASELINE_NAME, f"it does not know {name}")
            if name not in files and os.path.lexists(path):
                raise self._refused(path, "the training has not written it")
            if name in files:
                self._check_file(path, files[name])
        try:
            check_checkpoint(folder.last_checkpoint, self.owner)
        except FolderError as error:
            raise self._refused(folder.last_checkpoint, str(error)) from error

    def _check_file(self, path: Path, digest: str) -> None:
        try:
            found = _digest(path)
        except OSError as error:
            raise self._refused(path, f"{error.strerror or error}") from error
        if found != digest:
            raise self._refused(path, "it has changed since it was written: its SHA-256 is another")

    def _refused(self, path: Path, reason: str) -> ConfigurationError:
        return ConfigurationError(
            f"{path} cannot be used ({reason}); delete the folder {self.path} to train anew"
        )


def _state(path: Path) -> tuple[int, int] | None:
    """What changes when a file is written anew; None where there is none."""
    try:
        state = os.lstat(path)
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns


def _digest(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(values: dict[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
