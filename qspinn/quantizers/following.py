"""Formats that follow a network while it trains with them attached.

What a device stores (weights, biases, decays) is known at every step, and its formats follow it
at every step. What passes through (membranes, inputs) is known from the batches that were
computed so far: a few values of every fourth batch go into running means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from qspinn.fixed_point import FixedPointFormat, Format
from qspinn.plan import LayerInfo, ResolvedPlan, ResolvedTensor
from qspinn.plan.neuron_constants import has_threshold, leak_of, threshold_of
from qspinn.plan.roles import STATE_ROLES
from qspinn.quantizers.extents import moved_extents
from qspinn.quantizers.folding import held_parameters
from qspinn.quantizers.looking import is_open, passing, points
from qspinn.quantizers.neuron_formats import (
    as_the_neuron_sees_it,
    check_neuron,
    decay_formats,
    is_learned,
    step_to_tell_apart,
    threshold_format,
    threshold_to_hold,
    with_formats,
    with_open,
)
from qspinn.quantizers.observer import Glimpse
from qspinn.quantizers.running import RunningRange
from qspinn.quantizers.stored_format import check_finite, stored_format
from qspinn.quantizers.units import LayerUnits

# The first batches are all looked at, and then every so many.
SETTLING = 16
EVERY = 4
# What is stored is looked at in full every so many batches, and else when its largest value has
# grown or shrunk clearly; on so many of its values.
STORED_EVERY = 32
STORED_SAMPLE = 4096


@dataclass
class Following:
    """What a training has shown so far, and the formats that follow from it.

    Attributes:
        batches: Training batches since quantisation began.
        ranges: Path of a membrane or an input -> what the batches showed of it.
        extents: Path of a weight or a bias -> its largest magnitude (of each channel) when its
            format was last chosen.
        news: Whether a batch has been looked at since the formats were last chosen.
        not_binary: Synapse layers whose input the plan takes for binary, and which is not.
        failures: Layer -> why its formats could not follow; those in use stay.
        learned: Paths of tensors whose formats are learned, and so follow nothing.
    """

    batches: int = 0
    ranges: dict[str, RunningRange] = field(default_factory=dict)
    extents: dict[str, list[float]] = field(default_factory=dict)
    news: bool = False
    not_binary: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    learned: frozenset[str] = field(default=frozenset(), compare=False)
    _glimpses: dict[str, Glimpse] = field(default_factory=dict, repr=False)

    def begin_batch(self, module: nn.Module, plan: ResolvedPlan) -> None:
        """Looks at the batch that comes, where its turn has come."""
        if self.batches < SETTLING or self.batches % EVERY == 0:
            binary = {path for path, _ in points(module, plan, only_binary=True)}
            for path, put in points(module, plan):
                put(self._glimpses.setdefault(path, Glimpse(watches=path in binary)))
        self.batches += 1

    def begin_evaluation_batch(self, module: nn.Module, plan: ResolvedPlan) -> None:
        """Looks only whether inputs are 0 or 1 that the plan takes for that."""
        for path, put in points(module, plan, only_binary=True):
            put(self._glimpses.setdefault(path, Glimpse(watches=True)))

    def end_batch(self, module: nn.Module, plan: ResolvedPlan) -> None:
        """Takes in what the batch showed."""
        if not self._glimpses:
            return
        for _, put in points(module, plan):
            put(None)
        for layer in plan.inventory.layers:
            node = module.get_submodule(layer.path)
            for name, path in passing(layer, plan):
                glimpse = self._glimpses.get(path)
                if glimpse is not None and not glimpse.empty:
                    self._take(node, layer, name, path, glimpse, plan)
        self._glimpses = {}
        self.news = True

    def with_input_formats(self, plan: ResolvedPlan) -> ResolvedPlan:
        """The plan with formats for the inputs that have none yet, from what was seen of them."""
        self.not_binary = []
        return plan.with_formats(
            {
                tensor.path: self._range_format(tensor)
                for tensor in plan.tensors
                if tensor.format is None and tensor.path in self.ranges
            }
        )

    def follow(self, module: nn.Module, plan: ResolvedPlan) -> ResolvedPlan:
        """The plan with the formats that suit the network as it is now.

        A layer whose formats cannot follow keeps those in use, and is among the failures.
        """
        due = self.batches % STORED_EVERY == 0
        moved = moved_extents(module, plan, self.extents)
        moved = {path: one for path, one in moved.items() if path not in self.learned}
        for layer in plan.inventory.layers:
            formats: dict[str, Format] = {}
            try:
                if layer.kind == "synapse":
                    plan = self._with_followed_unit(module, layer, plan, moved, due)
                    formats = self._synapse_formats(module, layer, plan, moved, due)
                elif layer.kind == "neuron":
                    node = module.get_submodule(layer.path)
                    formats = self._neuron_formats(node, layer, plan)
            except ValueError as error:
                self.failures.setdefault(layer.path, str(error))
                continue
            plan = plan.with_formats(formats) if formats else plan
        self.news = False
        return plan

    def state_dict(self) -> dict[str, Any]:
        """All that a training needs to go on, as plain types."""
        return {
            "batches": self.batches,
            "ranges": {path: one.to_dict() for path, one in self.ranges.items()},
            "extents": {path: list(one) for path, one in self.extents.items()},
            "not_binary": list(self.not_binary),
        }

    @classmethod
    def from_state_dict(cls, data: Mapping[str, Any]) -> Following:
        """The inverse of :meth:`state_dict`."""
        ranges = {path: RunningRange.from_dict(one) for path, one in data["ranges"].items()}
        return cls(**{**data, "ranges": ranges})

    def _take(
        self,
        node: nn.Module,
        layer: LayerInfo,
        name: str,
        path: str,
        glimpse: Glimpse,
        plan: ResolvedPlan,
    ) -> None:
        tensors = plan.of_layer(layer.path)
        tensor = tensors.get(name)
        if tensor is None:
            if layer.path in self.not_binary or glimpse.is_binary(node.training):
                return
            self.not_binary.append(layer.path)
        low, high = glimpse.extremes()
        if not low <= high:
            self.failures.setdefault(layer.path, f"{path}: a batch held values that are not finite")
            return
        sample = glimpse.sample()
        if name == "v" and has_threshold(node):
            sample = as_the_neuron_sees_it(node, sample)
            bounds = as_the_neuron_sees_it(node, torch.tensor([low, high], dtype=torch.float64))
            low, high = bounds.tolist()
        seen = self.ranges.setdefault(path, RunningRange())
        length, rounding = (
            (8, "nearest") if tensor is None else (tensor.word_length, tensor.rounding)
        )
        seen.see(sample, (low, high), length, rounding, always_signed=name != "input")

    def _synapse_formats(
        self,
        module: nn.Module,
        layer: LayerInfo,
        plan: ResolvedPlan,
        moved: dict[str, list[float]],
        due: bool,
    ) -> dict[str, Format]:
        formats: dict[str, Format] = {}
        tensors, counted = plan.of_layer(layer.path), plan.unit_of(layer.path)
        names = [n for n in ("weight", "bias") if n in tensors and self._follows(tensors[n])]
        if counted is None or tensors["weight"].path not in moved:  # else the unit may have moved
            names = [name for name in names if due or tensors[name].path in moved]
        unit = None if counted is None else counted[1].tensor
        values = held_parameters(module, layer, unit) if names else {}
        for name in names:
            tensor, (value, counts) = tensors[name], values[name]
            check_finite(tensor, bool(torch.isfinite(value).all()))
            if bool((value != 0).any()):  # zeros suit every format
                formats[tensor.path] = stored_format(
                    tensor,
                    value,
                    current=tensor.format,
                    sample_size=STORED_SAMPLE,
                    counts=counts,
                )
            if tensor.path in moved:
                self.extents[tensor.path] = moved[tensor.path]
        inputs = tensors.get("input")
        if self.news and inputs is not None and is_open(inputs) and inputs.path in self.ranges:
            formats[inputs.path] = self._range_format(inputs)
        return formats

    def _with_followed_unit(
        self,
        module: nn.Module,
        layer: LayerInfo,
        plan: ResolvedPlan,
        moved: dict[str, list[float]],
        due: bool,
    ) -> ResolvedPlan:
        """The plan with the unit of a layer that suits its weights as they are now."""
        counted = plan.unit_of(layer.path)
        if counted is None:
            return plan
        scaled, unit = counted
        weight = plan.of_layer(layer.path)["weight"]
        value: Any = module.get_submodule(layer.path).weight
        if weight.path in self.learned:
            return plan
        if not (due or weight.path in moved) or not bool((value != 0).any()):
            return plan
        unit, fmt = LayerUnits(module, plan, scaled).followed(unit)
        return plan.with_units({scaled.neuron: unit}).with_formats({weight.path: fmt})

    def _neuron_formats(self, node: Any, layer: LayerInfo, plan: ResolvedPlan) -> dict[str, Format]:
        tensors = plan.of_layer(layer.path)
        in_units = plan.unit_of(layer.path) is not None
        formats: dict[str, Format] = {}
        decay = tensors.get("decay")
        if decay is not None and is_open(decay) and is_learned(leak_of(node)):
            unsettled = {"decay": replace(decay, format=None)}
            ideal = decay_formats(node, layer, unsettled)[decay.path]
            if not _is_room(ideal, decay.format):
                formats[decay.path] = ideal
        if in_units:  # what is compared is chosen with the unit
            return formats
        if self.news:
            for name, tensor in tensors.items():
                if (
                    tensor.role in STATE_ROLES
                    and self._follows(tensor)
                    and tensor.path in self.ranges
                ):
                    at_least, step_at_most = 0.0, float("inf")
                    if name == "v" and has_threshold(node):
                        seen = self.ranges[tensor.path]
                        at_least = threshold_to_hold(
                            node, with_open(tensors, "v_threshold"), seen.largest
                        )
                        step_at_most = step_to_tell_apart(node)
                    formats[tensor.path] = self._range_format(tensor, at_least, step_at_most)
        held = {tensor.path: tensor.format for tensor in tensors.values()}
        changed = {path: fmt for path, fmt in formats.items() if fmt != held[path]}
        learned = is_learned(threshold_of(node))
        if not changed and not (learned and self.news):
            return {}
        tensors = with_formats(tensors, changed)
        threshold = threshold_format(node, with_open(tensors, "v_threshold"))
        if learned and not changed:
            threshold = {p: f for p, f in threshold.items() if not _is_room(f, held[p])}
        check_neuron(node, layer, with_formats(tensors, threshold))
        return {**changed, **threshold}

    def _follows(self, tensor: ResolvedTensor) -> bool:
        return is_open(tensor) and tensor.path not in self.learned

    def _range_format(
        self, tensor: ResolvedTensor, at_least: float = 0.0, step_at_most: float = float("inf")
    ) -> FixedPointFormat:
        held = tensor.format if isinstance(tensor.format, FixedPointFormat) else None
        return self.ranges[tensor.path].format(
            tensor.word_length,
            tensor.settings.calibration or "mse",
            at_least,
            step_at_most,
            held,
        )


def _is_room(ideal: Format, current: Format | None) -> bool:
    """Whether the format in use is the ideal one, or one range wider."""
    if not isinstance(ideal, FixedPointFormat) or not isinstance(current, FixedPointFormat):
        return ideal == current
    wider = current.integer_bits - ideal.integer_bits
    return ideal.word_length == current.word_length and 0 <= wider <= 1
