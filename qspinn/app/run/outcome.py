"""The outcome of a finished training, and its record."""

from __future__ import annotations

import importlib.metadata
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qspinn.app.folder.folder import RunFolder
from qspinn.app.folder.identity import identity, now, owner_of
from qspinn.plan import Footprint, ResolvedPlan
from qspinn.records import RunRecord, baseline_key, finite_or_none, setting_key

# The metrics that a learning module logs in its test_step and its validation_step.
TEST_ACCURACY = "test/accuracy"
VALIDATION_ACCURACY = "val/accuracy"

_LIBRARIES = ("torch", "spikingjelly", "lightning", "torchmetrics", "numpy")


@dataclass(frozen=True)
class Accuracies:
    """Accuracies of one network, in [0, 1].

    Attributes:
        test: On test data; the one that is reported.
        validation: On validation data, by which runs are chosen; None where there are none, or
            where the learning module does not log it.
    """

    test: float
    validation: float | None = None

    @classmethod
    def of_metrics(cls, metrics: Mapping[str, float], prefix: str = "") -> Accuracies:
        """Take them from metrics; NaN counts as none."""
        validation = metrics.get(f"{prefix}{VALIDATION_ACCURACY}", math.nan)
        known = None if math.isnan(validation) else exact(validation)
        return cls(exact(metrics[f"{prefix}{TEST_ACCURACY}"]), known)

    @classmethod
    def of_record(cls, record: RunRecord) -> Accuracies:
        """Take those of the network of a run."""
        return cls(record.accuracy, record.validation_accuracy)


@dataclass(frozen=True)
class Outcome:
    """What was measured.

    Attributes:
        accuracies: Of the network that the run hands over.
        baseline: Of its 32-bit twin; None where there is none.
        footprint: Of the network that the run hands over.
        plan: Its formats; None for the 32-bit network.
        accumulators: Layer path to the bits that its exact sums need.
        summary: What is quantised and what is not, as plain types; None: not known.
        work: Operations and energy per sample, as plain types; None: not known.
        fidelity: How far the network behaves as its 32-bit twin, as plain types; None: not known.
        device_model: The file of its device model, as plain types; None: none was asked for.
    """

    accuracies: Accuracies
    baseline: Accuracies | None
    footprint: Footprint
    plan: ResolvedPlan | None
    accumulators: Mapping[str, int] = field(default_factory=dict)
    summary: Mapping[str, Any] | None = None
    work: Mapping[str, Any] | None = None
    fidelity: Mapping[str, Any] | None = None
    device_model: Mapping[str, Any] | None = None


def make_record(
    config: Mapping[str, Any],
    folder: RunFolder,
    outcome: Outcome,
    names: tuple[str, str],
    metrics: Mapping[str, float],
    seconds: Mapping[str, float],
    samples: Mapping[str, int],
    fingerprint: str | None = None,
) -> RunRecord:
    """Return the record of a run.

    Args:
        config: The resolved configuration.
        folder: The output folder.
        outcome: What was measured.
        names: Of the network and of the data.
        metrics: Name to last value.
        seconds: Phase to wall-clock seconds.
        samples: Test samples and validation samples, each by the name of its field.
        fingerprint: Of the data.
    """
    recorded = identity(config)
    owner = owner_of(config, fingerprint)
    quantization = config["quantization"]
    checkpoint = folder.last_checkpoint.relative_to(folder.path)
    footprint, plan, baseline = outcome.footprint, outcome.plan, outcome.baseline
    return RunRecord(
        accuracy=outcome.accuracies.test,
        baseline_accuracy=None if baseline is None else baseline.test,
        validation_accuracy=outcome.accuracies.validation,
        validation_baseline_accuracy=None if baseline is None else baseline.validation,
        samples=samples.get("samples"),
        validation_samples=samples.get("validation_samples"),
        footprint_bits=footprint.inference_bits,
        baseline_footprint_bits=footprint.baseline_inference_bits,
        training_footprint_bits=footprint.training_bits,
        flash_bits=footprint.flash_bits,
        ram_bits=footprint.ram_bits,
        learning_ram_bits=footprint.learning_ram_bits,
        footprint_bits_by_role=footprint.by_role,
        baseline_footprint_bits_by_role=footprint.baseline_by_role,
        scheme=quantization["scheme"],
        rounding=None if plan is None else quantization["rounding"],
        word_lengths={} if plan is None else plan.word_lengths_by_role(),
        formats={} if plan is None else plan.formats(),
        accumulator_word_lengths=dict(outcome.accumulators),
        network=names[0],
        data=names[1],
        seed=config["seed"],
        config=recorded,
        config_hash=owner.config,
        checkpoint=checkpoint.as_posix() if folder.last_checkpoint.exists() else None,
        versions=library_versions(),
        seconds=dict(seconds),
        metrics=finite_or_none(metrics),
        created=now(),
        baseline_key=baseline_key(recorded),
        setting_key=setting_key(recorded),
        summary=None if outcome.summary is None else dict(outcome.summary),
        work=None if outcome.work is None else dict(outcome.work),
        data_fingerprint=owner.data,
        fidelity=None if outcome.fidelity is None else dict(outcome.fidelity),
        device_model=None if outcome.device_model is None else dict(outcome.device_model),
    )


def exact(accuracy: float) -> float:
    """Return an accuracy rounded to the digits of a float32: 0.9 for 0.89999998."""
    return round(accuracy, 7)


def library_versions() -> dict[str, str]:
    """Return the version of Python, of qspinn and of each library that a result depends on."""
    from qspinn import __version__

    installed = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), "qspinn": __version__, **installed}
