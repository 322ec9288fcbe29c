"""Which formats suit a neuron's constants, and which formats its neuron could not work with."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from torch import Tensor

from qspinn.fixed_point import FixedPointFormat, Format
from qspinn.plan import LayerInfo, ResolvedTensor
from qspinn.plan.neurons import has_threshold
from qspinn.quantizers.choose_format import constant_format, covering_format
from qspinn.quantizers.tensor_quantizer import TensorQuantizer

Tensors = dict[str, ResolvedTensor]


def decay_formats(node: Any, layer: LayerInfo, tensors: Tensors) -> dict[str, Format]:
    """The format of the leak, where it is still to be chosen."""
    decay = _open(tensors, "decay")
    if decay is None:
        return {}
    return {decay.path: _decay_format(decay, _leak(node, layer), layer.charge == "plif")}


def threshold_to_hold(node: Any, tensors: Tensors) -> float:
    """The largest number that the threshold may become on its own grid."""
    value = float(node.v_threshold)
    threshold = tensors.get("v_threshold")
    if threshold is None:
        return max(0.0, value)
    fmt = threshold.format
    if fmt is None:
        fmt = constant_format(value, threshold.word_length, threshold.rounding)
    return max(0.0, value, _on_grid(threshold, fmt, value))


def step_to_tell_apart(node: Any) -> float:
    """The longest step on which threshold and reset potential surely differ."""
    reset = getattr(node, "v_reset", None) or 0.0
    gap = float(node.v_threshold) - reset
    if gap <= 0.0:
        return math.inf
    return gap if reset == 0.0 else gap / 2.0


def as_the_neuron_sees_it(node: Any, potentials: Tensor) -> Tensor:
    """With a hard reset, every potential above the threshold has the same effect."""
    if getattr(node, "v_reset", None) is None:
        return potentials
    return potentials.clamp(max=float(node.v_threshold))


def threshold_format(node: Any, tensors: Tensors) -> dict[str, Format]:
    """The format of the threshold, where it is still to be chosen."""
    membrane, threshold = tensors.get("v"), _open(tensors, "v_threshold")
    grid = membrane.format if membrane is not None else None
    if threshold is None:
        return {}
    finest = grid.fraction_bits if isinstance(grid, FixedPointFormat) else None
    fmt = constant_format(
        float(node.v_threshold), threshold.word_length, threshold.rounding, finest
    )
    return {threshold.path: fmt}


def check_neuron(node: Any, layer: LayerInfo, tensors: Tensors) -> None:
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


def check_grids(layer: LayerInfo, tensors: dict[str, ResolvedTensor]) -> None:
    """A threshold finer than the membrane is another threshold than the one compared with."""
    membrane, threshold = tensors.get("v"), tensors.get("v_threshold")
    if membrane is None or threshold is None:
        return
    grid, fmt = membrane.format, threshold.format
    if not isinstance(grid, FixedPointFormat) or not isinstance(fmt, FixedPointFormat):
        return
    if fmt.fraction_bits > grid.fraction_bits:
        raise ValueError(
            f"{threshold.path}: format {fmt} is finer than the membrane's {grid}, with which it is "
            f"compared; write at most {grid.fraction_bits} fraction bits"
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


def _on_grid(tensor: ResolvedTensor, fmt: Format, value: float) -> float:
    return TensorQuantizer.of(replace(tensor, format=fmt)).constant(value)


def _open(tensors: Tensors, name: str) -> ResolvedTensor | None:
    tensor = tensors.get(name)
    return tensor if tensor is not None and tensor.format is None else None
