"""Which float type makes each layer exact, how wide its sums are, and what stays in float."""

from __future__ import annotations

import warnings
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from qspinn.fixed_point import FixedPointFormat, Format
from qspinn.plan import LayerInfo, ResolvedPlan, ResolvedTensor
from qspinn.plan.expected import check_resolved
from qspinn.plan.neuron_constants import leak_of
from qspinn.quantizers.declared import declared_accumulators
from qspinn.quantizers.neuron import NeuronQuantizer
from qspinn.steps.exactness import (
    FLOAT32_BITS,
    accumulator_bits,
    accumulator_grid,
    accumulator_limit,
    charge_bits,
    dtype_for,
    filter_bits,
    fraction_bits_of,
)


def accumulator_word_lengths(plan: ResolvedPlan, module: nn.Module | None = None) -> dict[str, int]:
    """The word length that the sum of each synapse layer can need, sign included.

    Args:
        plan: Calibrated.
        module: The module with quantizers attached, for the sums of modules that
            declare their tensors: those are known only to themselves.

    Returns:
        Layer path -> bits, for the layers whose sums lie on a grid.
    """
    check_resolved(plan, "accumulator_word_lengths")
    lengths = {} if module is None else declared_accumulators(module)
    for layer in plan.inventory.layers:
        if layer.kind == "synapse":
            bits = accumulator_word_length(layer, plan.of_layer(layer.path))
            if bits is not None:
                lengths[layer.path] = bits
    return lengths


Summed = tuple[Format, Format | None, Format | None, int]
"""Formats of weight, bias and input (None: there is none), and the fan-in."""


def accumulator_word_length(layer: LayerInfo, tensors: dict[str, ResolvedTensor]) -> int | None:
    """Word length of the layer's accumulator, sign included; ``None`` where it is not on a grid."""
    summed = _summed(layer, tensors)
    return None if summed is None else accumulator_bits(*summed)


def _summed(layer: LayerInfo, tensors: dict[str, ResolvedTensor]) -> Summed | None:
    """What the sum of a synapse layer is made of; ``None`` where it is not on a grid."""
    formats = {
        info.name: tensors[info.name].format for info in layer.tensors if info.name in tensors
    }
    weight = formats.get("weight")
    if len(formats) < len(layer.tensors) or None in formats.values() or weight is None:
        return None
    assert layer.fan_in is not None
    return weight, formats.get("bias"), formats.get("input"), layer.fan_in


def sum_dtype(layer: LayerInfo, plan: ResolvedPlan) -> torch.dtype:
    """The float type in which a synapse layer's sums are exact.

    Raises:
        ValueError: Even a float64 is too small.
    """
    bits = accumulator_word_length(layer, plan.of_layer(layer.path))
    if bits is None:
        return torch.float32
    return dtype_for(bits - 1, f"{layer.path}: the sum of its inputs")


def output_dtype(layer: LayerInfo, plan: ResolvedPlan) -> torch.dtype | None:
    """The float type in which a synapse layer hands on its sums; ``None`` for its own.

    A neuron takes them in the type that holds them exactly, and what is added up
    before a neuron (residual connections) is added in float64. What no neuron
    takes, such as class scores, leaves in the network's own type, and so does what
    goes through an operation that takes no other (see :func:`rounded_sums`).
    """
    if accumulator_word_length(layer, plan.of_layer(layer.path)) is None:
        return None
    if layer.in_float32 is not None:
        return None
    takers = _takers(layer, plan)
    if not takers:
        return None
    direct = all(neuron.current_from == layer.path for neuron in takers)
    return sum_dtype(layer, plan) if direct else torch.float64


def rounded_sums(plan: ResolvedPlan) -> dict[str, str]:
    """Synapse layers whose sums are rounded to a float32 on their way to a neuron.

    Returns:
        Layer path -> why, in words.
    """
    rounded = {}
    for layer in plan.inventory.layers:
        if layer.kind != "synapse" or layer.in_float32 is None or not _takers(layer, plan):
            continue
        bits = accumulator_word_length(layer, plan.of_layer(layer.path))
        if bits is not None and bits - 1 > FLOAT32_BITS:
            rounded[layer.path] = (
                f"sums of up to {bits} bits go through {layer.in_float32}, where a float32 holds "
                f"{FLOAT32_BITS}"
            )
    return rounded


def _takers(layer: LayerInfo, plan: ResolvedPlan) -> list[LayerInfo]:
    neurons = [one for one in plan.inventory.layers if one.kind == "neuron"]
    return [neuron for neuron in neurons if layer.path in neuron.sources]


def charge_dtype(
    node: Any, layer: LayerInfo, quantizer: NeuronQuantizer, plan: ResolvedPlan
) -> torch.dtype:
    """The float type in which the charge is exact.

    A float64 as well where nothing can be said: the current's grid is unknown, or
    the leak is not on one.

    Raises:
        ValueError: Even a float64 is too small.
    """
    if not quantizer.model.is_exact:
        return torch.float32
    current = _current(layer, plan)
    decay = _decay(node, quantizer)
    if quantizer.model.reads_out:
        return _filter_dtype(layer, quantizer, current, decay)
    if "v" not in quantizer.states:
        return torch.float32
    if current is None or (decay is None and quantizer.model.leaks):
        return torch.float64
    membrane = quantizer.states["v"].format
    assert isinstance(membrane, FixedPointFormat)
    grid, largest = current
    wraps = quantizer.states["v"].overflow == "wrap"
    decay_input = bool(getattr(node, "decay_input", True))
    bits = charge_bits(membrane, grid, decay, decay_input, largest if wraps else None)
    return dtype_for(bits, f"{layer.path}: the charge of its membrane")


def _decay(node: Any, quantizer: NeuronQuantizer) -> tuple[int, Fraction] | None:
    """Fraction bits that the leak may need, and its largest value; ``None`` off any grid."""
    if not quantizer.model.leaks or quantizer.decay is None:
        return None
    fmt = quantizer.decay.format
    assert isinstance(fmt, FixedPointFormat)
    value = leak_of(node)
    if isinstance(value, Tensor):
        return fmt.fraction_bits, Fraction(fmt.max)
    value = quantizer.decay.constant(value)
    return fraction_bits_of(value), Fraction(value)


def _filter_dtype(
    layer: LayerInfo,
    quantizer: NeuronQuantizer,
    current: tuple[int, Fraction] | None,
    decay: tuple[int, Fraction] | None,
) -> torch.dtype:
    """Float64, always: the leak, the trace and the input are multiplied by each other."""
    trace = quantizer.states["out_i"].format
    assert isinstance(trace, FixedPointFormat)
    if current is not None and decay is not None:
        bits = filter_bits(trace, *current, *decay)
        dtype_for(bits, f"{layer.path}: the decay of its trace")
    return torch.float64


def _current(layer: LayerInfo, plan: ResolvedPlan) -> tuple[int, Fraction] | None:
    """Fraction bits and largest absolute value of a neuron's input, where they are known."""
    if layer.current_from is None:
        return None
    source = plan.inventory.layer(layer.current_from)
    summed = _summed(source, plan.of_layer(source.path))
    return None if summed is None else (accumulator_grid(*summed[:3]), accumulator_limit(*summed))


class FloatWarning(UserWarning):
    """Something of a quantised network stays in floating point."""


def warn_of_floats(plan: ResolvedPlan) -> None:
    """Warns once of what stays in float besides what the plan leaves there.

    The warning points at the line that called the caller.

    Args:
        plan: Calibrated.
    """
    summary, rounded = plan.summary(), rounded_sums(plan)
    lines = [] if summary.is_as_planned else summary.lines()
    lines += [f"rounded to float32: {path}: {why}" for path, why in rounded.items()]
    if lines:
        shown = "\n  ".join(lines)
        warnings.warn(
            f"not all of the network is in fixed point (plan.summary() says it again):\n  {shown}",
            FloatWarning,
            stacklevel=3,
        )
