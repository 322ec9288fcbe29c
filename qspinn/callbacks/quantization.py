"""The common part of in-training and post-training quantisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qspinn.callbacks.isolation import Forward
from qspinn.callbacks.reset_states import ResetStates
from qspinn.plan import (
    EnergyModel,
    Footprint,
    QuantizationPlan,
    ResolvedPlan,
    Work,
    footprint_of,
)
from qspinn.plan.expected import as_plan


class Quantization(ResetStates):
    """Holds a plan, what it resolved to, and the footprint that follows.

    Attributes:
        plan: What is quantised, and how.
        forward: How to run the module on a batch for calibration.
        resolved_plan: With the formats in use; ``None`` until there are any.
        work: What the quantised network computes; ``None`` until the fit has ended, and where it
            is not known.
        energy: What operations cost; ``None``: the default. Set it before the fit.
    """

    def __init__(self, plan: QuantizationPlan | Mapping[str, Any], forward: Forward | None) -> None:
        """Takes a plan, or the dictionary of one."""
        super().__init__()
        owner = type(self).__name__
        self.plan = as_plan(plan, owner)
        if forward is not None and not callable(forward):
            raise TypeError(
                f"{owner}: forward is a {type(forward).__name__}; write a function of module and "
                "batch, such as forward=lambda module, batch: module(batch[0])"
            )
        self.forward = forward
        self.resolved_plan: ResolvedPlan | None = None
        self.work: Work | None = None
        self.energy: EnergyModel | None = None
        # Whether the plan was tried on the first batch of this fit.
        self._was_tried = False

    @property
    def footprint(self) -> Footprint | None:
        """Bits of the quantised network; ``None`` until its formats are known."""
        if self.resolved_plan is None:
            return None
        return footprint_of(self.resolved_plan.inventory, self.resolved_plan)
