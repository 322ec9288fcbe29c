"""From the group ``quantization`` of the configuration to a plan, callbacks and an outcome."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import lightning
from hydra.utils import instantiate
from torch import Tensor

from qspinn.app.compose.checking import check_targets
from qspinn.app.errors import ConfigurationError, naming
from qspinn.app.refusing import switch
from qspinn.app.run.gate import Gate, GatedTraining, Gatekeeper
from qspinn.app.run.outcome import Accuracies, Outcome
from qspinn.callbacks import InTrainingQuantization, PostTrainingQuantization
from qspinn.callbacks.measuring import MeasuresWork
from qspinn.metrics import Drift
from qspinn.plan import EnergyModel, QuantizationPlan, Work, footprint_of, inspect, summary_of
from qspinn.quantizers import accumulator_word_lengths
from qspinn.records import SCHEMES

__all__ = ["Scheme", "build_scheme", "plan_from_config"]

_PLAN_KEYS = (
    "word_length",
    "rounding",
    "overflow",
    "calibration",
    "granularity",
    "roles",
    "rules",
    "allow_no_neurons",
)

# Lightning's names for precisions that keep the parameters in 32 bits or more. What is quantised is
# computed exactly under all of them; under the mixed ones only what stays in float is computed in
# 16 bits.
EXACT_PRECISIONS = (
    *("32-true", "64-true", "bf16-mixed", "16-mixed"),
    *(32, 64, 16, "32", "64", "bf16", "16"),
    None,
)

_CALLBACK_KEYS = {
    "qspinn.callbacks.PostTrainingQuantization": (
        *("calibration_batches", "compile_steps", "fidelity_samples"),
    ),
    "qspinn.callbacks.InTrainingQuantization": (
        *("start_epoch", "freeze_epoch", "compile_steps", "fidelity_samples"),
    ),
}


def plan_from_config(quantization: Mapping[str, Any]) -> QuantizationPlan:
    """Return the plan that the group describes.

    Raises:
        ConfigurationError: An invalid value, with its place.
    """
    if quantization["scheme"] not in SCHEMES:
        raise ConfigurationError(
            f"quantization.scheme={quantization['scheme']!r}; write one of {', '.join(SCHEMES)}"
        )
    with naming("quantization"):
        return QuantizationPlan.uniform(**{name: quantization[name] for name in _PLAN_KEYS})


class Scheme(Protocol):
    """When a network is quantised, and which network each accuracy belongs to.

    Attributes:
        learns_in_32_bit: Whether the network learns as it does without quantisation.
        callbacks_before: Callbacks in front of the one that restores random states.
        callbacks_after: Callbacks behind it.
    """

    learns_in_32_bit: bool
    callbacks_before: list[lightning.Callback]
    callbacks_after: list[lightning.Callback]

    def check(self, module: lightning.LightningModule, example: Tensor) -> None:
        """Raise ValueError where the plan does not fit the module."""

    def watch(self, gate: Gate) -> None:
        """Let a gate judge the network; called before the trainer is created."""

    def outcome(
        self, measured: Accuracies, module: lightning.LightningModule, example: Tensor
    ) -> Outcome:
        """Return what the run measured, given the accuracies of the module after the fit."""

    def handed_over(self, module: lightning.LightningModule) -> lightning.LightningModule | None:
        """Return the quantised network, given the module after the fit; None: there is none."""


class NoQuantization:
    """The 32-bit network."""

    learns_in_32_bit = True

    def __init__(self, energy: EnergyModel | None = None) -> None:
        self.callback = MeasuresWork(energy=energy)
        self.callbacks_before: list[lightning.Callback] = []
        self.callbacks_after: list[lightning.Callback] = [self.callback]

    def check(self, module: lightning.LightningModule, example: Tensor) -> None:
        """Accept everything: no plan is used."""

    def watch(self, gate: Gate) -> None:
        """There is nothing to stop."""

    def outcome(
        self, measured: Accuracies, module: lightning.LightningModule, example: Tensor
    ) -> Outcome:
        """The trained network is the baseline itself."""
        inventory = inspect(module, example)
        bits, summary = footprint_of(inventory, None), summary_of(inventory)
        work = _plain(self.callback.work)
        return Outcome(measured, measured, bits, None, summary=summary.to_dict(), work=work)

    def handed_over(self, module: lightning.LightningModule) -> lightning.LightningModule | None:
        """There is no quantised network."""


class PostTraining:
    """The network learns in 32-bit and is quantised when the fit ends."""

    learns_in_32_bit = True

    def __init__(
        self,
        plan: QuantizationPlan,
        calibration_batches: int,
        has_validation: bool,
        compile_steps: bool,
        fidelity_samples: int,
    ) -> None:
        self.plan = plan
        stages = ("validate", "test") if has_validation else ("test",)
        self.callback = PostTrainingQuantization(
            plan,
            calibration_batches,
            stages=stages,
            compile_steps=compile_steps,
            fidelity_samples=fidelity_samples,
        )
        self.callbacks_before: list[lightning.Callback] = []
        self.callbacks_after: list[lightning.Callback] = [self.callback]

    def check(self, module: lightning.LightningModule, example: Tensor) -> None:
        """Resolve the plan, and check that the network spikes."""
        self.plan.resolve(module, example).check_neurons()

    def watch(self, gate: Gate) -> None:
        """Ask the gate after each stage of the evaluation."""
        self.callback.after_stage = gate.after_stage
        self.callback.samples = gate.settings.samples
        gate.drift = lambda: self.callback.fidelity
        self.callbacks_after.append(Gatekeeper(gate))

    def outcome(
        self, measured: Accuracies, module: lightning.LightningModule, example: Tensor
    ) -> Outcome:
        """The module is the baseline; the callback evaluated the quantised copy."""
        if self.callback.failure is not None:
            raise self.callback.failure
        quantized = Accuracies.of_metrics(self.callback.metrics, self.callback.prefix)
        return _quantized_outcome(
            quantized, measured, self.callback, self.callback.quantized_module
        )

    def handed_over(self, module: lightning.LightningModule) -> lightning.LightningModule | None:
        """The quantised copy."""
        return self.callback.quantized_module


class InTraining:
    """The network computes with quantised values while it learns."""

    learns_in_32_bit = False

    def __init__(
        self,
        plan: QuantizationPlan,
        start_epoch: int,
        freeze_epoch: int | None,
        compile_steps: bool,
        fidelity_samples: int,
    ) -> None:
        self.plan = plan
        self.callback = InTrainingQuantization(
            plan,
            start_epoch,
            freeze_epoch,
            compile_steps=compile_steps,
            fidelity_samples=fidelity_samples,
        )
        self.callbacks_before: list[lightning.Callback] = [self.callback]
        self.callbacks_after: list[lightning.Callback] = []

    def check(self, module: lightning.LightningModule, example: Tensor) -> None:
        """Resolve the plan, and check that the network spikes."""
        self.plan.resolve(module, example).check_neurons()

    def watch(self, gate: Gate) -> None:
        """Ask the gate during the training."""
        self.callbacks_after.append(GatedTraining(gate))

    def outcome(
        self, measured: Accuracies, module: lightning.LightningModule, example: Tensor
    ) -> Outcome:
        """The module is the quantised network; it has no 32-bit twin."""
        return _quantized_outcome(measured, None, self.callback, module)

    def handed_over(self, module: lightning.LightningModule) -> lightning.LightningModule | None:
        """The module itself."""
        return module


def _quantized_outcome(
    accuracies: Accuracies,
    baseline: Accuracies | None,
    callback: PostTrainingQuantization | InTrainingQuantization,
    module: lightning.LightningModule | None,
) -> Outcome:
    if callback.footprint is None or callback.resolved_plan is None:
        raise RuntimeError(f"{type(callback).__name__} quantised nothing in this training")
    plan = callback.resolved_plan
    accumulators = accumulator_word_lengths(plan, module)
    summary = plan.summary().to_dict()
    return Outcome(
        *(accuracies, baseline, callback.footprint, plan, accumulators, summary),
        work=_plain(callback.work),
        fidelity=_plain(callback.fidelity),
    )


def _plain(measured: Work | Drift | None) -> dict[str, Any] | None:
    return None if measured is None else measured.to_dict()


def energy_from_config(node: Mapping[str, Any] | None) -> EnergyModel | None:
    """Return what the group ``energy`` says that operations cost; None for the usual figures.

    Raises:
        ConfigurationError: An invalid value, or a class that makes something else.
    """
    if node is None:
        return None
    check_targets(node, "energy")
    with naming("energy"):
        made = instantiate(node)
    if not isinstance(made, EnergyModel):
        raise ConfigurationError(
            f"energy._target_ makes a {type(made).__name__}; write qspinn.plan.EnergyModel, or a "
            "subclass of it; or energy=null"
        )
    return made


def check_precision(precision: object, quantization: Mapping[str, Any]) -> None:
    """Refuse precisions that cannot compute exactly, and compiled steps without any to compile.

    Raises:
        ConfigurationError: Parameters in 8 or 16 bits under a scheme that quantises; compiled steps
            without one.
    """
    if quantization["scheme"] == "none":
        if quantization.get("compile_steps"):  # a training for the store has no such key
            raise ConfigurationError(
                "quantization.compile_steps=true compiles the steps of quantised neurons, and "
                "scheme=none has none; write false, or scheme=itq"
            )
        return
    if precision not in EXACT_PRECISIONS:
        raise ConfigurationError(
            f"trainer.precision={precision!r} holds the parameters in too few bits for exact sums; "
            "write bf16-mixed (or 32-true), or quantization.scheme=none"
        )


def build_scheme(
    config: Mapping[str, Any], plan: QuantizationPlan | None, has_validation: bool = True
) -> Scheme:
    """Return the scheme that the configuration names.

    Args:
        config: The whole configuration.
        plan: What its group ``quantization`` says; None where nothing is quantised.
        has_validation: Whether the data have a validation set.
    """
    quantization = config["quantization"]
    for callback, names in _CALLBACK_KEYS.items():
        node = {name: quantization[name] for name in names if name in quantization}
        check_targets({"_target_": callback, **node}, "quantization")
    check_precision(config["trainer"].get("precision"), quantization)
    energy = energy_from_config(config.get("energy"))
    switch("quantization.save_model", quantization.get("save_model", True))
    if quantization["scheme"] == "none" or plan is None:
        return NoQuantization(energy)
    shared = (quantization["compile_steps"], quantization["fidelity_samples"])
    with naming("quantization"):
        if quantization["scheme"] == "ptq":
            batches = quantization["calibration_batches"]
            trained = PostTraining(plan, batches, has_validation, *shared)
            trained.callback.energy = energy
            return trained
        start, epochs = quantization["start_epoch"], config["trainer"].get("max_epochs")
        scheme = InTraining(plan, start, quantization["freeze_epoch"], *shared)
        scheme.callback.energy = energy
        if epochs is not None and 0 < epochs <= start:
            raise ConfigurationError(
                f"quantization.start_epoch={start}: training has trainer.max_epochs={epochs} "
                f"epochs, counted from 0; write 0 to {epochs - 1}"
            )
        return scheme
