"""Chooses the unit of its own that a layer of neurons counts in, and the formats that go with it.

In a unit, a threshold is a whole number T of steps of the membrane, and the smaller word lengths
are, the fewer there are to choose from: the potential that one step stands for is the distance
from rest to threshold by T. Each channel takes the T, and with it the scale, with which its
weights lose least; of the tensor, where all channels share one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qspinn.fixed_point import FixedPointFormat, Format, PerChannelFormat
from qspinn.plan import ResolvedPlan, ResolvedTensor
from qspinn.plan.neuron_constants import reset_of, threshold_of
from qspinn.plan.neurons import most_spikes
from qspinn.plan.units import Scaled, Unit
from qspinn.quantizers.choose_format import choose_channel_format, choose_format, squared_errors
from qspinn.quantizers.folding import by_channel, held_parameters
from qspinn.quantizers.stored_format import SAMPLE_SIZE, check_finite, sampled, stored_format

THRESHOLDS_TRIED = 32
"""For each channel, at most."""
SHARES_BELOW = (0.0, 1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2)
"""Parts of the codes of a membrane that lie below rest, of which one is chosen."""
ROOM_ABOVE = (1, 2, 4)
"""Thresholds that fit into a membrane whose excess over one counts, of which one is chosen."""
UNBOUNDED = 1 << 12
"""Steps up to a threshold where neither it nor the membrane is quantised."""


@dataclass(frozen=True)
class UnitChoice:
    """A unit that a layer of neurons may count in.

    Attributes:
        unit: The unit.
        formats: Of the layer's tensors and those of the synapses before it, where they were open:
            path -> format.
        low: Smallest code of the membrane; None where it stays in float.
        high: Largest code of it.
        step: Of the membrane, in units.
    """

    unit: Unit
    formats: Mapping[str, Format]
    low: int | None = None
    high: int | None = None
    step: float = 1.0


def unit_choices(
    module: nn.Module, plan: ResolvedPlan, scaled: Scaled, learning: bool
) -> list[UnitChoice]:
    """The units that a layer of neurons may count in, each with its formats.

    Args:
        module: The network, no quantizers attached.
        plan: Resolved against it.
        scaled: The layer.
        learning: Whether the network will learn in these formats.

    Raises:
        ValueError: Values that are not finite; a threshold that no unit can hold.
    """
    layer = plan.inventory.layer(scaled.synapse)
    node: Any = module.get_submodule(scaled.neuron)
    gaps = threshold_gaps(node, scaled)
    if not bool((gaps > 0).all()):
        raise ValueError(
            f"{scaled.neuron}: scale=free needs thresholds above the potential that a spike "
            f"resets to, and one is {float(gaps.min()):.6g} above; write scale=power_of_two for "
            "this layer"
        )
    held = held_parameters(module, layer)
    weight = plan.of_layer(scaled.synapse)["weight"]
    value, counts = held["weight"]
    check_finite(weight, bool(torch.isfinite(value).all()))
    child = module.get_submodule(scaled.synapse)
    rows = _rows(child, value, counts, scaled.channels)
    tensors = {**plan.of_layer(scaled.synapse), **plan.of_layer(scaled.neuron)}
    found = []
    for grid in _grids(node, scaled, tensors):
        steps, weights = _steps_to_threshold(rows, gaps, grid, weight)
        unit = Unit(tuple((gaps / steps).tolist()), grid.rest * grid.step)
        formats: dict[str, Format] = {weight.path: weights}
        formats |= grid.formats
        bias = tensors.get("bias")
        if bias is not None and bias.format is None:
            scale = torch.tensor(unit.scale, dtype=torch.float64)
            formats[bias.path] = stored_format(bias, held["bias"][0].double().cpu() / scale)
        found.append(UnitChoice(unit, formats, grid.low, grid.high, grid.step))
    return found


def threshold_gaps(node: Any, scaled: Scaled) -> Tensor:
    """How far the threshold lies above rest: the largest of the layer or of each channel; ``[R]``.

    Raises:
        ValueError: A threshold of another shape than the channels have.
    """
    threshold: Any = threshold_of(node)
    values = torch.as_tensor(threshold, dtype=torch.float64).detach().cpu()
    values = values - (reset_of(node) or 0.0)
    if scaled.channels == 1 or values.numel() == 1:
        return values.max().expand(scaled.channels)
    axis = values.dim() + scaled.axis
    if axis < 0 or values.shape[axis] not in (1, scaled.channels):
        raise ValueError(
            f"{scaled.neuron}: a threshold of the shape {list(values.shape)} says nothing of "
            f"{scaled.channels} channels on axis {scaled.axis}; write granularity=tensor, or "
            "scale=power_of_two"
        )
    each = values.movedim(axis, 0).reshape(values.shape[axis], -1).amax(1)
    return each.expand(scaled.channels)


@dataclass(frozen=True)
class _Grid:
    """A grid of potentials, in steps of the threshold.

    Attributes:
        rest: The code of the resting potential.
        top: The largest code that a threshold may have.
        threshold_step: Thresholds are multiples of it.
        step: What a code stands for, in units.
        formats: Of the membrane and the threshold, where these were open.
        low: Smallest code.
        high: Largest code.
    """

    rest: int
    top: int
    threshold_step: int
    step: float
    formats: Mapping[str, Format]
    low: int | None
    high: int | None


def _grids(node: Any, scaled: Scaled, tensors: Mapping[str, ResolvedTensor]) -> Iterator[_Grid]:
    """The grids of potentials that are tried."""
    membrane, threshold = tensors.get("v"), tensors.get("v_threshold")
    formats: dict[str, Format] = {}
    low = high = None
    step, top = 1.0, UNBOUNDED
    if membrane is not None:
        fmt = membrane.format
        if fmt is None:
            fmt = FixedPointFormat(membrane.word_length - 1, 0)
            formats[membrane.path] = fmt
        assert isinstance(fmt, FixedPointFormat)  # resolve() refuses one per channel
        low, high, step, top = fmt.code_min, fmt.code_max, fmt.step, fmt.code_max
    coarse = 1
    if threshold is not None and threshold.format is None:
        length = threshold.word_length
        coarse = 1 << max(0, top.bit_length() - length)
        fraction = -(coarse.bit_length() - 1) + round(-math.log2(step))
        formats[threshold.path] = FixedPointFormat(length - fraction, fraction, signed=False)
    elif threshold is not None:
        assert isinstance(threshold.format, FixedPointFormat)
        coarse = max(1, round(threshold.format.step / step))
        top = min(top, int(threshold.format.max / step))
    if scaled.below:
        assert low is not None
        codes = top - low + 1
        rests = {low + min(round(share * codes), codes - 2) for share in SHARES_BELOW}
        for rest in sorted(rests):
            yield _Grid(rest, top, coarse, step, formats, low, high)
        return
    if top < 1:
        raise ValueError(
            f"{scaled.neuron}: {fmt} holds no threshold above rest; write a word of at least 2 "
            "bits for the membrane, or scale=free for it too (a neuron with a hard reset)"
        )
    counts = most_spikes(node)
    rooms = ROOM_ABOVE if reset_of(node) is None else (1,)
    for room in sorted({min(one * counts, max(top // coarse, 1)) for one in rooms}):
        yield _Grid(0, top // room, coarse, step, formats, low, high)


def _steps_to_threshold(
    rows: Tensor, gaps: Tensor, grid: _Grid, weight: ResolvedTensor
) -> tuple[Tensor, Format]:
    """The number of units from rest to threshold, ``[R]``, and the format of weights in units.

    Args:
        rows: Weights of the tensor, or of each channel; ``[R, n]``, float64.
        gaps: The distance from rest to threshold; ``[R]``.
        grid: Of the potentials.
        weight: Settings of the weights.
    """
    last = grid.top // grid.threshold_step * grid.threshold_step
    first = grid.rest + (last - grid.rest) // 2 + 1
    tried = [one for one in range(last, first - 1, -1) if one % grid.threshold_step == 0]
    tried = tried[:: -(-len(tried) // THRESHOLDS_TRIED)] or [last]
    axis = weight.info.channel_axis if weight.settings.granularity == "channel" else None
    method = weight.settings.calibration or "mse"
    best = torch.full((len(rows),), math.inf, dtype=torch.float64)
    steps = torch.zeros(len(rows), dtype=torch.float64)
    fractions = [0] * len(rows)
    for code in tried:
        distance = (code - grid.rest) * grid.step
        scale = gaps / distance
        values = rows / scale[:, None]
        fmt = _format(values, weight, method)
        errors = squared_errors(values, fmt, weight.rounding) * scale**2
        better = errors < best
        best = torch.where(better, errors, best)
        steps = torch.where(better, torch.full_like(steps, distance), steps)
        fractions = [
            new if taken else old
            for new, old, taken in zip(fmt.fraction_bits, fractions, better.tolist(), strict=True)
        ]
    length = weight.word_length
    if axis is None:
        return steps, FixedPointFormat(length - 1 - fractions[0], fractions[0])
    return steps, PerChannelFormat(length, tuple(fractions), axis=axis)


def _format(rows: Tensor, weight: ResolvedTensor, method: str) -> PerChannelFormat:
    """The format of each row."""
    length, rounding = weight.word_length, weight.rounding
    if len(rows) == 1:
        one = choose_format(rows, length, method, rounding)
        return PerChannelFormat(length, (one.fraction_bits,))
    return choose_channel_format(rows, 0, length, method, rounding)


def _rows(child: Any, value: Tensor, counts: Tensor | None, channels: int) -> Tensor:
    """A sample of the weights of the tensor, or of each channel; ``[R, n]``, float64."""
    value = value.detach().double()
    if channels > 1:
        rows = by_channel(child, value)
    else:
        rows = value.reshape(1, -1)
        if counts is not None and bool(counts.any()) and not bool(counts.all()):
            rows = rows[:, counts.expand_as(value).reshape(-1)]
    return sampled(rows, max(64, SAMPLE_SIZE // len(rows))).cpu()
