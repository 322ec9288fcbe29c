"""The metrics of a run as one CSV table that survives a kill and a restart."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers.logger import Logger

__all__ = ["MetricsTable"]

_FIRST_COLUMNS = ("epoch", "step")


class MetricsTable(Logger):
    """Writes ``metrics.csv``: a row per step at which something was logged, a column per metric.

    What is logged at one step stands in one row, so that the training and the validation metrics
    of an epoch do. Lightning's own ``CSVLogger`` deletes the file that it finds; this one reads it
    and goes on from there. The file is replaced as a whole, so a reader never sees half of it.

    Args:
        save_dir: The folder of the file.
        file_name: The file's name.
    """

    def __init__(self, save_dir: str | os.PathLike[str], file_name: str = "metrics.csv") -> None:
        super().__init__()
        self.path = Path(save_dir) / file_name
        self._rows: dict[int, dict[str, Any]] = {}
        self._changed = False
        self.read()

    def read(self) -> None:
        """Take over what the file holds, if there is one."""
        self._rows, self._changed = {}, False
        if self.path.is_file():
            with open(self.path, newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    self._rows[int(row["step"])] = {k: v for k, v in row.items() if v}

    @property
    def name(self) -> str:
        """The table has no name of its own."""
        return ""

    @property
    def version(self) -> str:
        """The table has no version."""
        return ""

    @property
    def save_dir(self) -> str:
        """The folder of the file."""
        return str(self.path.parent)

    def keep_epochs(self, count: int) -> None:
        """Drop the rows of all but the first ``count`` epochs, and what was logged after those."""
        self._rows = {
            step: row for step, row in self._rows.items() if int(row.get("epoch", count)) < count
        }
        self._changed = True
        self.save()

    def rows(self) -> list[dict[str, float]]:
        """Return what was logged at each step, in order, each with its ``step``."""
        return [
            {name: float(value) for name, value in self._rows[step].items()}
            for step in sorted(self._rows)
        ]

    def latest(self) -> dict[str, float]:
        """Return the last value of each metric."""
        values: dict[str, float] = {}
        for step in sorted(self._rows):
            values.update({name: float(value) for name, value in self._rows[step].items()})
        return {name: values[name] for name in sorted(values) if name not in _FIRST_COLUMNS}

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Put values into the row of a step.

        Args:
            metrics: Name to value.
            step: The row; None means the latest one.
        """
        if step is None:
            step = max(self._rows, default=0)
        row = self._rows.setdefault(step, {"step": step})
        for name, value in metrics.items():
            row[name] = int(value) if name == "epoch" else float(value)
        self._changed = True

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the configuration lies beside the table."""

    @rank_zero_only
    def save(self) -> None:
        """Write the file, if something is new."""
        if not self._changed:
            return
        names = {name for row in self._rows.values() for name in row}
        columns = [*_FIRST_COLUMNS, *sorted(names.difference(_FIRST_COLUMNS))]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self._rows[step] for step in sorted(self._rows))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)
        self._changed = False

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left."""
        del status
        self.save()
