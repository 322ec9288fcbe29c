"""The phases of a run: set up, fit, quantise, test, record."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from qspinn.app.compose.limits import check_data_fits
from qspinn.app.errors import ConfigurationError, RunError, naming
from qspinn.app.examples import as_the_module, example_input, first_test_batch
from qspinn.app.folder.folder import RunFolder
from qspinn.app.folder.identity import identity, owner_of
from qspinn.app.folder.naming import named_loggers
from qspinn.app.run.baseline_entry import Baseline
from qspinn.app.run.baselines import BaselineStore
from qspinn.app.run.building import (
    Parts,
    build_callbacks,
    build_loggers,
    build_parts,
    build_trainer,
    has_validation,
)
from qspinn.app.run.checkpoints import EpochCheckpoint, epochs_of
from qspinn.app.run.data_fingerprint import DataState, data_state
from qspinn.app.run.device_model import save_device_model
from qspinn.app.run.diverging import DivergenceGuard
from qspinn.app.run.fit_errors import in_a_sentence
from qspinn.app.run.gate import CandidateStopped, Gate
from qspinn.app.run.metrics_table import ROWS_KEY, MetricsTable
from qspinn.app.run.outcome import TEST_ACCURACY, Accuracies, make_record
from qspinn.app.run.quantization import Scheme, build_scheme
from qspinn.app.run.samples import SampleCounts, samples_of
from qspinn.app.show.progress import progress_bar
from qspinn.callbacks.isolation import preserved_globals
from qspinn.callbacks.random_state import RandomState
from qspinn.plan import QuantizationPlan, footprint
from qspinn.records import RunRecord, printable, work_metrics


class Job:
    """One run of one configuration in one folder.

    Args:
        config: The resolved configuration, checked, as plain types.
        folder: The output folder. A checkpoint of this configuration in it is resumed.
        plan: What the group ``quantization`` says; None where nothing is quantised.
        store: Where 32-bit trainings are kept and taken from; None: the run trains its own.
        train_baseline: Whether a run that does not start from a 32-bit training ensures that the
            store has the one that it is compared with.
        gate: Stops the run where it cannot be chosen any more; None: it is evaluated in full.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        folder: RunFolder,
        plan: QuantizationPlan | None,
        store: BaselineStore | None = None,
        train_baseline: bool = False,
        gate: Gate | None = None,
    ) -> None:
        self.config = config
        self.folder = folder
        self.plan = plan
        self.store = store
        self.train_baseline = train_baseline
        self.gate = gate
        self.timer = Timer()
        self.seconds: dict[str, float] = {}
        self.data = DataState(None)
        self.guard: DivergenceGuard
        self.samples = SampleCounts()

    def execute(self) -> tuple[RunRecord, dict[str, float]]:
        """Do all phases and return the record, and what the test of the module measured.

        Raises:
            ConfigurationError: An invalid value; nothing has been trained then.
            CandidateStopped: The gate has stopped the run.
        """
        seed_everything(self.config["seed"], workers=True, verbose=False)
        with self._phase("setup"):
            parts = build_parts(self.config)
            self.data = data_state(self.config["data"], parts.data)
            self.folder.check_data(self.config, self.data.fingerprint)
            with isolate_rng():
                check_data_fits(self.config, parts.data, first_test_batch(parts.data))
            example = example_input(parts.data)
            scheme = build_scheme(self.config, self.plan, has_validation(self.config, parts.data))
            with isolate_rng(), naming("quantization"):
                scheme.check(parts.module, example)
            if self.gate is not None:
                scheme.watch(self.gate)
            table = MetricsTable(self.folder.path)
            self.guard = DivergenceGuard(parts.network, not scheme.learns_in_32_bit)
            trainer = self._trainer(scheme, table)
        baseline = self._baseline() if scheme.learns_in_32_bit else None
        checkpoint = None
        if baseline is None:  # refuse before anything is written
            checkpoint = self.folder.checkpoint_to_resume(self.config, self.data.fingerprint)
        self.folder.save_config(self.config, self.data.fingerprint)
        if self.gate is not None:
            self._begin_gate(self.gate, baseline, parts, example)
        self._log_config(trainer)
        if baseline is None:
            measured = self._learn(trainer, parts, table, checkpoint)
        else:
            measured = self._restore(trainer, parts, table, baseline)
        self.guard.check(parts.module, "in training")
        outcome = scheme.outcome(
            Accuracies.of_metrics(measured), parts.module, as_the_module(example, parts.module)
        )
        if outcome.baseline is None:
            outcome = replace(outcome, baseline=self._baseline_accuracies())
        names = (name_of(parts.network), name_of(parts.data))
        network = scheme.handed_over(parts.module)
        if network is not None and self.config["quantization"].get("save_model", True):
            with self._phase("device_model"):
                of = (self.config, self.folder, network, parts.data, example, names[0])
                outcome = replace(outcome, device_model=save_device_model(*of))
        record = make_record(
            self.config,
            self.folder,
            outcome,
            names,
            table.latest(),
            self.seconds,
            self.samples.by_field if baseline is None else samples_of(baseline.record),
            self.data.fingerprint,
        )
        log_summary(trainer, record, self.folder, network)
        if self.gate is not None:
            self.gate.finish(record.validation_accuracy)
        return record, measured

    def _begin_gate(
        self, gate: Gate, baseline: Baseline | None, parts: Parts, example: Tensor
    ) -> None:
        """Judge by what is known in advance; the 32-bit twin is trained if necessary."""
        with self._phase("gate"), isolate_rng():
            bits = footprint(parts.module, self.plan, example)
        twin = baseline or self._baseline()
        gate.begin(bits, twin, self.data.fingerprint)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 3)

    def _baseline(self) -> Baseline | None:
        """The 32-bit training of this configuration from the store."""
        if self.store is None:
            return None
        with self._phase("baseline"), preserved_globals():
            return self.store.get(self.config, self.data, train_float)

    def _baseline_accuracies(self) -> Accuracies | None:
        """Accuracies of the 32-bit twin of a network that has learned in fixed point, if known."""
        if self.store is None:
            return None
        store, data = self.store, self.data
        found = self._baseline() if self.train_baseline else store.find(self.config, data)
        return None if found is None else Accuracies.of_record(found.record)

    def _trainer(self, scheme: Scheme[Any], table: MetricsTable) -> Trainer:
        progress = progress_bar(self.config["progress"])
        callbacks = [
            *scheme.callbacks_before,
            RandomState(),
            *scheme.callbacks_after,
            self.timer,
            self.guard,
            self.samples,
            *([] if progress is None else [progress]),
            *build_callbacks(self.config["callbacks"]),
        ]
        loggers = [table, *build_loggers(named_loggers(self.config), self.folder)]
        return build_trainer(
            self.config["trainer"],
            self.folder,
            callbacks,
            loggers,
            progress is not None,
            owner_of(self.config, self.data.fingerprint),
        )

    def _log_config(self, trainer: Trainer) -> None:
        """A logger with a method `log_config` gets what is recorded of the configuration."""
        for logger in trainer.loggers:
            if hasattr(logger, "log_config"):
                logger.log_config(identity(self.config))
            else:
                logger.log_hyperparams(dict(self.config))

    def _learn(
        self, trainer: Trainer, parts: Parts, table: MetricsTable, checkpoint: Path | None
    ) -> dict[str, float]:
        """Train, or resume an interrupted training, and test."""
        done = 0
        if checkpoint is not None:
            loaded = torch.load(checkpoint, map_location="cpu", weights_only=True)
            done = int(loaded["epoch"]) + 1
            if ROWS_KEY in loaded:
                table.go_on_from(loaded[ROWS_KEY])
            print(f"resuming after epoch {done} from {checkpoint}", flush=True)
        table.keep_epochs(done)
        for logger in trainer.loggers:
            if hasattr(logger, "hand_over"):
                logger.hand_over(table.rows())
        self._fit(trainer, parts, checkpoint)
        with self._phase("test"):
            measured = trainer.test(parts.module, datamodule=parts.data, verbose=False)[0]
        if TEST_ACCURACY not in measured:
            raise ConfigurationError(
                f"learning: {type(parts.module).__name__} logs no {TEST_ACCURACY} in its "
                f"test_step (it logs {', '.join(measured) or 'nothing'})"
            )
        return {**self._validate(trainer, parts), **measured}

    def _validate(self, trainer: Trainer, parts: Parts) -> dict[str, float]:
        """Validate the network that was tested; nothing without validation data."""
        if not has_validation(self.config, parts.data):
            return {}
        with self._phase("validation"):
            return dict(trainer.validate(parts.module, datamodule=parts.data, verbose=False)[0])

    def _restore(
        self, trainer: Trainer, parts: Parts, table: MetricsTable, baseline: Baseline
    ) -> dict[str, float]:
        """Restore module and random generators as a training in the store has left them.

        That is a fit resumed from a checkpoint after the last epoch: it trains nothing, and all
        callbacks run at its end as after any fit. Its test is not repeated.
        """
        print(f"32-bit training taken from {baseline.folder.path}", flush=True)
        callbacks = trainer.checkpoint_callbacks
        keeps = any(isinstance(callback, EpochCheckpoint) for callback in callbacks)
        owner = owner_of(self.config, self.data.fingerprint)
        self.folder.adopt(baseline.folder, owner, checkpoint=keeps)
        checkpoint = baseline.folder.last_checkpoint
        done = epochs_of(checkpoint)
        table.read()
        table.keep_epochs(done)
        for logger in trainer.loggers:
            if hasattr(logger, "hand_over"):
                logger.hand_over(table.rows())
                continue
            for row in [] if logger is table else table.rows():
                logger.log_metrics(row, step=int(row.pop("step")))
        trainer.fit_loop.max_epochs = done  # checkpoints do not record an early stop
        with self._phase("restore"):
            self._fit(trainer, parts, checkpoint)
        for logger in trainer.loggers:
            measured = {"epoch": trainer.current_epoch, **baseline.measured}
            logger.log_metrics(measured, step=trainer.global_step)
        return baseline.measured

    def _fit(self, trainer: Trainer, parts: Parts, checkpoint: Path | None) -> None:
        """Fit; errors before anything was learned are errors of the configuration."""
        try:
            trainer.fit(
                parts.module, datamodule=parts.data, ckpt_path=checkpoint, weights_only=True
            )
        except CandidateStopped:
            raise
        except Exception as error:
            guard = self.guard
            if guard.has_learned and not isinstance(error, RunError):
                guard.check(parts.module, f"in epoch {trainer.current_epoch + 1}")
            said = in_a_sentence(error, guard.has_learned)
            if said is None:
                raise
            raise said from error
        self.seconds["fit"] = round(self.timer.time_elapsed("train"), 3)


def train_float(config: dict[str, Any], folder: RunFolder) -> tuple[RunRecord, dict[str, float]]:
    """Run a configuration without quantisation, for the store of baselines."""
    return Job(config, folder, plan=None).execute()


def log_summary(
    trainer: Trainer, record: RunRecord, folder: RunFolder, network: nn.Module | None
) -> None:
    """Log the summary of the record, by which runs are compared in W&B and others.

    A logger with a method `log_record` gets all of it, and the quantised network.
    """
    summary = {
        "accuracy": record.accuracy,
        "baseline_accuracy": record.baseline_accuracy,
        "validation_accuracy": record.validation_accuracy,
        "validation_baseline_accuracy": record.validation_baseline_accuracy,
        "footprint_bits": float(record.footprint_bits),
        "quantized_parameters_share": record.parameters_share,
        "quantized_states_share": record.states_share,
        **work_metrics(record.work),
    }
    known = {name: value for name, value in summary.items() if value is not None}
    for logger in trainer.loggers:
        logger.log_metrics(known, step=trainer.global_step)
        if hasattr(logger, "log_record"):
            logger.log_record(record, folder, network)
        logger.save()


def name_of(thing: object) -> str:
    """Return the name that a network or data set has, else that of its class."""
    name = getattr(thing, "name", None)
    return printable(name) if isinstance(name, str) and name else type(thing).__name__
