"""The formats of a trainer's module: chosen on batches, and changed while it trains with them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from lightning import LightningModule, Trainer

from qspinn.callbacks.isolation import Forward, copy_for, forward_once
from qspinn.plan import QuantizationPlan, ResolvedPlan, resolve
from qspinn.quantizers.declared import declared_formats
from qspinn.quantizers.following import Following
from qspinn.quantizers.looking import with_inputs
from qspinn.quantizers.over_batches import calibrated_on
from qspinn.quantizers.repair import Repaired, repaired_on

log = logging.getLogger(__name__)


def calibrated(
    plan: QuantizationPlan,
    module: LightningModule,
    trainer: Trainer,
    batches: Sequence[Any],
    forward: Forward | None,
    learning: bool = False,
) -> ResolvedPlan:
    """Resolves ``plan`` against the trainer's module and chooses the formats that it leaves open.

    This happens on a copy, which is discarded, since its metrics have seen the batches, as the
    trainer hands them out. The module has no quantizers; SpikingJelly's states are reset. Where it
    will learn in these formats, ``learning`` says so.

    Raises:
        ValueError: A rule that matches nothing, or invalid formats.
    """
    copied, runs = _runs(module, trainer, batches, forward)
    return calibrated_on(copied, plan, runs, learning)


def calibrated_and_repaired(
    plan: QuantizationPlan,
    module: LightningModule,
    trainer: Trainer,
    batches: Sequence[Any],
    forward: Forward | None,
    repairs: Sequence[str],
) -> Repaired:
    """As :func:`calibrated` for a network that has learned, with what its repair found.

    Raises:
        ValueError: As :func:`calibrated`; a network in which nothing can be repaired.
    """
    copied, runs = _runs(module, trainer, batches, forward)
    resolved = calibrated_on(copied, plan, runs)
    return repaired_on(copied, resolved, runs, repairs, "PostTrainingQuantization")


def _runs(
    module: LightningModule, trainer: Trainer, batches: Sequence[Any], forward: Forward | None
) -> tuple[LightningModule, list[Callable[[], None]]]:
    """A copy, and what runs it on each batch."""
    copied = copy_for(trainer, module)

    def run_one(batch: Any) -> None:
        with trainer.precision_plugin.forward_context():
            forward_once(copied, batch, forward)

    return copied, [partial(run_one, batch) for batch in batches]


def log_summary(plan: ResolvedPlan, owner: str) -> None:
    """Logs what is quantised and what is not; as a warning where the plan does not say so."""
    summary = plan.summary()
    level = logging.INFO if summary.is_as_planned else logging.WARNING
    log.log(level, "%s: %s", owner, "\n  ".join(summary.lines()))


def with_new_inputs(
    plan: QuantizationPlan, resolved: ResolvedPlan, following: Following
) -> ResolvedPlan:
    """The plan in use, with formats for inputs that looked binary in the trial, and are not."""
    layers = following.not_binary
    if not layers:
        return resolved
    log.warning(
        "InTrainingQuantization: the input of %s was 0 or 1 in the first batch but is not any "
        "more: from now on it has a format, as the plan says of the role input",
        ", ".join(layers),
    )
    formats = {tensor.path: tensor.format for tensor in resolved.tensors if tensor.format}
    extended = resolve(plan, with_inputs(resolved.inventory, layers)).with_formats(formats)
    extended = extended.with_units(resolved.units)
    return following.with_input_formats(extended)


def has_declared(resolved: ResolvedPlan) -> bool:
    """Whether any module of the plan in use declares its tensors."""
    return any(layer.kind == "declared" for layer in resolved.inventory.layers)


def with_declared_anew(
    plan: QuantizationPlan, resolved: ResolvedPlan, module: LightningModule
) -> ResolvedPlan:
    """The plan in use, with formats for modules that declare their tensors, as these are now.

    The module has no quantizers attached.

    Raises:
        ValueError: Invalid formats.
    """
    opened = resolve(plan, resolved.inventory)
    for layer in resolved.inventory.layers:
        if layer.kind == "declared":
            child, tensors = module.get_submodule(layer.path), opened.of_layer(layer.path)
            resolved = resolved.with_formats(declared_formats(child, layer.path, tensors, True))
    return resolved
