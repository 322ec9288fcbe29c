"""The gate of a run: stops candidates early that cannot be chosen any more.

The rules are in :mod:`qspinn.selection.search.gating`. Here a run reads what its siblings have
reached, is judged at several points, and writes a ``gate.json``. Validation data decide, and
nothing else: a candidate that is stopped is never tested.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning import Callback, LightningModule, Trainer

from qspinn.app.compose.gate_settings import GateSettings, pruner_among
from qspinn.app.folder.folder import RunFolder
from qspinn.app.folder.identity import identity, now, owner_of
from qspinn.app.run.baseline_entry import Baseline
from qspinn.app.run.metrics_table import MetricsTable
from qspinn.app.run.outcome import VALIDATION_ACCURACY
from qspinn.app.run.siblings import Siblings, read_siblings
from qspinn.callbacks.pruning import Judge, Pruning
from qspinn.metrics import Drift
from qspinn.plan import Footprint
from qspinn.records import (
    GateReport,
    RecordError,
    baseline_key,
    read_gate_report,
    setting_key,
    write_gate_report,
)
from qspinn.selection.search.gating import Standing


class CandidateStopped(Exception):
    """A candidate cannot be chosen any more; this is no error.

    Attributes:
        report: Why.
    """

    def __init__(self, report: GateReport) -> None:
        super().__init__(report.stopped)
        self.report = report

    def __reduce__(self) -> tuple[Any, ...]:
        return CandidateStopped, (self.report,)


class Gate:
    """Judges one run.

    Args:
        settings: Of the gate.
        config: The resolved configuration of the run.
        folder: Its folder; its siblings lie beside it.

    Attributes:
        report: Why the run was stopped; None: it was not.
        drift: Gives the drift against the 32-bit network, once it is known.
    """

    def __init__(
        self, settings: GateSettings, config: Mapping[str, Any], folder: RunFolder
    ) -> None:
        self.settings = settings
        self.config = config
        self.folder = folder
        self.report: GateReport | None = None
        self.share = 1.0
        self.curve: dict[float, float] = {}
        self.drift: Callable[[], Drift | None] = lambda: None
        self._standing: Standing | None = None
        self._siblings = Siblings()
        self._twin: dict[float, float] = {}
        self._pruner: Judge | None = None
        self._fingerprint: str | None = None

    def begin(self, footprint: Footprint, twin: Baseline | None, fingerprint: str | None) -> None:
        """Take in what is known before anything is computed.

        That is its footprint, whose formats do not matter, the 32-bit training that the run is
        compared with, and the fingerprint of its data.

        Raises:
            CandidateStopped: Nothing needs to be computed.
        """
        self._fingerprint = fingerprint
        self.share = footprint.inference_bits / footprint.baseline_inference_bits
        record = None if twin is None else twin.record
        if record is None or record.validation_accuracy is None or not record.validation_samples:
            print("the gate is open: no validation accuracy of the 32-bit network is known")
            return
        assert twin is not None
        self._raise_if_known()
        key, data = baseline_key(identity(self.config)), owner_of(self.config, fingerprint).data
        self._siblings = read_siblings(self.folder.path, key, data)
        setting = setting_key(identity(self.config))
        seed = self._siblings.passed.get(setting)
        if seed is not None:
            # Means over seeds are compared: those of a setting have to be over the same ones.
            print(f"the gate is open: this setting was evaluated in full with seed {seed}")
            return
        points = tuple(self._siblings.points)
        accuracy, samples = record.validation_accuracy, record.validation_samples
        self._standing = Standing(self.settings, accuracy, samples, points)
        self._twin = _curve(twin, self.config["trainer"].get("max_epochs"))
        smaller = [curve for share, curve in self._siblings.trainings if share <= self.share]
        if self.settings.pruner is not None:
            self._pruner = pruner_among(self.settings.pruner, smaller)
        elsewhere = self._siblings.stopped.get(setting)
        if elsewhere is not None:
            self._stop("start", f"seed {elsewhere[0]} {elsewhere[1]}")
        else:
            self._stop("start", self._standing.adds_too_little(self.share, self._standing.ceiling))
        self.raise_if_stopped()

    def after_stage(self, stage: str, metrics: Mapping[str, float]) -> bool:
        """Judge a network that has learned, after a stage of its evaluation; whether to go on."""
        accuracy = metrics.get(VALIDATION_ACCURACY)
        if stage == "drift":
            return self._agrees(metrics)
        if self._standing is None or accuracy is None or stage == "test":
            return True
        if stage == "samples":
            assert self.settings.samples is not None
            most = self._standing.most_after(accuracy, self.settings.samples)
            reason = self._standing.misses_target(most)
            self._stop("samples", reason or self._standing.adds_too_little(self.share, most))
        else:
            reason = self._standing.misses_target(accuracy)
            reason = reason or self._standing.dominated(self.share, accuracy)
            self._stop("validation", reason, accuracy)
        return self.report is None

    def _agrees(self, metrics: Mapping[str, float]) -> bool:
        """Judge by the drift, without labels."""
        agreement, drift = metrics.get("agreement"), self.drift()
        if self._standing is None or agreement is None or drift is None:
            return True
        reason = self._standing.misses_target(
            self._standing.most_agreeing(agreement, drift.samples)
        )
        if reason is not None:
            place = (
                "" if drift.first_layer is None else f", and differs from {drift.first_layer} on"
            )
            said = f"agrees with the 32-bit network on {100 * agreement:.0f}% of {drift.samples}"
            self._stop("drift", f"{said} samples{place}: {reason}")
        return self.report is None

    def judge(self, progress: float, accuracy: float) -> str | None:
        """Judge a network that is learning; return why it is to be stopped, or None."""
        if self._standing is None:
            return None
        progress = round(progress, 6)
        self.curve[progress] = accuracy
        few = self.settings.samples if progress in self.settings.fractions else None
        standing, trainings = self._standing, self._siblings.trainings
        reason = standing.falls_behind(self.share, progress, accuracy, trainings, few)
        reason = reason or standing.will_miss_target(progress, accuracy, self._twin, few)
        if self._pruner is not None:
            reason = self._pruner(progress, accuracy) or reason
        return reason

    def stop_training(self, reason: str) -> None:
        """Stop the run while it learns.

        Raises:
            CandidateStopped: Always.
        """
        self._stop("training", reason)
        self.raise_if_stopped()

    def finish(self, accuracy: float | None) -> None:
        """Write the curve of a training for later candidates, if there is one."""
        if self.curve:
            write_gate_report(self._report(None, None, accuracy), self.folder.gate)
        else:
            self.folder.gate.unlink(missing_ok=True)

    def raise_if_stopped(self) -> None:
        """Raise `CandidateStopped` where the run was stopped."""
        if self.report is not None:
            raise CandidateStopped(self.report)

    def _stop(self, stage: str, reason: str | None, accuracy: float | None = None) -> None:
        if reason is None:
            return
        self.report = self._report(reason, stage, accuracy)
        write_gate_report(self.report, self.folder.gate)
        print(f"stopped: {reason}", flush=True)

    def _report(self, reason: str | None, stage: str | None, accuracy: float | None) -> GateReport:
        owner = owner_of(self.config, self._fingerprint)
        recorded = identity(self.config)
        return GateReport(
            stopped=reason,
            stage=stage,
            share=self.share,
            validation_accuracy=accuracy,
            curve={str(progress): value for progress, value in self.curve.items()},
            settings=self.settings.to_dict(),
            config_hash=owner.config,
            baseline_key=baseline_key(recorded),
            setting_key=setting_key(recorded),
            seed=self.config["seed"],
            data_fingerprint=owner.data,
            drift=None if (drift := self.drift()) is None else drift.to_dict(),
            created=now(),
        )

    def _raise_if_known(self) -> None:
        """A run that the same gate has stopped before stays stopped."""
        try:
            known = read_gate_report(self.folder.gate)
        except RecordError:
            return
        owner = owner_of(self.config, self._fingerprint)
        same = (known.config_hash, known.data_fingerprint) == (owner.config, owner.data)
        if known.stopped is not None and same and known.settings == self.settings.to_dict():
            print(f"stopped before: {known.stopped}", flush=True)
            raise CandidateStopped(known)


class Gatekeeper(Callback):
    """Ends a run that was stopped at the end of its fit, before its pictures are drawn."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the run."""
        self.gate.raise_if_stopped()


class GatedTraining(Pruning):
    """Ends a run in the middle of its training, before a checkpoint of half an epoch is written."""

    def __init__(self, gate: Gate) -> None:
        settings = gate.settings
        super().__init__(
            gate.judge, VALIDATION_ACCURACY, tuple(settings.fractions), settings.samples
        )
        self.gate = gate

    def stop(self, trainer: Trainer) -> None:
        """End the run."""
        assert self.stopped is not None
        self.gate.stop_training(self.stopped)


def _curve(twin: Baseline, epochs: object) -> dict[float, float]:
    """Progress to validation accuracy of the 32-bit training; empty where it is not known."""
    if type(epochs) is not int or epochs < 1:
        return {}
    return {
        round((int(row["epoch"]) + 1) / epochs, 6): row[VALIDATION_ACCURACY]
        for row in MetricsTable(twin.folder.path).rows()
        if VALIDATION_ACCURACY in row and int(row.get("epoch", epochs)) < epochs
    }
