"""The part of in-training quantisation that attaches formats, and changes them between batches."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from lightning import LightningModule

from qspinn.callbacks.formats import has_declared, with_declared_anew, with_new_inputs
from qspinn.callbacks.isolation import Forward, preserved_globals
from qspinn.callbacks.learned_steps import StepLearning
from qspinn.callbacks.quantization import Quantization
from qspinn.fixed_point import SATURATED
from qspinn.plan import QuantizationPlan, ResolvedPlan
from qspinn.quantizers import detach
from qspinn.quantizers.attach import attach_quietly, reattach
from qspinn.quantizers.following import Following
from qspinn.quantizers.synapse import let_gradients_pass

log = logging.getLogger(__name__)


class QuantizesTraining(Quantization):
    """Keeps the formats of a network that learns in them.

    Args:
        plan: What is quantised, and how.
        forward: How to run the module on a batch for calibration.
        compile_steps: Whether neurons step compiled.
        fidelity_samples: Samples that it is compared with its 32-bit twin on.
        learning: The steps that an optimizer learns.
        saturated: The gradient of weights and biases beyond their range.

    Attributes:
        saturated: As given.

    Raises:
        ValueError: An unknown choice, or compiled steps of neurons whose membranes learn.
    """

    def __init__(
        self,
        plan: QuantizationPlan | Mapping[str, Any],
        forward: Forward | None,
        compile_steps: bool,
        fidelity_samples: int,
        learning: StepLearning,
        saturated: str,
    ) -> None:
        super().__init__(plan, forward, compile_steps, fidelity_samples)
        if saturated not in SATURATED:
            raise ValueError(
                f"{learning.owner}: saturated={saturated!r}; write one of {', '.join(SATURATED)}"
            )
        if compile_steps and "membrane" in learning.kinds:
            raise ValueError(
                f"{learning.owner}: compile_steps=True compiles neurons without the gradient of "
                f"their steps, which learned_steps={'+'.join(learning.kinds)} needs; write "
                "compile_steps=False, or learned_steps='weight'"
            )
        self.saturated, self._learning = saturated, learning
        self._following = Following()
        # What a checkpoint says of learned steps that are not there yet.
        self._learned_before: dict[str, Any] | None = None
        self._must_attach = False
        # Layers for which the warning was logged.
        self._told: set[str] = set()

    def _follow(self, pl_module: LightningModule) -> None:
        """Attaches the formats that suit the network as it is now, where they have changed."""
        assert self.resolved_plan is not None
        plan = with_new_inputs(self.plan, self.resolved_plan, self._following)
        plan = self._learning.followed(pl_module, plan)
        self._change(pl_module, self._following.follow(pl_module, plan))
        self._tell_failures()

    def _change(self, pl_module: LightningModule, plan: ResolvedPlan) -> None:
        """Attaches ``plan``, or keeps the one in use if that is impossible."""
        if plan == self.resolved_plan:
            return
        assert self.resolved_plan is not None
        try:
            reattach(pl_module, plan, self.compile_steps)
            self.resolved_plan = plan
        except ValueError as error:
            reattach(pl_module, self.resolved_plan, self.compile_steps)
            self._following.failures.setdefault("", str(error))
        self._prepare(pl_module)

    def _choose_declared(self, pl_module: LightningModule) -> None:
        """Chooses the formats of modules that declare their tensors anew, once an epoch."""
        known = self.resolved_plan
        if known is None or not has_declared(known):
            return
        detach(pl_module)
        try:
            with preserved_globals():
                plan = with_declared_anew(self.plan, known, pl_module)
            self._attach(pl_module, plan)
            self.resolved_plan = plan
        except ValueError as error:
            detach(pl_module)
            self._attach(pl_module, known)
            self._following.failures.setdefault("declared", str(error))
        self._tell_failures()

    def _attach(self, pl_module: LightningModule, plan: ResolvedPlan) -> None:
        attach_quietly(pl_module, plan, self.compile_steps)
        self._prepare(pl_module)

    def _prepare(self, pl_module: LightningModule) -> None:
        """Tells quantizers that were attached anew how gradients pass them."""
        let_gradients_pass(pl_module, self.saturated)
        self._learning.attached(pl_module)
        steps = self._learning.steps
        self._following.learned = frozenset() if steps is None else steps.paths

    def _tell_failures(self) -> None:
        if self._learning.steps is not None:
            self._following.failures.update(self._learning.steps.failures)
            self._learning.steps.failures.clear()
        for path, message in self._following.failures.items():
            if path not in self._told:
                self._told.add(path)
                log.warning("InTrainingQuantization: keeps the formats in use: %s", message)
        self._following.failures.clear()

    def _attach_restored(self, pl_module: LightningModule) -> None:
        if not self._must_attach:
            return
        detach(pl_module)
        if self.resolved_plan is not None:
            # A module that rounds what it holds by itself may draw random numbers for
            # it, which the training that is continued here has not drawn.
            with preserved_globals():
                attach_quietly(pl_module, self.resolved_plan, self.compile_steps)
            self._learning.restore(pl_module, self._learned_before)
            self._prepare(pl_module)
        self._must_attach = False
