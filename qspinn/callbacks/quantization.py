"""The common part of in-training and post-training quantisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qspinn.callbacks.arguments import check_whole
from qspinn.callbacks.isolation import Forward
from qspinn.callbacks.reset_states import ResetStates
from qspinn.metrics import Drift
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
        fidelity: How far the network behaves as its 32-bit twin; ``None``: not measured.
        work: What the quantised network computes; ``None`` until the fit has ended, and where it
            is not known.
        energy: What operations cost; ``None``: the default. Set it before the fit.
    """

    def __init__(
        self,
        plan: QuantizationPlan | Mapping[str, Any],
        forward: Forward | None,
        compile_steps: bool,
        fidelity_samples: int,
    ) -> None:
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
        self.compile_steps = compile_steps
        wanted = "a number of samples, or 0 to leave out the comparison with the 32-bit network"
        self.fidelity_samples = check_whole(
            fidelity_samples, 0, f"{owner}: fidelity_samples", wanted
        )
        self.fidelity: Drift | None = None
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
