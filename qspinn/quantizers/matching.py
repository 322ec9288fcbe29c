"""Chooses a membrane's format by what it does to the spikes, on the currents of calibration data.

The squared error of potentials says little where they go far below the threshold: a range that
covers them leaves few steps between rest and threshold, where it is decided what fires. So each
candidate is tried: some neurons of the layer run once in float and once per candidate, side by
side, on the currents that reach the layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from qspinn.fixed_point import FixedPointFormat, PerChannelFormat, quantize
from qspinn.plan import LayerInfo, ResolvedPlan
from qspinn.plan.neuron_constants import has_threshold, leak_of, reset_of, threshold_of
from qspinn.plan.neurons import most_spikes
from qspinn.quantizers.charge import exact_step
from qspinn.quantizers.choose_format import covering_format
from qspinn.quantizers.neuron_formats import (
    Tensors,
    on_grid,
    step_to_tell_apart,
    threshold_format,
    threshold_to_hold,
)
from qspinn.quantizers.observer import stride
from qspinn.steps.lowering import LeakyNumbers
from qspinn.steps.models import NeuronModel
from qspinn.steps.neurons import counted, reset_by, reset_to

MOST_NEURONS = 4096
"""Of a layer and batch, that are tried."""
MEMORY = 0.99
"""What a step leaves of the difference in spikes: a spike some steps late weighs little, one that
is missing or too much weighs for long."""


class SpikeMatcher:
    """A layer's neurons in float, and once per candidate format of their membrane.

    Args:
        node: The neuron layer.
        layer: What the plan knows of it; its charge has a formula.
        tensors: Its quantised tensors; the leak has its format, the membrane none.
    """

    def __init__(self, node: Any, layer: LayerInfo, tensors: Tensors) -> None:
        self._node, self._model, self._tensors = node, layer.model, tensors
        self._membrane = tensors["v"]
        self.candidates = _candidates(node, tensors)
        self.errors = torch.zeros(len(self.candidates), dtype=torch.float64)
        self._grid = PerChannelFormat(
            self._membrane.word_length, tuple(one.fraction_bits for one in self.candidates), axis=0
        )
        self._potentials: Tensor | None = None
        self._difference = torch.zeros(())
        self._shape: torch.Size | None = None
        self._exact: list[Tensor | None] = []
        self._on_grids: list[Tensor | None] = []

    def see(self, current: Tensor, step_mode: str) -> None:
        """Takes in the current of one step ``[N, *]``, or of a sequence ``[T, N, *]``."""
        sequence = current.detach() if step_mode == "m" else current.detach().unsqueeze(0)
        chosen = spread_over(sequence[0].numel(), sequence.device)
        fresh = not isinstance(self._node.v, Tensor)
        if fresh or self._potentials is None or self._potentials.shape[1] != len(chosen):
            self._begin(len(chosen), sequence.device)
        if self._shape != sequence.shape[1:]:
            self._shape = sequence.shape[1:]
            self._exact, self._on_grids = self._constants(self._shape, chosen)
        for step in sequence.double().flatten(1)[:, chosen]:
            self._step(step)

    def best(self, like: FixedPointFormat) -> FixedPointFormat:
        """The candidate that changes least; of equals the one closest to ``like``.

        ``like`` itself where no candidate changes more than another, as in a readout that never
        fires: there the potential counts, and the spikes say nothing about it.
        """
        errors = self.errors.tolist()
        if min(errors) == max(errors):
            return like
        distance = [abs(one.fraction_bits - like.fraction_bits) for one in self.candidates]
        order = sorted(range(len(errors)), key=lambda i: (errors[i], distance[i]))
        return self.candidates[order[0]]

    def _begin(self, neurons: int, device: torch.device) -> None:
        given = self._node.v
        start = float(given) if isinstance(given, int | float) else 0.0
        potentials = torch.full((1 + len(self.candidates), neurons), start, dtype=torch.float64)
        self._potentials = potentials.to(device)
        self._potentials[1:] = self._rounded(self._potentials[1:])
        self._difference = torch.zeros_like(self._potentials[1:])

    def _rounded(self, potentials: Tensor) -> Tensor:
        rounding = self._membrane.rounding
        rounding = "nearest" if rounding == "stochastic" else rounding
        return quantize(potentials, self._grid, rounding, self._membrane.overflow)

    def _constants(
        self, shape: torch.Size, chosen: Tensor
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """Leak and threshold of the chosen neurons: in float, and per candidate on their grids."""

        def spread(value: float | Tensor, like: Tensor | None = None) -> Tensor:
            held = torch.as_tensor(value, dtype=torch.float64).detach()
            held = held if like is None else like.reshape(held.shape)
            return held.to(chosen.device).broadcast_to(shape).reshape(-1)[chosen]

        threshold: Any = threshold_of(self._node)
        values = torch.as_tensor(threshold, dtype=torch.float64).detach().cpu().reshape(-1)
        rows = [spread(threshold, self._threshold_in(one, values)) for one in self.candidates]
        if not self._model.leaks:
            return [None, spread(threshold)], [None, torch.stack(rows)]
        leak, decay = leak_of(self._node), self._tensors.get("decay")
        held = torch.as_tensor(leak, dtype=torch.float64).detach().cpu().reshape(-1)
        if decay is not None and decay.format is not None:
            held = on_grid(decay, decay.format, held)
        return [spread(leak), spread(threshold)], [spread(leak, held), torch.stack(rows)]

    def _threshold_in(self, candidate: FixedPointFormat, values: Tensor) -> Tensor:
        """The thresholds as the layer has them with a membrane of this format."""
        threshold = self._tensors.get("v_threshold")
        if threshold is None:
            return values
        held = {**self._tensors, "v": replace(self._membrane, format=candidate)}
        fmt = threshold.format or threshold_format(self._node, held)[threshold.path]
        return on_grid(threshold, fmt, values)

    def _step(self, current: Tensor) -> None:
        assert self._potentials is not None
        exact, on_grids = self._exact, self._on_grids
        spikes, left = self._fired(self._charged(current, self._potentials[:1], exact[0]), exact[1])
        potentials = self._rounded(self._charged(current, self._potentials[1:], on_grids[0]))
        others, remaining = self._fired(potentials, on_grids[1])
        self._potentials = torch.cat([left, self._rounded(remaining)])
        self._difference = MEMORY * self._difference + (others - spikes)
        self.errors += self._difference.square().sum(1).to(self.errors.device)

    def _charged(self, current: Tensor, potentials: Tensor, leak: Tensor | None) -> Tensor:
        rest = reset_of(self._node) or 0.0
        return charged(self._node, self._model, current, potentials, leak, rest)

    def _fired(self, potentials: Tensor, threshold: Tensor | None) -> tuple[Tensor, Tensor]:
        assert threshold is not None
        return fired(self._node, self._model, potentials, threshold, reset_of(self._node))


def charged(
    node: Any,
    model: NeuronModel,
    current: Tensor,
    potentials: Tensor,
    leak: Tensor | None,
    rest: float,
) -> Tensor:
    """Potentials after a step of a layer's charge, exact.

    Args:
        node: The neuron layer.
        model: Of its kind.
        current: Broadcasts over the potentials, as the leak does.
        potentials: Before it, float64.
        leak: 1 / tau; None for a neuron without a leak.
        rest: The potential that the leak pulls towards.
    """
    step = model.step(bool(getattr(node, "decay_input", True)))
    return exact_step(step, current, potentials, LeakyNumbers(leak=leak, rest=rest), torch.float64)


def fired(
    node: Any, model: NeuronModel, potentials: Tensor, threshold: Tensor, reset: Any
) -> tuple[Tensor, Tensor]:
    """Spikes, and potentials after them.

    Args:
        node: The neuron layer; it says whether the reset is hard.
        model: Of its kind.
        potentials: After the charge, float64.
        threshold: Broadcasts over them, as the reset does.
        reset: The potential that a hard reset sets.
    """
    spikes = (potentials >= threshold).double()
    if model.counts:
        spikes = counted(potentials, threshold, most_spikes(node))
    if reset_of(node) is None:
        return spikes, reset_by(potentials, spikes, threshold)
    return spikes, reset_to(potentials, spikes > 0, reset)


def spike_matchers(module: nn.Module, plan: ResolvedPlan) -> dict[str, SpikeMatcher]:
    """One for each membrane whose format is still to be chosen by its spikes: path -> matcher."""
    found = {}
    for layer in plan.inventory.layers:
        tensors = plan.of_layer(layer.path)
        membrane = tensors.get("v")
        if membrane is None or membrane.format is not None or not layer.model.is_exact:
            continue
        node = module.get_submodule(layer.path)
        if membrane.settings.calibration != "spikes" or not has_threshold(node):
            continue
        if _candidates(node, tensors):
            found[membrane.path] = SpikeMatcher(node, layer, tensors)
    return found


def watch(matchers: dict[str, SpikeMatcher], module: nn.Module) -> list[Any]:
    """Lets every matcher see the currents of its layer; returns handles to end that."""
    return [
        watch_currents(module.get_submodule(path.rpartition(".")[0]), matcher.see)
        for path, matcher in matchers.items()
    ]


def watch_currents(node: Any, see: Callable[[Tensor, str], None]) -> Any:
    """Shows each current of a neuron layer and its step mode; returns a handle to end that."""

    def before(node: Any, args: Any, kwargs: Any) -> None:
        see(args[0] if args else next(iter(kwargs.values())), getattr(node, "step_mode", "s"))

    return node.register_forward_pre_hook(before, with_kwargs=True)


def _candidates(node: Any, tensors: Tensors) -> tuple[FixedPointFormat, ...]:
    """The ranges that hold the threshold, from the smallest on, with steps that resolve it."""
    length = tensors["v"].word_length
    least, longest = threshold_to_hold(node, tensors), step_to_tell_apart(node)
    first = covering_format(least, length, signed=True) if least > 0.0 else None
    if first is None or math.isinf(longest):
        return ()
    if first.max < least:
        first = FixedPointFormat(first.integer_bits + 1, first.fraction_bits - 1)
    wider = (
        FixedPointFormat(first.integer_bits + more, first.fraction_bits - more)
        for more in range(length)
    )
    return tuple(one for one in wider if one.step <= longest)


def spread_over(count: int, device: torch.device) -> Tensor:
    """Indices of at most :data:`MOST_NEURONS` of ``count`` neurons, all over them."""
    # No channel or column is hit or missed throughout.
    return torch.arange(0, count, stride(count, MOST_NEURONS), device=device)
