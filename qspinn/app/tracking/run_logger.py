"""Lightning's logger for Weights & Biases, robust against an outage of the server."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import WandbLogger
from torch import nn

from qspinn.app.folder.folder import RunFolder
from qspinn.app.tracking.client import (
    abandon,
    decide,
    make_artifact,
    make_bars,
    make_table,
    short,
)
from qspinn.app.tracking.history import History
from qspinn.app.tracking.server import Server, uploaded
from qspinn.app.tracking.summary import RECORD_KEY, summary_of, tags_of
from qspinn.quantizers.saving import save_quantized
from qspinn.records import RECORD_NAME, RunRecord

FINISH_SECONDS = 300.0
QUANTIZED_NAME = "quantized.pt"


class RunLogger(WandbLogger):
    """Lightning's logger for W&B, which logs at the end what the run hands over.

    What is logged at one step becomes one row of W&B's history, whose place is the step. An error
    of W&B ends the logging, with one line, and never the run.

    Args:
        run: Of wandb.
        save_dir: The output folder.
        project: Its name.
        begin_offline: Begins the same run on this machine.
        artifact: Whether the network and the record are uploaded.
        server: Where the run is uploaded to; None: it stays on this machine.
        finish_seconds: How long the end of the run waits for its upload.
    """

    def __init__(
        self,
        run: Any,
        save_dir: str,
        project: str,
        begin_offline: Callable[[], Any],
        artifact: bool = True,
        server: Server | None = None,
        finish_seconds: float = FINISH_SECONDS,
    ) -> None:
        super().__init__(experiment=run, save_dir=save_dir, project=project)
        self.artifact = artifact
        self.server = server
        self.finish_seconds = finish_seconds
        self.is_shared = run.settings.mode == "shared"
        self.history = History(self._send, run.starting_step if run.resumed else 0)
        self._begin_offline = begin_offline
        # The content of an offline run, in case the server is lost.
        self._config: dict[str, Any] | None = None
        self._rows: list[tuple[dict[str, Any], int]] = []
        self._copy = History(lambda row, place: self._rows.append((_plain(row), place)))
        self._record: tuple[RunRecord, RunFolder, nn.Module | None] | None = None
        self._failed = False
        self._unusable: str | None = None

    def _send(self, row: dict[str, Any], place: int) -> None:
        if self.is_shared:  # several processes write rows: the server numbers them
            self.experiment.log(row)
        else:
            self.experiment.log(row, step=place, commit=True)

    def _try(self, action: Callable[[], object]) -> None:
        """Call W&B; an error there is printed once and ends only the logging."""
        if self._failed:
            return
        try:
            action()
        except Exception as error:
            self._failed = True
            print(f"W&B: logging stops ({short(error)}); the run itself goes on", flush=True)

    @rank_zero_only
    def log_config(self, config: Mapping[str, Any]) -> None:
        """Log the configuration of the run; hyper-parameters are parts of it, logged once."""
        self._config = values = dict(config)
        self._try(lambda: self.experiment.config.update(values, allow_val_change=True))

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Log hyper-parameters, unless a configuration holds them already."""
        if self._config is None:
            log = super().log_hyperparams
            self._try(lambda: log(*args, **kwargs))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Put values into the row of a step; None: the latest one."""
        self._copy.add(metrics, step)
        self._try(lambda: self.history.add(metrics, step))

    @rank_zero_only
    def flush(self, step: int | None = None) -> None:
        """Send the rows up to a step, which are complete; None: all."""
        self._copy.flush(step)
        self._try(lambda: self.history.flush(step))

    @rank_zero_only
    def hand_over(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Send the rows of an earlier process or of another training that W&B does not have."""
        rows = list(rows)
        self._copy.hand_over(rows)
        self._try(lambda: self.history.hand_over(rows))

    @rank_zero_only
    def log_record(
        self, record: RunRecord, folder: RunFolder, network: nn.Module | None = None
    ) -> None:
        """Log a record: numbers to compare runs by, tables, plots, and the network as an artifact.

        Args:
            record: Of the run.
            folder: Holds the checkpoint, if one was written.
            network: What the run hands over; None: its checkpoint is uploaded.
        """
        self.flush()
        self._record = record, folder, network
        self._try(lambda: self._log_summary(record))
        if self.server is not None:  # tables and artifacts make the client ask, and wait
            self._unusable = self.server.why_unusable()
        if self._unusable is None:
            self._try(lambda: self._upload(record, folder, network))

    def _upload(self, record: RunRecord, folder: RunFolder, network: nn.Module | None) -> None:
        def upload() -> None:
            self._log_tables(record)
            if self.artifact:
                self._log_artifact(record, folder, network)

        self._unusable = uploaded(upload, self.server, self.finish_seconds)

    def _log_summary(self, record: RunRecord) -> None:
        run = self.experiment
        run.tags = tuple(dict.fromkeys([*(run.tags or ()), *tags_of(record)]))
        run.summary.update(summary_of(record))
        if record.summary is not None:
            run.config.update({"quantized": record.summary}, allow_val_change=True)

    def _log_tables(self, record: RunRecord) -> None:
        baseline = record.baseline_footprint_bits_by_role
        sizes = make_table(
            ("role", "bits", "bits in 32-bit"),
            [(k, bits, baseline.get(k, 0)) for k, bits in record.footprint_bits_by_role.items()],
        )
        about = ("role", "format", "rounding", "overflow")
        formats = make_table(
            ("tensor", *about),
            [(path, *(entry[key] for key in about)) for path, entry in record.formats.items()],
        )
        bars = make_bars(sizes, "role", "bits", title="Footprint by role (bits)")
        tables = {"footprint": sizes, "formats": formats, "footprint by role": bars}
        self.experiment.log(tables)  # a row of its own

    def _log_artifact(
        self, record: RunRecord, folder: RunFolder, network: nn.Module | None
    ) -> None:
        run = self.experiment
        about = {k: v for k, v in summary_of(record).items() if k != RECORD_KEY}
        texts = {RECORD_NAME: json.dumps(record.to_dict(), sort_keys=True, indent=2)}
        with tempfile.TemporaryDirectory() as temporary:
            files = {}
            if network is not None:
                files[QUANTIZED_NAME] = Path(temporary, QUANTIZED_NAME)
                save_quantized(network, files[QUANTIZED_NAME])
            elif record.checkpoint is not None and (folder.path / record.checkpoint).is_file():
                files["last.ckpt"] = folder.path / record.checkpoint
            run.log_artifact(make_artifact(f"network-{run.id}", about, files, texts))

    def finish(self, exit_code: int) -> None:
        """End the run; if its upload does not finish, write all of it again as an offline run.

        Args:
            exit_code: Any code but 0 marks the run as failed; what was logged of an epoch that
                did not end is in its summary only, then.
        """
        run = self.experiment
        if exit_code == 0:
            self.flush()
        else:
            self._try(lambda: run.summary.update(_plain(self.history.waiting())))

        def end() -> None:
            run.finish(exit_code=exit_code)

        try:
            reason = uploaded(end, self.server, self.finish_seconds, self._unusable)
        except BaseException:  # the user has interrupted the wait
            abandon()
            raise
        reason = reason or self._unusable or ("logging has failed" if self._failed else None)
        if reason is not None:
            abandon()
            if self.server is not None:
                decide("offline", None)
            self._write_offline(reason, exit_code)

    def _write_offline(self, reason: str, exit_code: int) -> None:
        """Log everything again: wandb's own file may lack what was not uploaded."""
        self._failed, self.server, self._unusable = False, None, None
        try:
            self._experiment = run = self._begin_offline()
            if self._config is not None:
                run.config.update(self._config, allow_val_change=True)
            for row, place in self._rows:
                run.log(row, step=place, commit=True)
            if self._record is not None:
                self._log_summary(self._record[0])
                self._upload(*self._record)
            run.finish(exit_code=exit_code)
        except Exception as error:
            print(f"W&B: {reason}, and no offline run was written ({short(error)})", flush=True)
        else:
            files = Path(run.dir).parent
            print(f"W&B: {reason}; `wandb sync {files}` uploads the run", flush=True)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without pictures and the like."""
    return {name: value for name, value in row.items() if isinstance(value, int | float | str)}
