"""The phases of a run: set up, fit, quantise, test, record."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from qspinn.app.building import (
    Parts,
    build_callbacks,
    build_loggers,
    build_parts,
    build_trainer,
)
from qspinn.app.errors import ConfigurationError, naming
from qspinn.app.folder import RunFolder
from qspinn.app.metrics_table import MetricsTable
from qspinn.app.outcome import TEST_ACCURACY, make_record
from qspinn.app.progress import progress_bar
from qspinn.app.quantization import Scheme, build_scheme
from qspinn.callbacks.random_state import RandomState
from qspinn.plan import QuantizationPlan
from qspinn.records import RunRecord

__all__ = ["Job"]


class Job:
    """One run of one configuration in one folder.

    Args:
        config: The resolved configuration, checked, as plain types.
        folder: The output folder. A checkpoint in it is of this configuration, and is gone on from.
        plan: What the group ``quantization`` says.
    """

    def __init__(
        self, config: Mapping[str, Any], folder: RunFolder, plan: QuantizationPlan
    ) -> None:
        self.config = config
        self.folder = folder
        self.plan = plan
        self.timer = Timer()
        self.seconds: dict[str, float] = {}

    def execute(self) -> RunRecord:
        """Do all phases and return the record.

        Raises:
            ConfigurationError: A value that cannot be; nothing has been trained then.
        """
        lightning.seed_everything(self.config["seed"], workers=True, verbose=False)
        with self._phase("setup"):
            parts = build_parts(self.config)
            example = example_input(parts.data)
            scheme = build_scheme(self.config, self.plan, has_validation(parts.data))
            with isolate_rng(), naming("quantization"):
                scheme.check(parts.module, example)
            table = MetricsTable(self.folder.path)
            trainer = self._trainer(scheme, table)
        self._fit(trainer, parts, table)
        with self._phase("test"):
            measured = trainer.test(parts.module, datamodule=parts.data, verbose=False)[0]
        if TEST_ACCURACY not in measured:
            raise ConfigurationError(
                f"learning: {type(parts.module).__name__} logs no {TEST_ACCURACY} in its "
                f"test_step (it logs {', '.join(measured) or 'nothing'})"
            )
        device = parts.module.device
        outcome = scheme.outcome(measured[TEST_ACCURACY], parts.module, example.to(device))
        names = (name_of(parts.network), name_of(parts.data))
        record = make_record(self.config, self.folder, outcome, names, table.latest(), self.seconds)
        log_summary(trainer, record)
        return record

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 3)

    def _trainer(self, scheme: Scheme, table: MetricsTable) -> lightning.Trainer:
        progress = progress_bar(self.config["progress"])
        callbacks = [
            *scheme.callbacks_before,
            RandomState(),
            *scheme.callbacks_after,
            self.timer,
            *([] if progress is None else [progress]),
            *build_callbacks(self.config["callbacks"]),
        ]
        loggers = [table, *build_loggers(self.config["logger"], self.folder)]
        return build_trainer(
            self.config["trainer"], self.folder, callbacks, loggers, progress is not None
        )

    def _fit(self, trainer: lightning.Trainer, parts: Parts, table: MetricsTable) -> None:
        self.folder.save_config(self.config)
        for logger in trainer.loggers:
            logger.log_hyperparams(dict(self.config))
        checkpoint = self.folder.last_checkpoint if self.folder.last_checkpoint.exists() else None
        done = 0
        if checkpoint is not None:
            done = torch.load(checkpoint, map_location="cpu", weights_only=True)["epoch"] + 1
            print(f"resuming after epoch {done} from {checkpoint}", flush=True)
        table.keep_epochs(done)
        trainer.fit(parts.module, datamodule=parts.data, ckpt_path=checkpoint, weights_only=True)
        self.seconds["fit"] = round(self.timer.time_elapsed("train"), 3)


def example_input(data: lightning.LightningDataModule) -> Tensor:
    """Return one input ``[1, ...]`` as the network takes it, drawing no random number."""
    with isolate_rng():
        data.setup("test")
        loader = data.test_dataloader()
        batch = next(iter(loader))
    return batch[0][:1]


def has_validation(data: lightning.LightningDataModule) -> bool:
    """Whether the data hold images out for validation: Lightning takes an empty list for none."""
    loaders = data.val_dataloader()
    return not isinstance(loaders, (list, tuple)) or len(loaders) > 0


def log_summary(trainer: lightning.Trainer, record: RunRecord) -> None:
    """Hand what the record says in the end to the loggers, for whoever compares runs there."""
    summary = {
        "accuracy": record.accuracy,
        "baseline_accuracy": record.baseline_accuracy,
        "footprint_bits": float(record.footprint_bits),
    }
    known = {name: value for name, value in summary.items() if value is not None}
    for logger in trainer.loggers:
        logger.log_metrics(known, step=trainer.global_step)
        logger.save()


def name_of(thing: object) -> str:
    """Return the name that a network or data set has, else that of its class."""
    name = getattr(thing, "name", None)
    return name if isinstance(name, str) and name else type(thing).__name__
