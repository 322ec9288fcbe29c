"""Chooses the unit of its own that a layer of neurons counts in, and the formats that go with it.

In a unit, a threshold is a whole number T of steps of the membrane, and the smaller word lengths
are, the fewer there are to choose from: the potential that one step stands for is the distance
from rest to threshold by T. Each channel takes the T, and with it the scale, with which its
weights lose least; or the tensor does, where all channels share one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from qspinn.fixed_point import FixedPointFormat, Format, PerChannelFormat
from qspinn.plan import ResolvedPlan, ResolvedTensor
from qspinn.plan.neuron_constants import reset_of, threshold_of
from qspinn.plan.neurons import most_spikes
from qspinn.plan.units import Scaled, Unit
from qspinn.quantizers.choose_format import (
    NEARLY,
    choose_channel_format,
    choose_format,
    squared_errors,
)
from qspinn.quantizers.folding import by_channel, held_parameters
from qspinn.quantizers.stored_format import SAMPLE_SIZE, check_finite, sampled, stored_format

THRESHOLDS_TRIED = 32
"""For each channel, at most."""
BEST = 3
"""Thresholds of a channel among which spikes decide, where a threshold has few codes."""
FEW_CODES = 16
SHARES_BELOW = (0.0, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8)
"""Parts of the codes of a membrane that lie below rest, of which one is chosen."""
LEAST_BELOW = 1 / 4
"""Of a network that will learn: where its potentials will go, no data shows."""
ROOM_ABOVE = (1, 2, 4)
"""Thresholds that fit into a membrane whose excess over one counts, of which one is chosen."""
FACTORS = (0.67, 0.75, 0.83, 0.91, 1.1, 1.2, 1.33, 1.5)
"""By which thresholds move at most while a network learns."""
UNBOUNDED = 1 << 12
"""Steps up to a threshold where neither it nor the membrane is quantised."""


@dataclass(frozen=True)
class PotentialGrid:
    """A grid of potentials, in a unit that is still to be chosen.

    Attributes:
        rest: The code of the resting potential.
        top: The largest code that a threshold may have.
        threshold_step: Thresholds are multiples of it, in codes.
        step: What a code stands for, in units.
        formats: Of the membrane and the threshold, where these are open: path -> format.
        low: Smallest code; None where the membrane stays in float.
        high: Largest code.
    """

    rest: int
    top: int
    threshold_step: int
    step: float
    formats: Mapping[str, Format] = field(compare=False)
    low: int | None
    high: int | None


@dataclass(frozen=True)
class UnitChoice:
    """A unit that a layer of neurons may count in.

    Attributes:
        unit: The unit.
        formats: Of the layer's tensors and those of the synapses before it, where these are open:
            path -> format.
        grid: Of its potentials.
        distances: Units from rest to threshold, of the layer or each channel: ``[R]``.
    """

    unit: Unit
    formats: Mapping[str, Format]
    grid: PotentialGrid
    distances: Tensor


class LayerGrids:
    """The grids of potentials that a layer of neurons may have in units of its own.

    Args:
        module: The network.
        plan: Resolved against it.
        scaled: The layer.

    Raises:
        ValueError: A threshold that no unit can hold.
    """

    @torch.no_grad()
    def __init__(self, module: nn.Module, plan: ResolvedPlan, scaled: Scaled) -> None:
        self._node: Any = module.get_submodule(scaled.neuron)
        self._scaled = scaled
        self._tensors = {**plan.of_layer(scaled.synapse), **plan.of_layer(scaled.neuron)}
        self._weight = self._tensors["weight"]
        self._gaps = threshold_gaps(self._node, scaled)
        if not bool((self._gaps > 0).all()):
            raise ValueError(
                f"{scaled.neuron}: scale=free needs thresholds above the potential that a spike "
                f"resets to, and one is {float(self._gaps.min()):.6g} above; write "
                "scale=power_of_two for this layer"
            )

    @property
    def gaps(self) -> Tensor:
        """How far the thresholds lie above rest, as the network counts; ``[R]``, float64."""
        return self._gaps

    @staticmethod
    def held_distances(distances: Tensor, grid: PotentialGrid, rest: float) -> Tensor:
        """The nearest numbers of units from rest to threshold that a threshold's word holds.

        Args:
            distances: Any shape, float64.
            grid: Of the potentials.
            rest: The resting potential, in units.
        """
        step = grid.step * grid.threshold_step
        lowest = max(math.floor(rest / step) + 1, 0)
        codes = ((distances + rest) / step).round().clamp(lowest, grid.top // grid.threshold_step)
        return codes * step - rest

    def grid_in_use(self, unit: Unit) -> PotentialGrid:
        """The grid of potentials that thresholds were chosen on: the lowest that holds them all."""
        most = float((self._gaps / unit.tensor).max())
        grids = list(self._grids())
        holds = [one for one in grids if one.top * one.step - unit.rest >= most - one.step / 2]
        return min(holds or grids[-1:], key=lambda one: one.top)

    def _grids(self, least_below: float = 0.0) -> Iterator[PotentialGrid]:
        """The grids of potentials that are tried, with at least this part of the codes below."""
        membrane, threshold = self._tensors.get("v"), self._tensors.get("v_threshold")
        formats: dict[str, Format] = {}
        low = high = None
        step, top = 1.0, UNBOUNDED
        if membrane is not None:
            fmt = membrane.format
            if fmt is None:
                fmt = formats[membrane.path] = FixedPointFormat(membrane.word_length - 1, 0)
            assert isinstance(fmt, FixedPointFormat)  # resolve() refuses one per channel
            low, high, step, top = fmt.code_min, fmt.code_max, fmt.step, fmt.code_max
        coarse = 1
        if threshold is not None and threshold.format is None:
            length = threshold.word_length
            coarse = 1 << max(0, top.bit_length() - length)
            fraction = round(-math.log2(step * coarse))
            formats[threshold.path] = FixedPointFormat(length - fraction, fraction, signed=False)
        elif threshold is not None:
            assert isinstance(threshold.format, FixedPointFormat)
            coarse = max(1, round(threshold.format.step / step))
            top = min(top, int(threshold.format.max / step))
        if self._scaled.below:
            assert low is not None
            codes, last = top - low + 1, top // coarse * coarse
            shares = (one for one in SHARES_BELOW if one >= least_below)
            rests = {min(low + round(one * codes), last - 1) for one in shares}
            # Of equals, the one with most room for what calibration data has not shown.
            for rest in sorted(rests, reverse=True):
                yield PotentialGrid(rest, top, coarse, step, formats, low, high)
            return
        if top < 1:
            raise ValueError(
                f"{self._scaled.neuron}: a membrane of 1 bit holds no threshold above rest; write "
                "a word of at least 2 bits, or, for neurons with a hard reset, scale=free for the "
                "membrane, too"
            )
        counts = most_spikes(self._node)
        rooms = ROOM_ABOVE if reset_of(self._node) is None else (1,)
        found = {min(one * counts, max(top // coarse, 1)) for one in rooms}
        for room in sorted(found, reverse=True):
            yield PotentialGrid(0, top // room, coarse, step, formats, low, high)


class LayerUnits(LayerGrids):
    """The units that a layer of neurons may count in.

    Args:
        module: The network.
        plan: Resolved against it.
        scaled: The layer.

    Raises:
        ValueError: Values that are not finite; a threshold that no unit can hold.
    """

    @torch.no_grad()
    def __init__(self, module: nn.Module, plan: ResolvedPlan, scaled: Scaled) -> None:
        super().__init__(module, plan, scaled)
        self._held = held_parameters(module, plan.inventory.layer(scaled.synapse))
        value, counts = self._held["weight"]
        check_finite(self._weight, bool(torch.isfinite(value).all()))
        child = module.get_submodule(scaled.synapse)
        self._rows = _rows(child, value, counts, scaled.channels)

    def choices(self, learning: bool = False) -> list[UnitChoice]:
        """Some for each grid of potentials, the one with which weights lose least first.

        Args:
            learning: Whether the network will learn in these units.
        """
        found = []
        for grid in self._grids(LEAST_BELOW if learning else 0.0):
            tried = _distances(grid, len(self._rows))
            order = self._errors(tried).argsort(dim=0, stable=True)
            few = grid.top - grid.rest <= FEW_CODES
            for rank in order[: BEST if few else 1]:
                found.append(self.choice(grid, tried.gather(0, rank[None])[0]))
        return found

    def choice(self, grid: PotentialGrid, distances: Tensor) -> UnitChoice:
        """The unit with so many steps from rest to threshold, and the formats in it.

        Args:
            grid: Of the potentials.
            distances: Units from rest to threshold; ``[R]``.
        """
        unit = Unit(tuple((self._gaps / distances).tolist()), grid.rest * grid.step)
        formats = {self._weight.path: self._weight_format(distances), **grid.formats}
        bias = self._tensors.get("bias")
        if bias is not None and bias.format is None:
            value = self._held["bias"][0].double().cpu()
            formats[bias.path] = stored_format(bias, value / unit.tensor)
        return UnitChoice(unit, formats, grid, distances)

    def followed(self, unit: Unit) -> tuple[Unit, Format]:
        """The unit, and the format of weights in it, that suit weights which have moved.

        What lies at rest and the formats of potentials and thresholds stay; thresholds move by a
        factor of 1.5 at most, and only where weights lose clearly less then.

        Args:
            unit: The one in use, with the formats of the plan.
        """
        grid, held = self.grid_in_use(unit), self._gaps / unit.tensor
        tried = torch.stack([held, *(held * one for one in FACTORS)])
        distances = self.held_distances(tried, grid, unit.rest)
        errors = self._errors(distances)
        least = errors.min(0)
        chosen = torch.where(errors[0] <= NEARLY * least.values, 0, least.indices)
        distances = distances.gather(0, chosen[None])[0]
        scale = tuple((self._gaps / distances).tolist())
        return Unit(scale, unit.rest), self._weight_format(distances)

    def _errors(self, distances: Tensor) -> Tensor:
        """The squared errors of weights with so many units from rest to threshold.

        Args:
            distances: ``[tried, R]``.

        Returns:
            In the network's own potentials; ``[tried, R]``.
        """
        errors = []
        for tried in distances:
            scale = self._gaps / tried
            values = self._rows / scale[:, None]
            fmt = _format(values, self._weight)
            errors.append(squared_errors(values, fmt, self._weight.rounding) * scale**2)
        return torch.stack(errors)

    def _weight_format(self, distances: Tensor) -> Format:
        values = self._rows / (self._gaps / distances)[:, None]
        fmt = _format(values, self._weight)
        axis = self._weight.info.channel_axis
        if self._weight.settings.granularity == "channel" and axis is not None:
            return replace(fmt, axis=axis)
        return fmt.formats[0]


def threshold_gaps(node: Any, scaled: Scaled) -> Tensor:
    """How far the largest threshold, of the layer or of each channel, lies above rest; ``[R]``."""
    threshold: Any = threshold_of(node)
    values = torch.as_tensor(threshold, dtype=torch.float64).detach().cpu()
    values = values - (reset_of(node) or 0.0)
    axis = values.dim() + scaled.axis
    if scaled.channels == 1 or axis < 0:  # the same for all channels
        return values.max().expand(scaled.channels)
    each = values.movedim(axis, 0).reshape(values.shape[axis], -1).amax(1)
    return each.expand(scaled.channels)


def _distances(grid: PotentialGrid, rows: int) -> Tensor:
    """The numbers of units from rest to threshold that are tried first; ``[tried, R]``."""
    last = grid.top // grid.threshold_step * grid.threshold_step
    first = grid.rest + (last - grid.rest) // 2 + 1
    tried = [one for one in range(last, first - 1, -1) if one % grid.threshold_step == 0] or [last]
    tried = tried[:: -(-len(tried) // THRESHOLDS_TRIED)]
    distances = torch.tensor(tried, dtype=torch.float64) - grid.rest
    return (distances * grid.step)[:, None].repeat(1, rows)


def _format(rows: Tensor, weight: ResolvedTensor) -> PerChannelFormat:
    """The format of each row."""
    length, rounding, symmetric = weight.word_length, weight.rounding, weight.is_symmetric
    method = weight.settings.calibration or "mse"
    if len(rows) == 1:
        one = choose_format(rows, length, method, rounding, symmetric=symmetric)
        return PerChannelFormat(length, (one.fraction_bits,), symmetric=symmetric)
    return choose_channel_format(rows, 0, length, method, rounding, symmetric=symmetric)


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
