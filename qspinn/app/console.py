"""Keeps the output of a run short."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGERS = ("lightning.pytorch", "lightning.fabric", "lightning", "pytorch_lightning")
# Expected with small data in memory, where loader processes only cost time, and with runs that
# hold out no images for validation.
_POINTLESS = (
    ".*defined a `validation_step` but have no `val_dataloader`.*",
    ".*Total length of `list` across ranks is zero.*",
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*exists and is not empty.*",
    # A network that was trained in another folder, which the store of baselines keeps.
    ".*The dirpath has changed from.*",
    ".*callbacks used to create the checkpoint need to be provided.*",
    ".*isinstance.treespec, LeafSpec.*",
    # True wherever Slurm is installed and something else than a Slurm job runs.
    ".*The `srun` command is available on your system but is not used.*",
)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Suppress Lightning's notes on hardware and its tips; warnings are still shown."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _POINTLESS:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
