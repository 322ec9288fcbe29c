"""Chooses among the units of a layer of neurons by what they do to its spikes.

Potentials far below the threshold need not be told apart, so no error of values says where the
lower end of a membrane should lie. As in :mod:`qspinn.quantizers.matching`, some neurons run once
in float and once per choice, side by side, on the currents that reach the layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qspinn.plan import LayerInfo, ResolvedPlan
from qspinn.plan.neuron_constants import leak_of, reset_of, threshold_of
from qspinn.plan.neurons import most_spikes
from qspinn.plan.units import Scaled
from qspinn.quantizers.charge import exact_step
from qspinn.quantizers.matching import MEMORY, spread_over
from qspinn.quantizers.neuron_formats import Tensors, on_grid
from qspinn.quantizers.units import UnitChoice
from qspinn.steps.lowering import LeakyNumbers
from qspinn.steps.neurons import counted, reset_by, reset_to


def middle(choices: Sequence[UnitChoice]) -> UnitChoice:
    """The choice that calibration data is looked at with."""
    return choices[len(choices) // 2]


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
        attached: The scale of the unit that currents come in; ``[n]``.
        exact: Threshold and leak in float; ``[n]``.
    """

    scale: Tensor
    threshold: Tensor
    rest: Tensor
    leak: Tensor | None
    attached: Tensor
    exact: tuple[Tensor, Tensor | None]


class UnitMatcher:
    """A layer's neurons in float, and once per unit.

    Args:
        node: The neuron layer.
        layer: What the plan knows of it; its charge has a formula.
        scaled: Its channels.
        tensors: Its quantised tensors.
        choices: The units; currents come in that of the :func:`middle`.
    """

    def __init__(
        self,
        node: Any,
        layer: LayerInfo,
        scaled: Scaled,
        tensors: Tensors,
        choices: Sequence[UnitChoice],
    ) -> None:
        self._node, self._layer, self._scaled, self._tensors = node, layer, scaled, tensors
        self.choices = tuple(choices)
        self.errors = torch.zeros(len(choices), dtype=torch.float64)
        self._shape: torch.Size | None = None
        self._constants: _Constants | None = None
        self._potentials = self._exact = self._difference = torch.zeros(())

    def best(self) -> UnitChoice:
        """The unit that changes spikes least; of equals, the one closest to the middle."""
        errors = self.errors.tolist()
        centre = len(errors) // 2
        return self.choices[min(range(len(errors)), key=lambda i: (errors[i], abs(i - centre)))]

    def see(self, current: Tensor, step_mode: str) -> None:
        """Takes in the current of one step ``[N, *]``, or of a sequence ``[T, N, *]``, in units."""
        sequence = current.detach() if step_mode == "m" else current.detach().unsqueeze(0)
        chosen = spread_over(sequence[0].numel(), sequence.device)
        if self._shape != sequence.shape[1:]:
            self._shape = sequence.shape[1:]
            self._constants = self._made(chosen)
            self._begin()
        elif not isinstance(self._node.v, Tensor):
            self._begin()
        for step in sequence.double().flatten(1)[:, chosen]:
            self._step(step)

    def _begin(self) -> None:
        assert self._constants is not None
        constants = self._constants
        self._exact = torch.zeros_like(constants.exact[0])  # relative to rest
        self._potentials = constants.rest.expand_as(constants.scale).clone()
        self._difference = torch.zeros_like(constants.scale)

    def _made(self, chosen: Tensor) -> _Constants:
        """The constants of the chosen neurons."""
        shape = self._shape
        assert shape is not None

        def of_neurons(values: Tensor) -> Tensor:
            held = values.detach().double().to(chosen.device)
            return held.broadcast_to(shape).reshape(-1)[chosen]

        def of_channels(values: tuple[float, ...]) -> Tensor:
            ones = [1] * (-self._scaled.axis - 1) if len(values) > 1 else []
            return of_neurons(torch.tensor(values, dtype=torch.float64).reshape(-1, *ones))

        node, rest = self._node, reset_of(self._node) or 0.0
        threshold: Any = threshold_of(node)
        gap = of_neurons(torch.as_tensor(threshold) - rest)
        scale = torch.stack([of_channels(one.unit.scale) for one in self.choices])
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
        attached = of_channels(middle(self.choices).unit.scale)
        return _Constants(scale, thresholds, rests, held, attached, (gap, leak))

    def _threshold_step(self, choice: UnitChoice) -> float:
        tensor = self._tensors.get("v_threshold")
        if tensor is None:
            return 0.0
        fmt: Any = choice.formats.get(tensor.path, tensor.format)
        step: float = fmt.step
        return step

    def _step(self, current: Tensor) -> None:
        assert self._constants is not None
        constants = self._constants
        real = current * constants.attached
        threshold, leak = constants.exact
        spikes, self._exact = self._fired(self._charged(real, self._exact, leak, 0.0), threshold, 0)
        # Potentials above rest, so that one formula serves all rests.
        above = self._potentials - constants.rest
        charged = self._charged(real / constants.scale, above, constants.leak, 0.0)
        potentials = self._held(charged + constants.rest)
        others, left = self._fired(potentials, constants.threshold, constants.rest)
        self._potentials = self._held(left)
        self._difference = MEMORY * self._difference + (others - spikes)
        self.errors += self._difference.square().sum(1).to(self.errors.device)

    def _held(self, potentials: Tensor) -> Tensor:
        """Potentials as the membrane of each choice holds them."""
        rows = []
        for row, one in zip(potentials, self.choices, strict=True):
            if one.low is not None:
                codes = (row / one.step + 0.5).floor().clamp(one.low, one.high)
                row = codes * one.step
            rows.append(row)
        return torch.stack(rows)

    def _charged(self, current: Tensor, above: Tensor, leak: Tensor | None, rest: float) -> Tensor:
        step = self._layer.model.step(bool(getattr(self._node, "decay_input", True)))
        return exact_step(step, current, above, LeakyNumbers(leak=leak, rest=rest), torch.float64)

    def _fired(self, potentials: Tensor, threshold: Tensor, rest: Any) -> tuple[Tensor, Tensor]:
        spikes = (potentials >= threshold).double()
        if self._layer.model.counts:
            spikes = counted(potentials, threshold, most_spikes(self._node))
        if reset_of(self._node) is None:
            return spikes, reset_by(potentials, spikes, threshold)
        return spikes, reset_to(potentials, spikes > 0, rest)


def unit_matchers_of(
    module: nn.Module, plan: ResolvedPlan, units: Mapping[str, Sequence[UnitChoice]]
) -> dict[str, UnitMatcher]:
    """One for each layer of neurons with several units to choose from: path -> matcher."""
    return {
        path: UnitMatcher(
            module.get_submodule(path),
            plan.inventory.layer(path),
            plan.scaled[path],
            plan.of_layer(path),
            choices,
        )
        for path, choices in units.items()
        if len(choices) > 1
    }


def watch_units(matchers: Mapping[str, UnitMatcher], module: nn.Module) -> list[Any]:
    """Lets every matcher see the currents of its layer; returns handles to end that."""
    handles = []
    for path, matcher in matchers.items():

        def see(node: Any, args: Any, kwargs: Any, matcher: UnitMatcher = matcher) -> None:
            current = args[0] if args else next(iter(kwargs.values()))
            matcher.see(current, getattr(node, "step_mode", "s"))

        handle = module.get_submodule(path).register_forward_pre_hook(see, with_kwargs=True)
        handles.append(handle)
    return handles
