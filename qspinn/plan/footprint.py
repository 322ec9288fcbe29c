"""Bits that a device must hold, exact to the bit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from qspinn.plan.calling import Inputs, Run
from qspinn.plan.dry_run import inspect
from qspinn.plan.inventory import Inventory
from qspinn.plan.quantization_plan import QuantizationPlan, resolve
from qspinn.plan.resolved import ResolvedPlan, ResolvedTensor
from qspinn.plan.roles import UNSTORED_ROLES
from qspinn.plan.summary import Summary, summary_of

FLOAT_BITS = 32
UNCOVERED = "other"


@dataclass(frozen=True)
class FootprintItem:
    """The bits of one tensor.

    Attributes:
        path: Layer path and name.
        role: Its role, or ``"other"`` where no role covers it (then it is 32-bit, or
            has a fixed word length).
        count: Number of values.
        word_length: Bits per value as quantised; 0 where another tensor holds the same
            codes.
        training_only: Held only by a device that learns.
        baseline_word_length: Bits per value in the baseline: 32, or as quantised
            where it is no fixed-point number.
        is_state: Changes from time step to time step.
        is_constant: Not even learning changes it.
        baseline_count: Number of values in the baseline; ``None`` for as many.
    """

    path: str
    role: str
    count: int
    word_length: int
    training_only: bool = False
    baseline_word_length: int = FLOAT_BITS
    is_state: bool = False
    is_constant: bool = False
    baseline_count: int | None = None

    @property
    def bits(self) -> int:
        """Bits as quantised."""
        return self.count * self.word_length

    @property
    def baseline_bits(self) -> int:
        """Bits of the same tensor in the baseline."""
        count = self.count if self.baseline_count is None else self.baseline_count
        return count * self.baseline_word_length


@dataclass(frozen=True)
class Footprint:
    """What a device holds: parameters once, states once per neuron (batch size 1).

    Values that only pass through (spikes, layer inputs, accumulators) are not
    held and not counted, neither here nor in the baseline. The baseline is the
    same network in 32-bit, its batch norms folded as well; counters and labels
    have the same word length in both.

    A device keeps in flash what does not change, and in RAM what does: to classify,
    weights, biases, thresholds, leaks and labels are in flash, and states in RAM; to
    learn, only what learning leaves alone (thresholds, leaks, declared constants) is
    in flash.

    Attributes:
        items: The bits of each tensor.
        summary: What of it is quantised, and what is not and why.
    """

    items: tuple[FootprintItem, ...]
    summary: Summary | None = None

    @property
    def inference_bits(self) -> int:
        """Bits that a device must hold to classify."""
        return sum(item.bits for item in self.items if not item.training_only)

    @property
    def training_bits(self) -> int:
        """Bits that a device must hold to learn: those for inference, and traces and the like."""
        return sum(item.bits for item in self.items)

    @property
    def flash_bits(self) -> int:
        """Bits in flash of a device that classifies."""
        return self.inference_bits - self.ram_bits

    @property
    def ram_bits(self) -> int:
        """Bits in RAM of a device that classifies: states."""
        return sum(i.bits for i in self.items if i.is_state and not i.training_only)

    @property
    def learning_ram_bits(self) -> int:
        """Bits in RAM of a device that learns: all but constants."""
        return sum(item.bits for item in self.items if not item.is_constant)

    @property
    def baseline_inference_bits(self) -> int:
        """The same in 32-bit."""
        return sum(item.baseline_bits for item in self.items if not item.training_only)

    @property
    def baseline_training_bits(self) -> int:
        """The same in 32-bit."""
        return sum(item.baseline_bits for item in self.items)

    @property
    def reduction(self) -> float:
        """How many times smaller than the baseline, for inference."""
        return self.baseline_inference_bits / self.inference_bits

    @property
    def by_tensor(self) -> dict[str, int]:
        """Tensor path -> bits."""
        return {item.path: item.bits for item in self.items}

    @property
    def by_role(self) -> dict[str, int]:
        """Role -> inference bits."""
        return _by_role((item, item.bits) for item in self.items if not item.training_only)

    @property
    def baseline_by_role(self) -> dict[str, int]:
        """Role -> inference bits in 32-bit."""
        return _by_role((item, item.baseline_bits) for item in self.items if not item.training_only)


def footprint(
    module: nn.Module,
    plan: QuantizationPlan | ResolvedPlan | None = None,
    example_input: Inputs | None = None,
    run: Run | None = None,
) -> Footprint:
    """The footprint of ``module`` under ``plan``.

    Args:
        module: Any module with SpikingJelly neurons and torch layers.
        plan: A plan, or what it resolved to; ``None`` for the 32-bit network.
        example_input: A batch as ``module`` takes it: a tensor, a tuple of positional
            arguments, or a dictionary of keyword arguments. Not needed where ``plan``
            was resolved with one. The number of neurons is known only from it.
        run: Instead of ``example_input``: does one forward pass of ``module``.

    Raises:
        ValueError: The number of neurons is not known; or the module has no spiking
            neuron, and the plan does not say that it may have none.
    """
    if isinstance(plan, ResolvedPlan) and example_input is None and run is None:
        return footprint_of(plan.inventory, plan)
    inventory = inspect(module, example_input, run)
    if isinstance(plan, QuantizationPlan):
        return footprint_of(inventory, resolve(plan, inventory))
    return footprint_of(inventory, plan)


def footprint_of(inventory: Inventory, plan: ResolvedPlan | None) -> Footprint:
    """The footprint of what ``inventory`` lists; tensors not in ``plan`` are 32-bit.

    Raises:
        TypeError: Arguments of other types.
        ValueError: The network has no spiking neuron, and the plan does not say that
            it may have none.
    """
    given: tuple[object, object] = (inventory, plan)
    if not isinstance(given[0], Inventory) or not isinstance(given[1], ResolvedPlan | None):
        raise TypeError(
            f"footprint_of: inventory is a {type(inventory).__name__} and plan a "
            f"{type(plan).__name__}; write footprint_of(resolved.inventory, resolved), or "
            "footprint(module, plan, example_input)"
        )
    if plan is not None:
        plan.check_neurons()
    quantized = {} if plan is None else {tensor.path: tensor for tensor in plan.tensors}
    excluded = frozenset[str]() if plan is None else plan.excluded
    scaled = {} if plan is None else plan.scaled
    items = []
    for layer in inventory.layers:
        for info in layer.tensors:
            if info.role in UNSTORED_ROLES or info.path in excluded:
                continue
            tensor, baseline = quantized.get(info.path), info.word_length or FLOAT_BITS
            length = baseline if tensor is None else tensor.word_length
            if info.tied_to is not None:
                baseline = 0
                if _same_codes(tensor, quantized.get(info.tied_to)):
                    length = 0
            count = info.count
            if info.name == "v_threshold" and layer.path in scaled:
                count = max(count, scaled[layer.path].channels)
            items.append(
                FootprintItem(
                    info.path,
                    info.role or UNCOVERED,
                    count,
                    length,
                    info.for_training,
                    baseline,
                    info.for_state,
                    info.never_changes,
                    info.count,
                )
            )
        unit = scaled.get(layer.path)
        if layer.reset_word or (unit is not None and unit.below):
            state = next(info for info in layer.tensors if info.role == "membrane")
            path = f"{layer.path}.v_reset" if layer.path else "v_reset"
            if state.path not in excluded:
                held = quantized.get(state.path)
                length = FLOAT_BITS if held is None else held.word_length
                before = int(layer.reset_word)
                items.append(
                    FootprintItem(
                        path, "membrane", 1, length, is_constant=True, baseline_count=before
                    )
                )
    summary = summary_of(inventory, quantized, excluded) if plan is None else plan.summary()
    return Footprint(tuple(items), summary)


def _same_codes(one: ResolvedTensor | None, other: ResolvedTensor | None) -> bool:
    """Whether two tensors with the same numbers are stored as the same codes."""
    if one is None or other is None:
        return one is other
    return one.settings == other.settings and one.format == other.format


def _by_role(bits: Iterable[tuple[FootprintItem, int]]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for item, count in bits:
        totals[item.role] = totals.get(item.role, 0) + count
    return dict(sorted(totals.items()))
