"""Step sizes that an optimizer learns, as the formats and units of a plan that is in use.

What learns is the binary logarithm of the step of each weight tensor, or of each of its channels,
and of each membrane that has a step of its own. Where a layer of neurons counts in a unit of its
own, the steps of its potentials and of its weights are the same number, but for a power of two, so
that both teach it. A plan holds only formats and units; after each change of a step it gets those
that come nearest to it, so that a network always computes what a device would.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from qspinn.fixed_point import FixedPointFormat, LearnedStep
from qspinn.plan import ResolvedPlan, ResolvedTensor
from qspinn.plan.units import Scaled
from qspinn.quantizers.attach import plan_of, reattach
from qspinn.quantizers.class_swap import attached_quantizer
from qspinn.quantizers.learned_formats import (
    count_of,
    largest_code,
    logarithms,
    with_membrane,
    with_unit,
    with_weights,
)
from qspinn.quantizers.looking import is_open
from qspinn.quantizers.neuron import NeuronQuantizer, QuantizedNode
from qspinn.quantizers.units import LayerGrids

KINDS = ("weight", "membrane")
"""The roles of what steps are learned of."""


def as_kinds(given: object, place: str) -> tuple[str, ...]:
    """The roles whose steps are learned, from text such as ``"weight+membrane"``; () for none.

    Raises:
        ValueError: Something else, with its place.
    """
    if given in (None, "none", ()):
        return ()
    names = given.split("+") if isinstance(given, str) else given
    if isinstance(names, list | tuple) and names and set(names) <= set(KINDS):
        return tuple(one for one in KINDS if one in names)
    raise ValueError(f"{place}={given!r}; write none, weight, membrane or weight+membrane")


@dataclass
class _Learned:
    """One step, or one for each channel.

    Attributes:
        tensor: Path of the weight or the membrane that has it.
        layer: Path of its layer.
        log2: Binary logarithm, ``[R]``.
        unit: The layer of neurons that counts in it; ``None``: none does.
    """

    tensor: str
    layer: str
    log2: nn.Parameter
    unit: Scaled | None

    def of(self, plan: ResolvedPlan) -> ResolvedTensor:
        """What a plan says of the tensor."""
        return next(t for t in plan.of_layer(self.layer).values() if t.path == self.tensor)


class LearnedSteps:
    """The steps of an attached network that an optimizer learns.

    With ``optimizer.add_param_group({"params": steps.parameters(), "weight_decay": 0.0})``, and
    :meth:`follow` after each step of the optimizer, a network learns its weights and the steps
    that they are held in.

    Args:
        module: With quantizers attached, by :func:`qspinn.quantizers.attach`.
        kinds: Whose steps: ``"weight"``, ``"membrane"``, or both, joined by ``"+"`` or in a list.

    Attributes:
        kinds: As given, a tuple.
        failures: Layer -> why its formats could not follow its steps; those in use stay.

    Raises:
        ValueError: A module without quantizers, or without any step that the plan leaves open.
    """

    def __init__(self, module: nn.Module, kinds: str | Sequence[str] = KINDS) -> None:
        self.kinds = as_kinds(kinds, "LearnedSteps: kinds")
        self.failures: dict[str, str] = {}
        plan = plan_of(module)
        self._steps = {one.tensor: one for one in self._of(module, plan)}
        if not self._steps:
            raise ValueError(
                "LearnedSteps: the plan leaves no step of "
                f"{' or '.join(self.kinds) or 'anything'} open, so there is none to learn; give "
                "weights or membranes a word_length in place of a format, or learn no steps"
            )
        # The largest threshold that may be taken, in units above rest, of each layer that has some.
        self._highest: dict[str, float] = {}
        for one in self._steps.values():
            if one.unit is not None:
                unit = plan.units[one.unit.neuron]
                grid = LayerGrids(module, plan, one.unit).grid_in_use(unit)
                coarse = grid.threshold_step
                highest = grid.top // coarse * coarse * grid.step - unit.rest
                self._highest[one.tensor] = highest
        self.give(module)

    def parameters(self) -> list[nn.Parameter]:
        """What an optimizer is to learn, without weight decay."""
        return [one.log2 for one in self._steps.values()]

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Path of the weight or the membrane -> the logarithm of its step."""
        for path, one in self._steps.items():
            yield path, one.log2

    @property
    def paths(self) -> frozenset[str]:
        """The tensors whose formats are learned."""
        return frozenset(self._steps)

    def layer_of(self, path: str) -> str:
        """The layer that a step belongs to."""
        return self._steps[path].layer

    def give(self, module: nn.Module) -> None:
        """Lets the quantizers of a module, attached anew, compute gradients of the steps."""
        plan = plan_of(module)
        for one in self._steps.values():
            quantizer = attached_quantizer(module.get_submodule(one.layer))
            tensor = one.of(plan)
            count = count_of(tensor) // one.log2.numel()
            if isinstance(quantizer, NeuronQuantizer):
                gain = LearnedStep.gain_of(count, largest_code(tensor))
                quantizer.states[tensor.info.name].step = LearnedStep(one.log2, gain)
                continue
            if "weight" in self.kinds:
                gain = LearnedStep.gain_of(count, largest_code(tensor))
                quantizer.weight.step = LearnedStep(one.log2, gain)
            if one.unit is not None and "membrane" in self.kinds:
                self._give_unit(module, plan, one)

    def follow(self, module: nn.Module) -> ResolvedPlan:
        """Gives a module, between two batches, the formats that are nearest to the steps now.

        Returns:
            The plan with them.

        Raises:
            ValueError: As :func:`qspinn.quantizers.attach`.
        """
        before = plan_of(module)
        plan = self.followed(module, before)
        if plan != before:
            reattach(module, plan)
            self.give(module)
        return plan

    @torch.no_grad()
    def followed(self, module: nn.Module, plan: ResolvedPlan) -> ResolvedPlan:
        """The plan with the formats and units that are nearest to the steps as they are now.

        A layer that cannot have them keeps its own, and is among the failures.
        """
        values = torch.cat([one.log2 for one in self._steps.values()]).double().cpu()
        now = values.split([one.log2.numel() for one in self._steps.values()])
        for one, log2 in zip(self._steps.values(), now, strict=True):
            try:
                if not bool(torch.isfinite(log2).all()):
                    raise ValueError(
                        f"{one.tensor}: its learned step is not finite; the network has diverged"
                    )
                changed = self._changed(module, plan, one, log2)
            except ValueError as error:
                self.failures.setdefault(one.layer, str(error))
                continue
            plan = plan if changed is None else changed
            self._bound(one, plan, log2)
        return plan

    def state_dict(self) -> dict[str, Any]:
        """The steps, as plain types."""
        return {
            "log2": {path: one.log2.tolist() for path, one in self._steps.items()},
            "highest": dict(self._highest),
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state_dict`, for the steps of a network with the same plan.

        Raises:
            ValueError: Other steps.
        """
        for path, values in state["log2"].items():
            if path not in self._steps or self._steps[path].log2.numel() != len(values):
                raise ValueError(
                    f"LearnedSteps: {path}: {len(values)} steps were saved of it, and this "
                    "network learns others; give it the plan that it was trained with"
                )
            self._steps[path].log2.copy_(torch.tensor(values))
        self._highest = dict(state["highest"])

    def _of(self, module: nn.Module, plan: ResolvedPlan) -> Iterator[_Learned]:
        shared = {info.tied_to for info in plan.inventory.tensors()}
        counted = {one.synapse: one for one in plan.scaled.values()}
        for layer in plan.inventory.layers:
            tensors = plan.of_layer(layer.path)
            name = {"synapse": "weight", "neuron": "v"}.get(layer.kind, "")
            tensor = tensors.get(name)
            if tensor is None or not is_open(tensor) or tensor.role not in KINDS:
                continue
            if tensor.info.tied_to is not None or tensor.path in shared:
                continue
            unit = counted.get(layer.path)
            if layer.kind == "neuron" and layer.path in plan.scaled:
                continue  # its step is that of the weights
            if tensor.role in self.kinds or (unit is not None and self.kinds):
                log2 = logarithms(tensor, None if unit is None else plan.units[unit.neuron])
                like = next(module.parameters(), log2)
                yield _Learned(
                    tensor.path, layer.path, nn.Parameter(log2.float().to(like.device)), unit
                )

    def _give_unit(self, module: nn.Module, plan: ResolvedPlan, one: _Learned) -> None:
        assert one.unit is not None
        node = module.get_submodule(one.unit.neuron)
        quantizer = attached_quantizer(node)
        membrane = plan.of_layer(one.unit.neuron).get("v")
        # Of others, surrogate gradients are not in the network's own potentials.
        if membrane is None or not isinstance(node, QuantizedNode) or quantizer.unit is None:
            return
        rest, fmt = plan.units[one.unit.neuron].rest, membrane.format
        assert isinstance(fmt, FixedPointFormat)
        above = round((fmt.max - rest) / fmt.step)
        gain = LearnedStep.gain_of(count_of(membrane) // one.log2.numel(), above)
        quantizer.unit = replace(quantizer.unit, step=LearnedStep(one.log2, gain))

    def _changed(
        self, module: nn.Module, plan: ResolvedPlan, one: _Learned, log2: Tensor
    ) -> ResolvedPlan | None:
        """The plan with what is nearest to a step; None where that is in use."""
        layer = plan.inventory.layer(one.layer)
        tensor = one.of(plan)
        if one.unit is not None:
            highest = self._highest[one.tensor]
            return with_unit(module, plan, one.unit, tensor, log2, highest)
        if layer.kind == "neuron":
            return with_membrane(module, plan, layer, tensor, log2)
        return with_weights(plan, tensor, log2)

    @staticmethod
    def _bound(one: _Learned, plan: ResolvedPlan, log2: Tensor) -> None:
        """Keeps a step within an octave of the one in use, where formats end."""
        tensor = one.of(plan)
        used = logarithms(tensor, None if one.unit is None else plan.units[one.unit.neuron])
        if bool(((log2 - used).abs() > 1.0).any()):
            bounded = torch.minimum(torch.maximum(log2, used - 1.0), used + 1.0)
            one.log2.copy_(bounded)
