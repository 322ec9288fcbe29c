"""How training shows its progress: a bar on a terminal, a line per epoch anywhere else."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from qspinn.app.errors import ConfigurationError

__all__ = ["PROGRESS_STYLES", "EpochLines", "TrainingBar", "progress_bar"]

PROGRESS_STYLES = ("auto", "bar", "lines", "none")
_SHOWN = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")
_SHOWN_IN_BAR = ("train/loss", "val/accuracy")


def progress_bar(style: str) -> ProgressBar | None:
    """Return the callback for a style.

    Args:
        style: ``auto`` (a bar on a terminal, else lines), ``bar``, ``lines`` or ``none``.
    """
    if style not in PROGRESS_STYLES:
        written = ", ".join(PROGRESS_STYLES)
        raise ConfigurationError(f"progress={style!r}: write one of {written}")
    if style == "auto":
        style = "bar" if sys.stdout.isatty() else "lines"
    if style == "bar":
        return TrainingBar()
    return EpochLines() if style == "lines" else None


class _Progress(ProgressBar):
    """What Lightning asks of a progress bar: to be switched off in all processes but the first."""

    def __init__(self) -> None:
        super().__init__()
        self._is_enabled = True

    def disable(self) -> None:
        """Show nothing from now on."""
        self._is_enabled = False

    def enable(self) -> None:
        """Show again."""
        self._is_enabled = True


class TrainingBar(_Progress):
    """One bar for the whole training, with the time that is left and the latest metrics."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: tqdm[Any] | None = None

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Open the bar, where a resumed training stands."""
        epochs, batches = trainer.max_epochs or -1, trainer.num_training_batches
        is_known = epochs > 0 and not math.isinf(batches)
        self._bar = tqdm(
            total=int(epochs * batches) if is_known else None,
            initial=int(trainer.current_epoch * batches) if is_known else 0,
            desc="training",
            unit=" batches",
            dynamic_ncols=True,
            disable=not self._is_enabled,
        )

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Say which epoch it is."""
        if self._bar is not None:
            self._bar.set_description(_epoch_of(trainer), refresh=False)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the bar on."""
        if self._bar is not None:
            self._bar.update()

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Show the metrics of the epoch."""
        if self._bar is not None:
            self._bar.set_postfix_str(_metrics_of(trainer, _SHOWN_IN_BAR))

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Leave the full bar on its line."""
        self._close()

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        """Leave the bar as it stands."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class EpochLines(_Progress):
    """Prints one line per epoch with its metrics and its time, and no escape codes."""

    def __init__(self) -> None:
        super().__init__()
        self._started = 0.0

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Print the line."""
        if self._is_enabled:
            seconds = time.monotonic() - self._started
            print(
                f"{_epoch_of(trainer)}  {_metrics_of(trainer, _SHOWN)}  {seconds:.1f} s", flush=True
            )


def _epoch_of(trainer: lightning.Trainer) -> str:
    of_all = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
    return f"epoch {trainer.current_epoch + 1}{of_all}"


def _metrics_of(trainer: lightning.Trainer, names: tuple[str, ...]) -> str:
    values = trainer.callback_metrics
    return "  ".join(f"{name} {values[name]:.4f}" for name in names if name in values)
