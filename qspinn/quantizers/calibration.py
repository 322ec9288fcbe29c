"""Chooses the formats that a plan leaves open, from parameters and from data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from qspinn.fixed_point import FixedPointFormat, Format
from qspinn.plan import LayerInfo, ResolvedPlan, ResolvedTensor
from qspinn.quantizers.attach import Observers, attach_observers, detach, is_attached
from qspinn.quantizers.choose_format import choose_channel_format, choose_format, constant_format
from qspinn.quantizers.folding import folded_parameters

Tensors = dict[str, ResolvedTensor]


def calibrate(
    module: nn.Module, plan: ResolvedPlan, run: Callable[[], object] | Tensor
) -> ResolvedPlan:
    """Gives every tensor of ``plan`` a format.

    Parameters are looked at as a device would hold them (batch norm folded).
    Inputs and states are then observed while the network computes with these
    parameters quantised and its states in float.

    Args:
        module: The network, no quantizers attached. It is left as it was;
            SpikingJelly's states are reset.
        plan: Resolved against ``module``.
        run: An input batch, or a function that runs ``module`` on calibration data
            and calls ``functional.reset_net`` between batches.

    Returns:
        The plan, complete.

    Raises:
        ValueError: Quantizers are attached; values that are not finite; a state that
            the data never reached; a format that cannot hold the threshold.
    """
    if is_attached(module):
        raise ValueError("calibrate: quantizers are attached; call qspinn.quantizers.detach first")
    for layer in plan.inventory.layers:
        plan = plan.with_formats(_parameter_formats(module, layer, plan.of_layer(layer.path)))
    observers = _observe(module, plan, run)
    for layer in plan.inventory.layers:
        tensors = plan.of_layer(layer.path)
        node = module.get_submodule(layer.path)
        plan = plan.with_formats(_observed_formats(node, tensors, observers))
        if layer.kind == "neuron":
            plan = plan.with_formats(_threshold_format(node, layer, plan.of_layer(layer.path)))
    return plan


def _observe(
    module: nn.Module, plan: ResolvedPlan, run: Callable[[], object] | Tensor
) -> Observers:
    training = {child: child.training for child in module.modules()}
    observers = attach_observers(module, plan)
    module.eval()
    try:
        with torch.no_grad():
            if isinstance(run, Tensor):
                module(run)
            elif observers:
                run()
    finally:
        detach(module)
        for child, flag in training.items():
            child.training = flag
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
                formats[tensor.path] = _stored_format(tensor, value)
    decay = _open(tensors, "decay")
    if decay is not None:
        learned = layer.charge == "plif"
        leak = float(child.w.detach().sigmoid()) if learned else 1.0 / float(child.tau)
        formats[decay.path] = _decay_format(decay, leak)
    return formats


def _stored_format(tensor: ResolvedTensor, value: Tensor) -> Format:
    _check_finite(tensor, value)
    settings = tensor.settings
    method, axis = settings.calibration or "mse", tensor.info.channel_axis
    if settings.granularity == "channel" and axis is not None:
        return choose_channel_format(value, axis, tensor.word_length, method, tensor.rounding)
    return choose_format(value, tensor.word_length, method, tensor.rounding)


def _decay_format(tensor: ResolvedTensor, value: float) -> FixedPointFormat:
    fmt = constant_format(value, tensor.word_length, tensor.rounding)
    if fmt.max == 0.0 or not math.isfinite(value):
        raise ValueError(f"{tensor.path}: 1/tau={value} has no format of {tensor.word_length} bits")
    # All of (0, 1): a learned leak may move, and a fixed one loses nothing.
    widest = FixedPointFormat(0, tensor.word_length, signed=False)
    return widest if widest.fraction_bits <= fmt.fraction_bits else fmt


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
        values = observer.sample()
        _check_finite(tensor, values)
        at_least, signed = 0.0, True
        if tensor.role == "input":
            signed = observer.minimum < 0.0
        elif tensor.info.name == "v":
            at_least = max(0.0, float(getattr(node, "v_threshold", 0.0)))
            values = _as_the_neuron_sees_it(node, values)
        formats[tensor.path] = choose_format(
            values,
            tensor.word_length,
            tensor.settings.calibration or "mse",
            tensor.rounding,
            signed=signed,
            at_least=at_least,
        )
    return formats


def _as_the_neuron_sees_it(node: Any, potentials: Tensor) -> Tensor:
    """With a hard reset, every potential above the threshold has the same effect."""
    threshold = getattr(node, "v_threshold", None)
    if threshold is None or getattr(node, "v_reset", None) is None:
        return potentials
    return potentials.clamp(max=float(threshold))


def _threshold_format(node: Any, layer: LayerInfo, tensors: Tensors) -> dict[str, Format]:
    membrane = tensors.get("v")
    grid = membrane.format if membrane is not None else None
    threshold = tensors.get("v_threshold")
    formats: dict[str, Format] = {}
    if threshold is not None and threshold.format is None:
        finest = grid.fraction_bits if isinstance(grid, FixedPointFormat) else None
        formats[threshold.path] = constant_format(
            float(node.v_threshold), threshold.word_length, threshold.rounding, finest
        )
    if threshold is not None and isinstance(grid, FixedPointFormat):
        _check_threshold(threshold, formats.get(threshold.path, threshold.format), grid)
    if membrane is not None and isinstance(grid, FixedPointFormat):
        _check_reachable(node, membrane, grid)
    return formats


def _check_threshold(
    tensor: ResolvedTensor, fmt: Format | None, membrane: FixedPointFormat
) -> None:
    assert isinstance(fmt, FixedPointFormat)
    if fmt.fraction_bits > membrane.fraction_bits:
        raise ValueError(
            f"{tensor.path}: format {fmt} is finer than the membrane's {membrane}, with which it "
            f"is compared; write at most {membrane.fraction_bits} fraction bits"
        )


def _check_reachable(node: Any, tensor: ResolvedTensor, fmt: FixedPointFormat) -> None:
    threshold = getattr(node, "v_threshold", None)
    if threshold is not None and fmt.max < float(threshold):
        raise ValueError(
            f"{tensor.path}: format {fmt} ends at {fmt.max}, below the threshold "
            f"{float(threshold)}: the neuron could never fire; write more integer bits"
        )


def _check_finite(tensor: ResolvedTensor, values: Tensor) -> None:
    if not bool(torch.isfinite(values).all()):
        raise ValueError(
            f"{tensor.path}: holds values that are not finite; the network has diverged, so it "
            "cannot be quantised"
        )
