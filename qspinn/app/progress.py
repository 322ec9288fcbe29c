"""How training shows its progress: a bar on a terminal, a line per epoch anywhere else."""

from __future__ import annotations

import sys
import time

import lightning
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar

from qspinn.app.errors import ConfigurationError

__all__ = ["PROGRESS_STYLES", "EpochLines", "progress_bar"]

PROGRESS_STYLES = ("auto", "bar", "lines", "none")
_SHOWN = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")


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
        return TQDMProgressBar()
    return EpochLines() if style == "lines" else None


class EpochLines(ProgressBar):
    """Prints one line per epoch with its metrics and its time, and no escape codes."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._started = 0.0

    def disable(self) -> None:
        """Print nothing from now on; Lightning calls it on all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Print again."""
        self._enabled = True

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Print the line."""
        if not self._enabled:
            return
        values = trainer.callback_metrics
        shown = "  ".join(f"{name} {values[name]:.4f}" for name in _SHOWN if name in values)
        count = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
        print(f"epoch {count}  {shown}  {time.monotonic() - self._started:.1f} s", flush=True)
