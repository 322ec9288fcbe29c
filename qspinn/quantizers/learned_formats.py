"""The formats and units that come nearest to steps that are learned."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from qspinn.fixed_point import FixedPointFormat, Format, PerChannelFormat
from qspinn.plan import LayerInfo, ResolvedPlan, ResolvedTensor
from qspinn.plan.neuron_constants import has_threshold
from qspinn.plan.units import Scaled, Unit
from qspinn.quantizers.choose_format import range_limits, within_spread
from qspinn.quantizers.folding import held_parameters
from qspinn.quantizers.looking import is_open
from qspinn.quantizers.neuron_formats import (
    check_neuron,
    holds_no_threshold,
    step_to_tell_apart,
    threshold_format,
    threshold_to_hold,
    with_formats,
    with_open,
)
from qspinn.quantizers.stored_format import stored_format
from qspinn.quantizers.units import LayerGrids

STAYS = 0.1
"""Octaves by which another power of two must come nearer to a step before it is taken."""
LEAST_SHARE = 0.4
"""Of the largest threshold that a word holds: lower ones would waste membrane codes."""


def logarithms(tensor: ResolvedTensor, unit: Unit | None) -> Tensor:
    """Binary logarithms of the steps in use, as the network counts; ``[R]``, float64."""
    bits = _fractions(tensor)
    return -bits if unit is None else unit.tensor.log2() - bits


def count_of(tensor: ResolvedTensor) -> int:
    """How many numbers a tensor holds, of one sample; 1 where nobody knows."""
    return 1 if tensor.info.shape is None else math.prod(tensor.info.shape)


def largest_code(tensor: ResolvedTensor) -> int:
    """The largest code of a format in use."""
    assert tensor.format is not None
    return tensor.format.code_max


def with_unit(
    module: nn.Module,
    plan: ResolvedPlan,
    scaled: Scaled,
    tensor: ResolvedTensor,
    log2: Tensor,
    highest: float,
) -> ResolvedPlan | None:
    """The plan with the unit, and the format of the weights, that make up a step.

    The threshold that is stored is the nearest whole number, within what its word holds. Where a
    power of two more or less would clearly bring it nearer, or would bring a low threshold back
    among the high ones, the weights have a fraction bit more or less.

    Args:
        module: The network.
        plan: In use.
        scaled: The layer of neurons.
        tensor: The weights.
        log2: Binary logarithms of their steps, as the network counts; ``[R]``, float64.
        highest: The largest threshold that may be taken, in units above rest.

    Returns:
        None where that is in use.
    """
    unit, grids = plan.units[scaled.neuron], LayerGrids(module, plan, scaled)
    bits, grid = _fractions(tensor), grids.grid_in_use(unit)
    wanted = grids.gaps / torch.exp2(log2 + bits)  # from rest to threshold
    octaves = torch.ceil(torch.log2(wanted / highest))

    def held(distances: Tensor) -> Tensor:
        return grids.held_distances(distances.clamp(max=highest), grid, unit.rest)

    stays, moves = held(wanted), held(wanted / torch.exp2(octaves))
    near = (torch.log2(stays / wanted)).abs()
    nearer = (torch.log2(moves / wanted) + octaves).abs()
    keeps = (near <= nearer + STAYS) & (wanted >= LEAST_SHARE * highest)
    distances = torch.where(keeps, stays, moves)
    fmt = _with_fractions(tensor, bits + torch.where(keeps, torch.zeros(()), octaves))
    new = Unit(tuple((grids.gaps / distances).tolist()), unit.rest)
    if new == unit and fmt == tensor.format:
        return None
    plan = plan.with_units({scaled.neuron: new}).with_formats({tensor.path: fmt})
    return plan.with_formats(_bias_format(module, plan, scaled.synapse, new))


def with_weights(plan: ResolvedPlan, tensor: ResolvedTensor, log2: Tensor) -> ResolvedPlan | None:
    """The plan with weights in the powers of two that are nearest to their steps.

    Args:
        plan: In use.
        tensor: The weights.
        log2: Binary logarithms of their steps; ``[R]``, float64.

    Returns:
        None where these are in use.
    """
    fmt = _with_fractions(tensor, _kept_or_nearest(_fractions(tensor), log2))
    return None if fmt == tensor.format else plan.with_formats({tensor.path: fmt})


def with_membrane(
    module: nn.Module, plan: ResolvedPlan, layer: LayerInfo, tensor: ResolvedTensor, log2: Tensor
) -> ResolvedPlan | None:
    """The plan with a membrane, and the threshold to go with it, that is nearest to its step.

    Among the powers of two with which the membrane holds its threshold, and tells it from rest.

    Args:
        module: The network.
        plan: In use.
        layer: The neurons.
        tensor: Their membrane.
        log2: Binary logarithm of its step; ``[1]``, float64.

    Returns:
        None where that is in use.

    Raises:
        ValueError: Neurons that would always fire, or never leak.
    """
    node, tensors = module.get_submodule(layer.path), plan.of_layer(layer.path)
    length = tensor.word_length
    at_least, step_at_most = 0.0, math.inf
    if has_threshold(node) and not holds_no_threshold(node, tensor):
        at_least = threshold_to_hold(node, with_open(tensors, "v_threshold"))
        step_at_most = step_to_tell_apart(node)
    bits = int(_kept_or_nearest(_fractions(tensor), log2))
    whole = range_limits(length, True, at_least, step_at_most).clamped(length - 1 - bits)
    fmt = FixedPointFormat(whole, length - 1 - whole)
    if fmt == tensor.format:
        return None
    tensors = with_formats(tensors, {tensor.path: fmt})
    threshold = threshold_format(node, with_open(tensors, "v_threshold"))
    check_neuron(node, layer, with_formats(tensors, threshold))
    return plan.with_formats({tensor.path: fmt, **threshold})


def _fractions(tensor: ResolvedTensor) -> Tensor:
    """The fraction bits of a format, of each channel where it has several; float64."""
    fmt = tensor.format
    assert fmt is not None
    bits = fmt.fraction_bits if isinstance(fmt, PerChannelFormat) else (fmt.fraction_bits,)
    return torch.tensor(bits, dtype=torch.float64)


def _with_fractions(tensor: ResolvedTensor, bits: Tensor) -> Format:
    """The format of a tensor, with other fraction bits."""
    fmt, found = tensor.format, [int(one) for one in bits.tolist()]
    if isinstance(fmt, PerChannelFormat):
        return replace(fmt, fraction_bits=within_spread(found))
    assert fmt is not None
    integer_bits = fmt.word_length - int(fmt.signed) - found[0]
    return replace(fmt, integer_bits=integer_bits, fraction_bits=found[0])


def _kept_or_nearest(bits: Tensor, log2: Tensor) -> Tensor:
    """The fraction bits nearest to a step; those in use until others are clearly nearer."""
    return torch.where((log2 + bits).abs() <= 0.5 + STAYS / 2, bits, -log2.round())


def _bias_format(module: nn.Module, plan: ResolvedPlan, path: str, unit: Unit) -> dict[str, Format]:
    """The format of a bias in units that have changed."""
    bias = plan.of_layer(path).get("bias")
    if bias is None or not is_open(bias):
        return {}
    value, _ = held_parameters(module, plan.inventory.layer(path), unit.tensor)["bias"]
    if not bool((value != 0).any()):
        return {}
    return {bias.path: stored_format(bias, value, current=bias.format)}
