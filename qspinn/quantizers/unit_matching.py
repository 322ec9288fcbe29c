"""Chooses among the units of a layer of neurons by what they do to its spikes.

Potentials far below the threshold need not be told apart, so no error of values says where the
lower end of a membrane should lie; and what a unit does to the weights counts as well. As in
:mod:`qspinn.quantizers.matching`, some neurons run once in float and once per choice, side by
side, each with the currents that its own weights make of the inputs of the layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from qspinn.plan import ResolvedPlan
from qspinn.plan.neuron_constants import leak_of, reset_of, threshold_of
from qspinn.plan.units import Scaled, Unit
from qspinn.quantizers.folding import held_parameters
from qspinn.quantizers.matching import MEMORY, charged, fired, spread_over, watch_currents
from qspinn.quantizers.neuron_formats import on_grid
from qspinn.quantizers.stored_format import quantizer_of
from qspinn.quantizers.synapse import input_of
from qspinn.quantizers.units import LayerUnits, PotentialGrid, UnitChoice


def with_choices(plan: ResolvedPlan, choices: Mapping[str, UnitChoice]) -> ResolvedPlan:
    """The plan with these units, and the formats that go with them."""
    for path, choice in choices.items():
        plan = plan.with_units({path: choice.unit}).with_formats(choice.formats)
    return plan


@dataclass(frozen=True)
class _Constants:
    """Of the neurons that are tried: one row for each choice, but for the leak of the first.

    Attributes:
        scale: ``[choices, n]``.
        threshold: In units; ``[choices, n]``.
        rest: In units; ``[choices, 1]``.
        leak: On its grid; ``[n]``.
        exact: Threshold and leak in float; ``[n]``.
    """

    scale: Tensor
    threshold: Tensor
    rest: Tensor
    leak: Tensor | None
    exact: tuple[Tensor, Tensor | None]


@dataclass
class _Call:
    """What synapses got and put out, and whether their neurons have taken it."""

    x: Tensor
    sums: Tensor  # held, so that nothing else is computed in its place
    taken: bool = False


def _place(sums: Tensor) -> int:
    return sums.untyped_storage().data_ptr()


class UnitMatcher:
    """A layer's neurons in float, and once per unit.

    Args:
        module: The network, no quantizers attached.
        plan: Resolved against it.
        scaled: The layer.
        learning: Whether the network will learn in these units.

    Attributes:
        choices: The units.
    """

    def __init__(
        self, module: nn.Module, plan: ResolvedPlan, scaled: Scaled, learning: bool
    ) -> None:
        self._node: Any = module.get_submodule(scaled.neuron)
        self._synapse: Any = module.get_submodule(scaled.synapse)
        self.synapse = scaled.synapse
        self._layer, self._scaled = plan.inventory.layer(scaled.neuron), scaled
        self._tensors = plan.of_layer(scaled.neuron)
        self._units = LayerUnits(module, plan, scaled)
        self.choices = tuple(self._units.choices(learning))
        self._held_by = list(_rounded(module, plan, scaled, self.choices))
        self._errors = torch.zeros(len(self.choices), scaled.channels, dtype=torch.float64)
        self._calls: dict[int, _Call] = {}
        self._channels = torch.zeros(0, dtype=torch.int64)
        self._shape: torch.Size | None = None
        self._constants: _Constants | None = None
        self._potentials = self._exact = self._difference = torch.zeros(())

    @property
    def middle(self) -> UnitChoice:
        """The unit that calibration data is looked at with."""
        return self.choices[len(self.choices) // 2]

    def best(self) -> UnitChoice:
        """The unit that changes spikes least: of the grids of potentials with the best channels."""
        by_rest: dict[PotentialGrid, list[int]] = {}
        for number, one in enumerate(self.choices):
            by_rest.setdefault(one.grid, []).append(number)
        found = []
        for grid, numbers in by_rest.items():
            least = self._errors[numbers].min(0)
            found.append((float(least.values.sum()), grid, numbers, least.indices))
        _, grid, numbers, chosen = min(found, key=lambda one: one[0])
        distances = torch.stack([self.choices[number].distances for number in numbers])
        return self._units.choice(grid, distances.gather(0, chosen[None])[0])

    def see_sums(self, x: Tensor, sums: Tensor) -> None:
        """Takes in a call of the synapses: what they got, and what they put out."""
        if all(call.taken for call in self._calls.values()):
            self._calls.clear()
        self._calls[_place(sums)] = _Call(x.detach(), sums.detach())

    def see(self, current: Tensor, step_mode: str) -> None:
        """Takes in a step ``[N, *]``, or a sequence ``[T, N, *]``, of what reaches the neurons."""
        shape = current.shape if step_mode == "m" else torch.Size([1, *current.shape])
        chosen = spread_over(math.prod(shape[1:]), current.device)
        if self._shape != shape[1:]:
            self._shape = shape[1:]
            self._constants = self._made(chosen)
            self._channels = self._of_neurons(self._numbered(), chosen).long().cpu()
            self._begin()
        elif not isinstance(self._node.v, Tensor):
            self._begin()
        call = self._calls.get(_place(current))
        if call is None:
            exact, currents = self._same_for_all(current.detach(), shape, chosen)
        else:
            call.taken = True
            exact, *each = (self._made_of(call.x, one, shape, chosen) for one in self._held_by)
            currents = torch.stack(each, 1)
        for one, others in zip(exact, currents, strict=True):
            self._step(one, others)

    def _same_for_all(
        self, current: Tensor, shape: torch.Size, chosen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Currents of which is not known what they were made of: as those of the middle choice.

        Returns:
            In float ``[T, n]``, and in the units of each choice ``[T, choices, n]``.
        """
        assert self._constants is not None
        scale = self._constants.scale
        exact = current.double().reshape(shape[0], -1)[:, chosen] * scale[len(scale) // 2]
        return exact, exact[:, None] / scale

    def _made_of(
        self,
        x: Tensor,
        parameters: tuple[Tensor, Tensor | None],
        shape: torch.Size,
        chosen: Tensor,
    ) -> Tensor:
        """What these parameters make of an input, for the chosen neurons: ``[T, n]``."""
        weight, bias = parameters
        with torch.autocast(x.device.type, enabled=False):
            y = self._synapse.computed(x.to(weight), weight, bias)
        if y.numel() == math.prod(shape[1:]):  # an image that stays, for all steps
            return y.reshape(1, -1)[:, chosen].double().expand(shape[0], -1)
        return y.reshape(shape[0], -1)[:, chosen].double()

    def _begin(self) -> None:
        assert self._constants is not None
        constants = self._constants
        self._exact = torch.zeros_like(constants.exact[0])  # relative to rest
        self._potentials = constants.rest.expand_as(constants.scale).clone()
        self._difference = torch.zeros_like(constants.scale)

    def _made(self, chosen: Tensor) -> _Constants:
        """The constants of the chosen neurons."""

        def of_neurons(values: Tensor) -> Tensor:
            return self._of_neurons(values.detach().double(), chosen)

        def of_channels(unit: Unit) -> Tensor:
            return of_neurons(unit.tensor.reshape(self._numbered().shape))

        node, rest = self._node, reset_of(self._node) or 0.0
        threshold: Any = threshold_of(node)
        gap = of_neurons(torch.as_tensor(threshold) - rest)
        scale = torch.stack([of_channels(one.unit) for one in self.choices])
        rests = torch.tensor([[one.unit.rest] for one in self.choices], dtype=torch.float64)
        rests = rests.to(chosen.device)
        steps = [self._threshold_step(one) for one in self.choices]
        step = torch.tensor(steps, dtype=torch.float64, device=chosen.device)[:, None]
        thresholds = gap / scale + rests
        thresholds = torch.where(step > 0, (thresholds / step).round() * step, thresholds)
        leak = held = None
        if self._layer.model.leaks:
            leak = torch.as_tensor(leak_of(node), dtype=torch.float64).detach()
            decay, held = self._tensors.get("decay"), leak
            if decay is not None and decay.format is not None:
                held = on_grid(decay, decay.format, leak.cpu().reshape(-1)).reshape(leak.shape)
            leak, held = of_neurons(leak), of_neurons(held)
        return _Constants(scale, thresholds, rests, held, (gap, leak))

    def _of_neurons(self, values: Tensor, chosen: Tensor) -> Tensor:
        """One value for each chosen neuron, of values that broadcast over the potentials."""
        assert self._shape is not None
        return values.to(chosen.device).broadcast_to(self._shape).reshape(-1)[chosen]

    def _numbered(self) -> Tensor:
        """The number of each channel, as it broadcasts over the potentials."""
        channels = self._scaled.channels
        ones = [1] * (-self._scaled.axis - 1) if channels > 1 else []
        return torch.arange(channels).reshape(-1, *ones)

    def _threshold_step(self, choice: UnitChoice) -> float:
        tensor = self._tensors.get("v_threshold")
        if tensor is None:
            return 0.0
        fmt: Any = choice.formats.get(tensor.path, tensor.format)
        step: float = fmt.step
        return step

    def _step(self, exact: Tensor, currents: Tensor) -> None:
        """One step: of the float neurons on ``[n]``, of each choice on its row of ``[choices, n]``.

        The second are in units.
        """
        assert self._constants is not None
        constants = self._constants
        threshold, leak = constants.exact
        of = self._node, self._layer.model
        # Potentials above rest, so that one formula serves all rests.
        above = charged(*of, exact, self._exact, leak, 0.0)
        spikes, self._exact = fired(*of, above, threshold, 0.0)
        above = charged(*of, currents, self._potentials - constants.rest, constants.leak, 0.0)
        potentials = self._held(above + constants.rest)
        others, left = fired(*of, potentials, constants.threshold, constants.rest)
        self._potentials = self._held(left)
        self._difference = MEMORY * self._difference + (others - spikes)
        self._errors.index_add_(1, self._channels, self._difference.square().cpu())

    def _held(self, potentials: Tensor) -> Tensor:
        """Potentials as the membrane of each choice holds them."""
        rows = []
        for row, one in zip(potentials, self.choices, strict=True):
            grid = one.grid
            if grid.low is not None:
                row = (row / grid.step + 0.5).floor().clamp(grid.low, grid.high) * grid.step
            rows.append(row)
        return torch.stack(rows)


def unit_matchers(module: nn.Module, plan: ResolvedPlan, learning: bool) -> dict[str, UnitMatcher]:
    """One for each layer of neurons that counts in a unit of its own: path -> matcher."""
    return {path: UnitMatcher(module, plan, one, learning) for path, one in plan.scaled.items()}


def watch_units(matchers: Mapping[str, UnitMatcher], module: nn.Module) -> list[Any]:
    """Lets every matcher see what its layer gets; returns handles to end that."""
    handles = []
    for path, matcher in matchers.items():

        def see_sums(
            layer: Any, args: Any, kwargs: Any, sums: Tensor, matcher: UnitMatcher = matcher
        ) -> None:
            matcher.see_sums(input_of(args, kwargs)[0], sums)

        synapse = module.get_submodule(matcher.synapse)
        handles.append(synapse.register_forward_hook(see_sums, with_kwargs=True))
        handles.append(watch_currents(module.get_submodule(path), matcher.see))
    return handles


def _rounded(
    module: nn.Module, plan: ResolvedPlan, scaled: Scaled, choices: Sequence[UnitChoice]
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Weight and bias of the synapses: in float, and as each choice has them, in its units."""
    layer, tensors = plan.inventory.layer(scaled.synapse), plan.of_layer(scaled.synapse)
    exact = held_parameters(module, layer)
    yield exact["weight"][0], exact["bias"][0] if "bias" in exact else None
    for choice in choices:
        held = held_parameters(module, layer, choice.unit.tensor)
        found: dict[str, Tensor] = {}
        for name, (value, _) in held.items():
            tensor = tensors.get(name)
            if tensor is not None:
                fmt = choice.formats.get(tensor.path, tensor.format)
                value = quantizer_of(replace(tensor, format=fmt)).stored(value, training=False)
            found[name] = value
        yield found["weight"], found.get("bias")
