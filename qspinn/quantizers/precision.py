"""Which float type makes each layer of a network exact, and how wide its sums are."""

from __future__ import annotations

from typing import Any

import torch

from qspinn.fixed_point import FixedPointFormat
from qspinn.plan import LayerInfo, ResolvedPlan, ResolvedTensor
from qspinn.quantizers.exactness import (
    FLOAT32_BITS,
    accumulator_bits,
    accumulator_grid,
    charge_bits,
)
from qspinn.quantizers.neuron import NeuronQuantizer


def accumulator_word_lengths(plan: ResolvedPlan) -> dict[str, int]:
    """The word length that the sum of each synapse layer can need, sign included.

    Returns:
        Layer path -> bits, for the layers whose sums lie on a grid.
    """
    lengths = {}
    for layer in plan.inventory.layers:
        if layer.kind == "synapse":
            bits = accumulator_word_length(layer, plan.of_layer(layer.path))
            if bits is not None:
                lengths[layer.path] = bits
    return lengths


def accumulator_word_length(layer: LayerInfo, tensors: dict[str, ResolvedTensor]) -> int | None:
    """Word length of the layer's accumulator, sign included; ``None`` where it is not on a grid."""
    if not _on_grid(layer, tensors):
        return None
    weight, bias, inputs = (tensors.get(name) for name in ("weight", "bias", "input"))
    assert weight is not None  # _on_grid saw to it
    assert weight.format is not None
    assert layer.fan_in is not None
    return accumulator_bits(
        weight.format,
        None if bias is None else bias.format,
        None if inputs is None else inputs.format,
        layer.fan_in,
    )


def _on_grid(layer: LayerInfo, tensors: dict[str, ResolvedTensor]) -> bool:
    needed = [info.name for info in layer.tensors]
    return all(name in tensors and tensors[name].format is not None for name in needed)


def charge_dtype(
    node: Any, layer: LayerInfo, quantizer: NeuronQuantizer, plan: ResolvedPlan
) -> torch.dtype:
    """The float type in which the charge is exact; float64 where the current's grid is unknown."""
    if quantizer.charge == "fallback":
        return torch.float32
    grid = _current_grid(layer, plan)
    if grid is None:
        return torch.float64
    membrane = quantizer.states["v"].format
    assert isinstance(membrane, FixedPointFormat)
    if quantizer.states["v"].overflow == "wrap":
        # What wraps must be exact at any size, not only inside the range.
        return torch.float64
    decay = _worst_decay(node, quantizer)
    bits = charge_bits(membrane, grid, decay, bool(getattr(node, "decay_input", True)))
    return torch.float32 if bits <= FLOAT32_BITS else torch.float64


def _worst_decay(node: Any, quantizer: NeuronQuantizer) -> float | None:
    """A decay with as many fraction bits as this one can have; ``None`` for no decay."""
    if quantizer.charge == "if":
        return None
    if quantizer.decay is None:
        return float(torch.as_tensor(quantizer.decay_of(node)))
    if quantizer.charge == "plif":
        return float(quantizer.decay.format.step)  # type: ignore[union-attr]
    return quantizer.decay.constant(1.0 / float(node.tau))


def _current_grid(layer: LayerInfo, plan: ResolvedPlan) -> int | None:
    if layer.current_from is None:
        return None
    source = plan.inventory.layer(layer.current_from)
    tensors = plan.of_layer(source.path)
    if not _on_grid(source, tensors):
        return None
    formats = {name: tensor.format for name, tensor in tensors.items()}
    weight = formats["weight"]
    assert weight is not None
    return accumulator_grid(weight, formats.get("bias"), formats.get("input"))
