"""From the group ``quantization`` of the configuration to a plan, callbacks and an outcome."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from hydra.utils import instantiate
from lightning import Callback, LightningModule
from torch import Tensor

from qspinn.app.compose.checking import check_targets
from qspinn.app.errors import ConfigurationError, naming, switch
from qspinn.app.run.gate import Gate, GatedTraining, Gatekeeper
from qspinn.app.run.outcome import Accuracies, Outcome
from qspinn.callbacks import InTrainingQuantization, PostTrainingQuantization
from qspinn.callbacks.measuring import MeasuresWork
from qspinn.metrics import Drift
from qspinn.plan import EnergyModel, QuantizationPlan, Work, footprint_of, inspect, summary_of
from qspinn.quantizers import accumulator_word_lengths
from qspinn.quantizers.learned_steps import as_kinds
from qspinn.quantizers.repair import as_repairs, check_repairable
from qspinn.records import SCHEMES

_PLAN_KEYS = (
    *("word_length", "rounding", "overflow", "calibration", "granularity", "scale"),
    *("roles", "rules", "allow_no_neurons"),
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
    PostTrainingQuantization: (
        *("calibration_batches", "compile_steps", "fidelity_samples", "repair"),
    ),
    InTrainingQuantization: (
        *("start_epoch", "freeze_epoch", "compile_steps", "fidelity_samples"),
        *("learned_steps", "step_rate", "saturated"),
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


Quantizer = TypeVar("Quantizer", MeasuresWork, PostTrainingQuantization, InTrainingQuantization)


class Scheme(ABC, Generic[Quantizer]):
    """When a network is quantised, and which network each accuracy belongs to.

    Args:
        callback: What quantises, or measures, during the fit.
        plan: Of the callback; None where nothing is quantised.
        energy: What operations cost; None: the usual figures.

    Attributes:
        learns_in_32_bit: Whether the network learns as it does without quantisation.
        callbacks_before: Callbacks in front of the one that restores random states.
        callbacks_after: Callbacks behind it.
    """

    learns_in_32_bit = True

    def __init__(
        self, callback: Quantizer, plan: QuantizationPlan | None, energy: EnergyModel | None
    ) -> None:
        callback.energy = energy
        self.callback: Quantizer = callback
        self.plan = plan
        self.callbacks_before: list[Callback] = [] if self.learns_in_32_bit else [callback]
        self.callbacks_after: list[Callback] = [callback] if self.learns_in_32_bit else []

    def check(self, module: LightningModule, example: Tensor) -> None:
        """Raise ValueError where the plan does not fit the module, or the network has no spikes."""
        if self.plan is not None:
            self.plan.resolve(module, example).check_neurons()

    def watch(self, gate: Gate) -> None:
        """Let a gate judge the network; called before the trainer is created."""
        del gate

    @abstractmethod
    def outcome(self, measured: Accuracies, module: LightningModule, example: Tensor) -> Outcome:
        """Return what the run measured, given the accuracies of the module after the fit."""

    def handed_over(self, module: LightningModule) -> LightningModule | None:
        """Return the quantised network, given the module after the fit; None: there is none."""
        return None


class NoQuantization(Scheme[MeasuresWork]):
    """The 32-bit network."""

    def outcome(self, measured: Accuracies, module: LightningModule, example: Tensor) -> Outcome:
        """The trained network is the baseline itself."""
        inventory = inspect(module, example)
        bits, summary = footprint_of(inventory, None), summary_of(inventory)
        work = _plain(self.callback.work)
        return Outcome(measured, measured, bits, None, summary=summary.to_dict(), work=work)


class PostTraining(Scheme[PostTrainingQuantization]):
    """The network learns in 32-bit and is quantised when the fit ends."""

    def check(self, module: LightningModule, example: Tensor) -> None:
        """As of any scheme; and ValueError where there is nothing to repair."""
        super().check(module, example)
        assert self.plan is not None  # build_scheme() takes another one without
        with naming("quantization"):
            check_repairable(self.plan.resolve(module, example), self.callback.repairs, "ptq")

    def watch(self, gate: Gate) -> None:
        """Ask the gate after each stage of the evaluation."""
        self.callback.after_stage = gate.after_stage
        self.callback.samples = gate.settings.samples
        gate.drift = lambda: self.callback.fidelity
        self.callbacks_after.append(Gatekeeper(gate))

    def outcome(self, measured: Accuracies, module: LightningModule, example: Tensor) -> Outcome:
        """The module is the baseline; the callback evaluated the quantised copy."""
        if self.callback.failure is not None:
            raise self.callback.failure
        quantized = Accuracies.of_metrics(self.callback.metrics, self.callback.prefix)
        return _quantized_outcome(quantized, measured, self.callback, self.handed_over(module))

    def handed_over(self, module: LightningModule) -> LightningModule | None:
        """The quantised copy."""
        return self.callback.quantized_module


class InTraining(Scheme[InTrainingQuantization]):
    """The network computes with quantised values while it learns."""

    learns_in_32_bit = False

    def watch(self, gate: Gate) -> None:
        """Ask the gate during the training."""
        self.callbacks_after.append(GatedTraining(gate))

    def outcome(self, measured: Accuracies, module: LightningModule, example: Tensor) -> Outcome:
        """The module is the quantised network; it has no 32-bit twin."""
        return _quantized_outcome(measured, None, self.callback, module)

    def handed_over(self, module: LightningModule) -> LightningModule:
        """The module itself."""
        return module


def _quantized_outcome(
    accuracies: Accuracies,
    baseline: Accuracies | None,
    callback: PostTrainingQuantization | InTrainingQuantization,
    module: LightningModule | None,
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


def check_repair(quantization: Mapping[str, Any]) -> None:
    """Refuse to repair a network that was not quantised after training.

    Raises:
        ConfigurationError: An unknown repair, or another scheme than post-training quantisation.
    """
    with naming("quantization"):
        repairs = as_repairs(quantization.get("repair"), "repair")
    if repairs and quantization["scheme"] != "ptq":
        raise ConfigurationError(
            f"quantization.repair={quantization['repair']!r} repairs a network that is quantised "
            f"after training, and scheme={quantization['scheme']} does not; write repair=none, or "
            "scheme=ptq"
        )


def check_learned_steps(quantization: Mapping[str, Any]) -> None:
    """Refuse to learn the steps of a network that is not quantised while it learns.

    Raises:
        ConfigurationError: An unknown choice, or another scheme than in-training quantisation.
    """
    with naming("quantization"):
        kinds = as_kinds(quantization.get("learned_steps"), "learned_steps")
    if kinds and quantization["scheme"] != "itq":
        raise ConfigurationError(
            f"quantization.learned_steps={quantization['learned_steps']!r} learns steps together "
            f"with the weights, and scheme={quantization['scheme']} quantises no network that "
            "learns; write learned_steps=none, or scheme=itq"
        )


def build_scheme(
    config: Mapping[str, Any], plan: QuantizationPlan | None, has_validation: bool = True
) -> Scheme[Any]:
    """Return the scheme that the configuration names; without a plan nothing is quantised."""
    quantization = config["quantization"]
    settings: dict[type, dict[str, Any]] = {}
    for kind, names in _CALLBACK_KEYS.items():
        settings[kind] = {name: quantization[name] for name in names if name in quantization}
        target = f"qspinn.callbacks.{kind.__name__}"
        check_targets({"_target_": target, **settings[kind]}, "quantization")
    check_precision(config["trainer"].get("precision"), quantization)
    check_repair(quantization)
    check_learned_steps(quantization)
    energy = energy_from_config(config.get("energy"))
    switch("quantization.save_model", quantization.get("save_model", True))
    if quantization["scheme"] == "none" or plan is None:
        return NoQuantization(MeasuresWork(), None, energy)
    with naming("quantization"):
        if quantization["scheme"] == "ptq":
            stages = ("validate", "test") if has_validation else ("test",)
            after = PostTrainingQuantization(
                plan, stages=stages, **settings[PostTrainingQuantization]
            )
            return PostTraining(after, plan, energy)
        during = InTrainingQuantization(plan, **settings[InTrainingQuantization])
        start, epochs = quantization["start_epoch"], config["trainer"].get("max_epochs")
        if epochs is not None and 0 < epochs <= start:
            raise ConfigurationError(
                f"quantization.start_epoch={start}: training has trainer.max_epochs={epochs} "
                f"epochs, counted from 0; write 0 to {epochs - 1}"
            )
        return InTraining(during, plan, energy)
