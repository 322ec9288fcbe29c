"""Bits that a device must hold, exact to the bit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from qspinn.plan.dry_run import inspect
from qspinn.plan.inventory import Inventory
from qspinn.plan.resolved import ResolvedPlan, resolve
from qspinn.plan.roles import UNSTORED_ROLES
from qspinn.plan.rules import QuantizationPlan

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
        word_length: Bits per value as quantised.
        training_only: Held only by a device that learns.
        baseline_word_length: Bits per value in the baseline: 32, or as quantised
            where it is no fixed-point number.
    """

    path: str
    role: str
    count: int
    word_length: int
    training_only: bool = False
    baseline_word_length: int = FLOAT_BITS

    @property
    def bits(self) -> int:
        """Bits as quantised."""
        return self.count * self.word_length

    @property
    def baseline_bits(self) -> int:
        """Bits of the same tensor in the baseline."""
        return self.count * self.baseline_word_length


@dataclass(frozen=True)
class Footprint:
    """What a device holds: parameters once, states once per neuron (batch size 1).

    Values that only pass through (spikes, layer inputs, accumulators) are not
    held and not counted, neither here nor in the baseline. The baseline is the
    same network in 32-bit, its batch norms folded as well; counters and labels
    have the same word length in both.
    """

    items: tuple[FootprintItem, ...]

    @property
    def inference_bits(self) -> int:
        """Bits that a device must hold to classify."""
        return sum(item.bits for item in self.items if not item.training_only)

    @property
    def training_bits(self) -> int:
        """Bits that a device must hold to learn: inference, traces and the like besides."""
        return sum(item.bits for item in self.items)

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
    example_input: Tensor | None = None,
) -> Footprint:
    """The footprint of ``module`` under ``plan``.

    Args:
        module: Any module with SpikingJelly neurons and torch layers.
        plan: A plan, or what it resolved to; ``None`` for the 32-bit network.
        example_input: A batch as ``module`` takes it; not needed where ``plan`` was
            resolved with one. The number of neurons is known only from it.

    Raises:
        ValueError: The number of neurons is not known.
    """
    if isinstance(plan, ResolvedPlan) and example_input is None:
        return footprint_of(plan.inventory, plan)
    inventory = inspect(module, example_input)
    if isinstance(plan, QuantizationPlan):
        return footprint_of(inventory, resolve(plan, inventory))
    return footprint_of(inventory, plan)


def footprint_of(inventory: Inventory, plan: ResolvedPlan | None) -> Footprint:
    """The footprint of what ``inventory`` lists; tensors not in ``plan`` are 32-bit."""
    lengths = {} if plan is None else {tensor.path: tensor.word_length for tensor in plan.tensors}
    items = []
    for layer in inventory.layers:
        for info in layer.tensors:
            if info.role in UNSTORED_ROLES:
                continue
            baseline = info.word_length or FLOAT_BITS
            items.append(
                FootprintItem(
                    info.path,
                    info.role or UNCOVERED,
                    info.count,
                    lengths.get(info.path, baseline),
                    info.for_training,
                    baseline,
                )
            )
        if layer.reset_word:
            state = next(info for info in layer.tensors if info.role == "membrane")
            path = f"{layer.path}.v_reset" if layer.path else "v_reset"
            items.append(FootprintItem(path, "membrane", 1, lengths.get(state.path, FLOAT_BITS)))
    return Footprint(tuple(items))


def _by_role(bits: Iterable[tuple[FootprintItem, int]]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for item, count in bits:
        totals[item.role] = totals.get(item.role, 0) + count
    return dict(sorted(totals.items()))
