"""The progress of a training: a bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from torch import Tensor
from tqdm import tqdm

from qspinn.app.errors import refused

PROGRESS_STYLES = ("auto", "bar", "lines", "none")
_SHOWN = (
    "train/loss",
    "train/accuracy",
    "train/output_spikes",
    "train/update_underflow",
    "val/loss",
    "val/accuracy",
)
_SHOWN_IN_BAR = ("train/loss", "val/accuracy")


def progress_bar(style: str) -> ProgressBar | None:
    """Return the callback for a style.

    Args:
        style: ``auto`` (a bar on a terminal, else lines), ``bar``, ``lines`` or ``none``.
    """
    if style not in PROGRESS_STYLES:
        raise refused("progress", style, f"one of {', '.join(PROGRESS_STYLES)}")
    if style == "auto":
        style = "bar" if sys.stdout.isatty() else "lines"
    if style == "bar":
        return TrainingBar()
    return EpochLines() if style == "lines" else None


class _Speed:
    """Images per second since the start."""

    def __init__(self) -> None:
        self._started = self._latest = time.monotonic()
        self._images = 0

    def add(self, batch: Any) -> None:
        """Count a finished batch."""
        self._images += _images_in(batch)
        self._latest = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    def __str__(self) -> str:
        seconds = self._latest - self._started
        return f"{self._images / seconds:,.0f} images/s" if seconds > 0 else ""


class _Progress(ProgressBar):
    """The common part of both: the speed, and a line after a test.

    Lightning switches off the progress bars of all processes but the first.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_enabled = True
        self._speed = _Speed()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._speed = _Speed()

    on_test_start = on_train_epoch_start

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Count the batch."""
        self._speed.add(batch)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print what was measured."""
        if self._is_enabled:
            names = tuple(name for name in trainer.callback_metrics if name.startswith("test/"))
            print(f"test  {_metrics_of(trainer, names)}  {self._speed.seconds:.1f} s", flush=True)

    def disable(self) -> None:
        """Hide the progress."""
        self._is_enabled = False

    def enable(self) -> None:
        """Show the progress again."""
        self._is_enabled = True


class TrainingBar(_Progress):
    """One bar for the whole training, with the time that is left and the latest metrics."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: tqdm[Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar at the progress of a resumed training."""
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

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the epoch."""
        super().on_train_epoch_start(trainer, pl_module)
        if self._bar is not None:
            self._bar.set_description(_epoch_of(trainer), refresh=False)

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Advance the bar."""
        super().on_train_batch_end(trainer, *args)
        if self._bar is not None:
            self._show(trainer)
            self._bar.update()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the metrics of the epoch."""
        if self._bar is not None:
            self._show(trainer)
            self._bar.refresh()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the full bar."""
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close the bar as it is."""
        self._close()

    def _show(self, trainer: Trainer) -> None:
        assert self._bar is not None
        shown = (str(self._speed), _metrics_of(trainer, _SHOWN_IN_BAR))
        self._bar.set_postfix_str("  ".join(filter(None, shown)), refresh=False)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class EpochLines(_Progress):
    """Prints one line per epoch with its metrics and its time, and no escape codes."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line."""
        if self._is_enabled:
            metrics, speed = _metrics_of(trainer, _SHOWN), self._speed
            print(f"{_epoch_of(trainer)}  {metrics}  {speed.seconds:.1f} s  {speed}", flush=True)


def _epoch_of(trainer: Trainer) -> str:
    of_all = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
    return f"epoch {trainer.current_epoch + 1}{of_all}"


def _metrics_of(trainer: Trainer, names: tuple[str, ...]) -> str:
    values = trainer.callback_metrics
    return "  ".join(f"{name} {values[name]:.4f}" for name in names if name in values)


def _images_in(batch: Any) -> int:
    """The length of the first tensor in a batch; 1 where there is none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else 1
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if isinstance(batch, (list, tuple)):
        return _images_in(batch[0]) if batch else 1
    return 1
