"""Chooses the formats that a plan leaves open, from parameters and from data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from qspinn.fixed_point import FixedPointFormat, Format
from qspinn.plan import LayerInfo, ResolvedPlan, ResolvedTensor
from qspinn.plan.expected import check_module, check_resolved
from qspinn.plan.neurons import evaluation_mode, has_threshold
from qspinn.quantizers.attach import (
    Observers,
    attach_observers,
    check_grids,
    detach,
    is_attached,
)
from qspinn.quantizers.choose_format import choose_format, constant_format, covering_format
from qspinn.quantizers.declared import declared_formats
from qspinn.quantizers.folding import folded_parameters
from qspinn.quantizers.stored_format import check_finite, stored_format
from qspinn.quantizers.tensor_quantizer import TensorQuantizer

Tensors = dict[str, ResolvedTensor]


def calibrate(
    module: nn.Module,
    plan: ResolvedPlan,
    run: Callable[[], object] | Tensor | None = None,
    learning: bool = False,
) -> ResolvedPlan:
    """Gives every tensor of ``plan`` a format.

    Parameters are looked at as a device would hold them (batch norm folded).
    Inputs and states are then observed while the network computes with these
    parameters quantised and its states in float; modules that declare their
    tensors compute in float meanwhile, since some could not forget a grid.

    Args:
        module: The network, no quantizers attached. It is left as it was;
            SpikingJelly's states are reset.
        plan: Resolved against ``module`` with an example input.
        run: An input batch, or a function that runs ``module`` on calibration data
            and calls ``functional.reset_net`` between batches. Not used where nothing
            must be observed.
        learning: Whether the network will learn in these formats. What a module
            declares with bounds then gets a format that covers them, and else
            one that suits the value it holds now.

    Returns:
        The plan, complete.

    Raises:
        ValueError: Quantizers are attached; values that are not finite; a state that
            the data never reached; a format that cannot hold the threshold; no data
            where some is needed.
    """
    check_module(module, "calibrate")
    check_resolved(plan, "calibrate")
    if is_attached(module):
        raise ValueError("calibrate: quantizers are attached; call qspinn.quantizers.detach first")
    for layer in plan.inventory.layers:
        tensors = plan.of_layer(layer.path)
        if layer.kind == "declared":
            child = module.get_submodule(layer.path)
            plan = plan.with_formats(declared_formats(child, layer.path, tensors, learning))
        else:
            plan = plan.with_formats(_parameter_formats(module, layer, tensors))
    observers = _observe(module, plan, run)
    for layer in plan.inventory.layers:
        tensors = plan.of_layer(layer.path)
        node = module.get_submodule(layer.path)
        plan = plan.with_formats(_observed_formats(node, tensors, observers))
        if layer.kind == "neuron":
            plan = plan.with_formats(_threshold_format(node, plan.of_layer(layer.path)))
            _check_neuron(node, layer, plan.of_layer(layer.path))
    return plan


def _observe(
    module: nn.Module, plan: ResolvedPlan, run: Callable[[], object] | Tensor | None
) -> Observers:
    observers = attach_observers(module, plan)
    try:
        if observers and run is None:
            raise ValueError(
                f"calibrate: {next(iter(observers))} is calibrated on data; give an input batch, "
                "or a function that runs the module"
            )
        with evaluation_mode(module):
            if observers and run is not None:
                module(run) if isinstance(run, Tensor) else run()
    finally:
        detach(module)
    return observers


def _open(tensors: Tensors, name: str) -> ResolvedTensor | None:
    """The tensor of this name, if its format is still to be chosen."""
    tensor = tensors.get(name)
    return tensor if tensor is not None and tensor.format is None else None


def _parameter_formats(module: nn.Module, layer: LayerInfo, tensors: Tensors) -> dict[str, Format]:
    child: Any = module.get_submodule(layer.path)
    formats: dict[str, Format] = {}
    if layer.kind == "synapse":
        norm = None if layer.norm is None else module.get_submodule(layer.norm)
        with torch.no_grad():
            weight, bias = folded_parameters(child, norm)
        for name, value in (("weight", weight), ("bias", bias)):
            tensor = _open(tensors, name)
            if tensor is not None and value is not None:
                formats[tensor.path] = stored_format(tensor, value)
    decay = _open(tensors, "decay")
    if decay is not None:
        formats[decay.path] = _decay_format(decay, _leak(child, layer), layer.charge == "plif")
    return formats


def _leak(node: Any, layer: LayerInfo) -> float:
    learned = layer.charge == "plif"
    return float(node.w.detach().sigmoid()) if learned else 1.0 / float(node.tau)


def _decay_format(tensor: ResolvedTensor, value: float, learned: bool) -> FixedPointFormat:
    if not math.isfinite(value):
        raise ValueError(f"{tensor.path}: 1/tau={value}; the network has diverged")
    if not learned:
        return constant_format(value, tensor.word_length, tensor.rounding)
    # Room to double before it saturates, but never beyond 1: a learned leak moves.
    return covering_format(min(1.0, 2.0 * value), tensor.word_length)


def _observed_formats(node: Any, tensors: Tensors, observers: Observers) -> dict[str, Format]:
    formats: dict[str, Format] = {}
    for tensor in tensors.values():
        observer = observers.get(tensor.path)
        if observer is None:
            continue
        if observer.empty:
            raise ValueError(
                f"{tensor.path}: the calibration data never reached it; calibrate on data that "
                "runs the whole network, or leave it out with a rule format=float32"
            )
        check_finite(tensor, observer.finite)
        values = observer.sample()
        at_least, step_at_most, signed = 0.0, math.inf, True
        if tensor.role == "input":
            signed = observer.minimum < 0.0
        elif tensor.info.name == "v" and has_threshold(node):
            at_least = _threshold_to_hold(node, tensors)
            step_at_most = _step_to_tell_apart(node)
            values = _as_the_neuron_sees_it(node, values)
        formats[tensor.path] = choose_format(
            values,
            tensor.word_length,
            tensor.settings.calibration or "mse",
            tensor.rounding,
            signed=signed,
            at_least=at_least,
            step_at_most=step_at_most,
        )
    return formats


def _threshold_to_hold(node: Any, tensors: Tensors) -> float:
    """The largest number that the threshold may become on its own grid."""
    value = float(node.v_threshold)
    threshold = tensors.get("v_threshold")
    if threshold is None:
        return max(0.0, value)
    fmt = threshold.format
    if fmt is None:
        fmt = constant_format(value, threshold.word_length, threshold.rounding)
    return max(0.0, value, _on_grid(threshold, fmt, value))


def _step_to_tell_apart(node: Any) -> float:
    """The longest step on which threshold and reset potential surely differ."""
    reset = getattr(node, "v_reset", None) or 0.0
    gap = float(node.v_threshold) - reset
    if gap <= 0.0:
        return math.inf
    return gap if reset == 0.0 else gap / 2.0


def _on_grid(tensor: ResolvedTensor, fmt: Format, value: float) -> float:
    return TensorQuantizer.of(replace(tensor, format=fmt)).constant(value)


def _as_the_neuron_sees_it(node: Any, potentials: Tensor) -> Tensor:
    """With a hard reset, every potential above the threshold has the same effect."""
    if getattr(node, "v_reset", None) is None:
        return potentials
    return potentials.clamp(max=float(node.v_threshold))


def _threshold_format(node: Any, tensors: Tensors) -> dict[str, Format]:
    membrane, threshold = tensors.get("v"), _open(tensors, "v_threshold")
    grid = membrane.format if membrane is not None else None
    if threshold is None:
        return {}
    finest = grid.fraction_bits if isinstance(grid, FixedPointFormat) else None
    fmt = constant_format(
        float(node.v_threshold), threshold.word_length, threshold.rounding, finest
    )
    return {threshold.path: fmt}


def _check_neuron(node: Any, layer: LayerInfo, tensors: Tensors) -> None:
    """Refuses formats with which a neuron would always fire, never fire, or never leak."""
    check_grids(layer, tensors)
    membrane, threshold, decay = (tensors.get(name) for name in ("v", "v_threshold", "decay"))
    if decay is not None and decay.format is not None:
        leak = _leak(node, layer)
        if _on_grid(decay, decay.format, leak) == 0.0:
            raise ValueError(
                f"{decay.path}: 1/tau={leak:.6g} becomes 0 in {decay.format}; write more fraction "
                "bits"
            )
    if membrane is None or membrane.format is None or not has_threshold(node):
        return
    fires = float(node.v_threshold)
    if threshold is not None and threshold.format is not None:
        fires = _on_grid(threshold, threshold.format, fires)
    _check_reachable(membrane, membrane.format, fires)
    reset = getattr(node, "v_reset", None) or 0.0
    stated = float(node.v_threshold)
    if fires <= _on_grid(membrane, membrane.format, reset) and reset < stated:
        raise ValueError(
            f"{membrane.path}: in {membrane.format} the threshold {stated} becomes {fires}, not "
            "above the potential that a spike resets to: the neuron would fire at every step; "
            "write a longer word length or another rounding"
        )


def _check_reachable(tensor: ResolvedTensor, fmt: Format, threshold: float) -> None:
    assert isinstance(fmt, FixedPointFormat)  # resolve() refuses one per channel
    if fmt.max >= threshold:
        return
    remedy = "a word of at least 2 bits" if fmt.word_length == 1 else "more integer bits"
    raise ValueError(
        f"{tensor.path}: format {fmt} ends at {fmt.max}, below the threshold {threshold}: the "
        f"neuron could never fire; write {remedy}"
    )
