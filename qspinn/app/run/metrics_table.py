"""The metrics of a run as one CSV table that survives a kill and a restart."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers.logger import Logger

from qspinn.app.folder.ownership import FolderError, read_whole
from qspinn.atomic import write_text

ROWS_KEY = "qspinn_metrics"  # of a checkpoint: the rows of the table when it was written
_FIRST_COLUMNS = ("epoch", "step")
_MOST_BYTES = 1 << 26


class MetricsTable(Logger):
    """Writes ``metrics.csv``: a row per step at which something was logged, a column per metric.

    Values logged at one step share a row, so that the training and the validation metrics of an
    epoch do. Lightning's own ``CSVLogger`` deletes an existing file; this one continues it. The
    file is replaced as a whole, so that readers never see a part of it.
    """

    name = version = ""

    def __init__(self, save_dir: str | os.PathLike[str], file_name: str = "metrics.csv") -> None:
        super().__init__()
        self.path = Path(save_dir) / file_name
        self._rows: dict[int, dict[str, Any]] = {}
        self._changed = False
        self.read()

    def read(self) -> None:
        """Read an existing file."""
        self._rows, self._changed = {}, False
        if not os.path.lexists(self.path):
            return
        try:
            self._rows = parse_rows(read_whole(self.path, _MOST_BYTES))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise FolderError(
                f"{self.path} is damaged, or no table of a run ({reason}); delete it to go on, the "
                "checkpoint holds what is needed, or write hydra.run.dir=FOLDER with another folder"
            ) from error

    @property
    def save_dir(self) -> str:
        """The folder of the file."""
        return str(self.path.parent)

    def go_on_from(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Begin with the rows that a checkpoint holds; the file may lack them, or have later ones.

        Raises:
            FolderError: The file disagrees about a step.
        """
        wanted = {int(row["step"]): _typed(row) for row in rows}
        for step, row in wanted.items():
            there = _typed(self._rows.get(step, row))
            if any(repr(there.get(name)) != repr(value) for name, value in row.items()):
                raise FolderError(
                    f"{self.path} says something else of step {step} than the checkpoint beside "
                    "it; delete the table to go on, the checkpoint holds what is needed"
                )
        self._rows, self._changed = dict(wanted), True
        self.save()

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
        """Put values into the row of a step; None means the latest one."""
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
        """Write the file, if anything has changed."""
        if not self._changed:
            return
        names = {name for row in self._rows.values() for name in row}
        columns = [*_FIRST_COLUMNS, *sorted(names.difference(_FIRST_COLUMNS))]
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows[step] for step in sorted(self._rows))
        write_text(text.getvalue(), self.path)
        self._changed = False

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the file a last time."""
        del status
        self.save()


def parse_rows(content: bytes) -> dict[int, dict[str, Any]]:
    """Return the rows of a table by their step, each value as it is written there.

    Raises:
        ValueError: A table that :class:`MetricsTable` does not write.
    """
    try:
        header, *lines = csv.reader(io.StringIO(content.decode("utf-8"), newline=""), strict=True)
    except csv.Error as error:
        raise ValueError(str(error)) from error
    if tuple(header[:2]) != _FIRST_COLUMNS or sorted(set(header[2:])) != header[2:]:
        raise ValueError(f"its columns are {', '.join(header)[:200]}")
    rows: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=2):
        if len(line) != len(header):
            raise ValueError(f"line {number} has {len(line)} values for {len(header)} columns")
        row = {name: value for name, value in zip(header, line, strict=True) if value}
        if any(not _is_number(name, value) for name, value in row.items()):
            raise ValueError(f"line {number} holds what is no number, or one written otherwise")
        step = int(row.get("step", -1))
        if step < 0 or step in rows:
            raise ValueError(f"line {number} has no step, or that of another line")
        rows[step] = row
    return rows


def _is_number(name: str, text: str) -> bool:
    """Whether a string is exactly what Python writes for a number."""
    try:
        kind = int if name in _FIRST_COLUMNS else float
        return str(kind(text)) == text or (kind is float and str(int(text)) == text)
    except (ValueError, OverflowError):
        return False


def _typed(row: Mapping[str, Any]) -> dict[str, Any]:
    """The same with whole numbers for the epoch and the step, other numbers for the rest."""
    return {k: int(v) if k in _FIRST_COLUMNS else float(v) for k, v in row.items()}
