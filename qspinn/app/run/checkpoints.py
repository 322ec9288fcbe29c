"""Checkpoints that survive a kill at any moment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from qspinn.app.folder.ownership import Owner, seal
from qspinn.app.run.metrics_table import ROWS_KEY, MetricsTable
from qspinn.atomic import atomic_file
from qspinn.callbacks.lightning_internals import logged_steps


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its final place, forces it to the disk and renames it.

    Lightning writes to the system's folder for temporary files and moves the file from there,
    which is a copy, and can be cut short, where that folder lies on another file system.

    Args:
        owner: The run that the checkpoints belong to, written into each. None: none is written,
            and no checkpoint can be resumed.
    """

    def __init__(self, owner: Owner | None = None) -> None:
        super().__init__()
        self._owner = owner

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any | None = None,
    ) -> None:
        """Write ``checkpoint`` so that ``path`` holds all of it or what it held before."""
        if storage_options is not None:
            raise TypeError("AtomicCheckpointIO writes local files: storage_options must be None")
        with atomic_file(path) as temporary:
            with open(temporary, "wb") as file:
                noting = _Noting(file)
                try:
                    torch.save(checkpoint, noting)  # type: ignore[arg-type]
                except RuntimeError as error:
                    raise noting.error or error from None
            self._seal(temporary)

    def _seal(self, path: Path) -> None:
        if self._owner is not None:
            seal(path, self._owner)


class _Noting:
    """A file that keeps its first error: PyTorch reports a full disk as "unexpected pos"."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        """Write."""
        try:
            return self._file.write(content)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        """Flush."""
        self._file.flush()


class EpochCheckpoint(ModelCheckpoint):
    """Keeps one checkpoint, ``last.ckpt``, written when an epoch with its validation is over.

    Before that it writes the metrics of the epoch to the table and to W&B. Lightning does so only
    after the checkpoints are written, and a run killed in between would resume without them. The
    checkpoint holds the rows of the table as well: a run that resumes from it begins with these.

    Args:
        every_n_epochs: Write a checkpoint after so many epochs.
    """

    def __init__(self, every_n_epochs: int = 1) -> None:
        if every_n_epochs < 1:
            raise ValueError(
                f"every_n_epochs={every_n_epochs}; write 1 or more, or "
                "callbacks.checkpoint=null for no checkpoint"
            )
        super().__init__(
            filename="last",
            save_top_k=1,
            every_n_epochs=every_n_epochs,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Flush the metrics, then save."""
        values = {name: float(value) for name, value in trainer.logged_metrics.items()}
        values["epoch"] = trainer.current_epoch
        # The step at which Lightning will log them. The trainer's global step counts each of
        # several optimizers.
        step = logged_steps(trainer) - 1
        for logger in trainer.loggers:
            if isinstance(logger, MetricsTable):
                logger.log_metrics(values, step)
                logger.save()
            elif hasattr(logger, "flush"):  # W&B's, which has its own rows
                logger.log_metrics(values, step)
                logger.flush(step)
        super().on_train_epoch_end(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the rows of the table."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        for logger in trainer.loggers:
            if isinstance(logger, MetricsTable):
                checkpoint[ROWS_KEY] = logger.rows()


def epochs_of(checkpoint: Path) -> int:
    """Return how many epochs had been trained when a checkpoint was written."""
    loaded = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return int(loaded["epoch"]) + 1
