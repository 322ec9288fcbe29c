"""In-training quantisation: the network computes with quantised values while it learns."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from qspinn.callbacks.arguments import check_whole
from qspinn.callbacks.fidelity import fidelity_of, log_fidelity
from qspinn.callbacks.formats import (
    calibrated,
    log_summary,
    with_new_inputs,
)
from qspinn.callbacks.isolation import (
    Forward,
    check_runnable,
    check_single_device,
    preserved_globals,
    quiet_lightning,
)
from qspinn.callbacks.learned_steps import StepLearning
from qspinn.callbacks.measuring import log_work
from qspinn.callbacks.training_formats import QuantizesTraining
from qspinn.callbacks.trial import tried, try_to_learn
from qspinn.plan import QuantizationPlan, ResolvedPlan, reset_states
from qspinn.quantizers import detach, is_attached, plan_of
from qspinn.quantizers.following import Following

log = logging.getLogger(__name__)

# So many batches of a validation are checked for inputs that are not 0 or 1.
WATCHED = 4


class InTrainingQuantization(QuantizesTraining):
    """Trains, validates, tests and checkpoints a network with quantised values.

    From ``start_epoch`` on, every forward pass computes in fixed point; gradients
    flow straight through the roundings to the float parameters underneath, which the
    optimizer, the checkpoints and ``state_dict`` see unchanged. Formats that the
    plan leaves open are calibrated on the first batch, and then follow the network:
    those of what a device stores at every step, those of membranes and inputs by
    running means over batches (modules that declare their tensors choose again at
    the first batch of each epoch). From ``freeze_epoch`` on they are fixed. Where a
    format cannot follow, since a batch diverged or the format would be invalid, the
    format in use is kept, and a warning is logged once. Checkpoints carry the formats:
    a trainer with this callback validates, tests and predicts with the formats of the
    checkpoint it was given. When the fit ends, the quantised network is left in place.

    The plan is tried on a copy of the module with the first batch of the fit, so
    that errors show before anything is trained.

    Attributes:
        plan: What is quantised, and how.
        resolved_plan: With the formats in use; ``None`` until quantisation starts.
        footprint: Of the quantised network; ``None`` until then.
        fidelity: How far it behaves as its own float parameters do without quantizers,
            measured and logged (``itq/fidelity/...``) when the fit ends; ``None``: not
            measured.

    Example:
        >>> trainer = Trainer(callbacks=[InTrainingQuantization(plan)])  # doctest: +SKIP
    """

    def __init__(
        self,
        plan: QuantizationPlan | Mapping[str, Any],
        start_epoch: int = 0,
        freeze_epoch: int | None = None,
        forward: Forward | None = None,
        compile_steps: bool = False,
        fidelity_samples: int = 64,
        learned_steps: str | Sequence[str] = "none",
        step_rate: float = 1.0,
        saturated: str = "returning",
    ) -> None:
        """Prepares for training.

        Args:
            plan: A plan, or the dictionary of one.
            start_epoch: First epoch (from 0) that computes with quantised values.
            freeze_epoch: First epoch that keeps the formats of the one before;
                ``None``: formats follow the network to the end. In the first epoch
                that is quantised they always follow.
            forward: How to run the module on a batch for calibration, as
                ``forward(module, batch)``; ``None`` runs its ``validation_step``.
            compile_steps: Whether neurons step compiled, see
                :func:`qspinn.quantizers.attach`; each change of a format is compiled
                anew.
            fidelity_samples: Validation samples (or training samples, where there are
                none) on which ``fidelity`` is measured; 0: it is not.
            learned_steps: Whose steps the module's optimizer learns (LSQ, see
                docs/few_bits.md): ``"none"``, ``"weight"``, ``"membrane"`` or
                ``"weight+membrane"``. Formats of all others follow the network.
            step_rate: Their learning rate, as a multiple of that of the weights.
            saturated: The gradient of weights and biases that lie beyond their range:
                ``"returning"``, only what leads back into it; ``"clip"``, none;
                ``"pass"``, all of it. Those that are folded with a batch norm keep all of
                it unless it is ``"clip"``.

        Raises:
            ValueError: An invalid epoch, number of samples, rate or choice; compiled steps of
                neurons whose membranes learn.
        """
        learning = StepLearning(learned_steps, step_rate, "InTrainingQuantization")
        super().__init__(plan, forward, compile_steps, fidelity_samples, learning, saturated)
        wanted = "an epoch, 0 or more"
        check_whole(start_epoch, 0, "InTrainingQuantization: start_epoch", wanted)
        if freeze_epoch is not None:
            check_whole(freeze_epoch, 0, "InTrainingQuantization: freeze_epoch", wanted)
        self.start_epoch, self.freeze_epoch = start_epoch, freeze_epoch

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks the plan against the module before anything is trained."""
        check_single_device(trainer, "InTrainingQuantization")
        check_runnable(pl_module, self.forward, "InTrainingQuantization")
        self._was_tried, self.work, self.fidelity = False, None, None
        if self._must_attach:
            detach(pl_module)
        elif not is_attached(pl_module):
            self.resolved_plan = None
        elif self.resolved_plan is None:
            raise ValueError(
                "InTrainingQuantization: the module has quantizers of something else attached; "
                "call qspinn.quantizers.detach first"
            )
        if not is_attached(pl_module):
            self.plan.resolve(pl_module)
        self._attach_restored(pl_module)
        if self.resolved_plan is None:
            self._learning.steps = None
        self._learning.join_optimizers(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Starts to quantise, and follows the network, at the first batch of an epoch."""
        epoch = trainer.current_epoch
        quantized = None if self._was_tried else self._try(trainer, pl_module, batch)
        if epoch < self.start_epoch:
            pass
        elif self.resolved_plan is None:
            # The copy that was tried just now has the formats that this batch gives.
            if quantized is not None:
                resolved = plan_of(quantized)
            else:
                resolved = self._calibrated(trainer, pl_module, batch)
            log_summary(resolved, "InTrainingQuantization")
            self.resolved_plan, self._following = resolved, Following()
            self._attach(pl_module, resolved)
            self._learning.join_optimizers(trainer, pl_module)
        elif batch_idx == 0 and self._follows(epoch):
            self._choose_declared(pl_module)
        self._was_tried = True
        reset_states(pl_module)
        self._learning.begin_batch(trainer, self._follows(epoch))
        if self.resolved_plan is not None and self._follows(epoch):
            self._following.begin_batch(pl_module, self.resolved_plan)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Records the batch, and lets the formats follow."""
        if self.resolved_plan is not None and self._follows(trainer.current_epoch):
            self._following.end_batch(pl_module, self.resolved_plan)
            self._follow(pl_module)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Checks the first batches for inputs that the plan takes for binary."""
        super().on_validation_batch_start(trainer, pl_module, batch, batch_idx)
        if self.resolved_plan is not None and batch_idx < WATCHED and is_attached(pl_module):
            self._following.begin_evaluation_batch(pl_module, self.resolved_plan)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Records the batch."""
        if self.resolved_plan is not None and is_attached(pl_module):
            self._following.end_batch(pl_module, self.resolved_plan)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gives a format to inputs that turned out not to be binary."""
        if self.resolved_plan is not None and self._following.not_binary:
            plan = with_new_inputs(self.plan, self.resolved_plan, self._following)
            self._change(pl_module, plan)
            reset_states(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compares the network with its 32-bit twin, or warns that nothing is quantised."""
        if self.resolved_plan is None:
            log.warning(
                "InTrainingQuantization: start_epoch=%d was never reached (%d epochs were "
                "trained), so nothing is quantised",
                *(self.start_epoch, trainer.current_epoch),
            )
        elif is_attached(pl_module):
            of, plan = (trainer, pl_module), self.resolved_plan
            self._measure(*of, plan)
            log_work(trainer, self.work)
            name, samples = "InTrainingQuantization", self.fidelity_samples
            self.fidelity = fidelity_of(name, *of, pl_module, plan, samples, self.forward)
            log_fidelity(trainer, self.fidelity, "itq/fidelity/")
        reset_states(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The plan and the formats in use, as plain types."""
        plan = None if self.resolved_plan is None else self.resolved_plan.to_dict()
        following = self._following.state_dict()
        return {
            "plan": self.plan.to_dict(),
            "resolved_plan": plan,
            "following": following,
            "learned_steps": self._learning.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over the formats of a checkpoint; they are attached before the next use.

        Raises:
            ValueError: The checkpoint was trained with another plan, or learned other steps.
        """
        if state_dict["plan"] != self.plan.to_dict():
            raise ValueError(
                "InTrainingQuantization: the checkpoint was trained with another plan: "
                f"{state_dict['plan']}; give the callback that plan, or load only the weights "
                "(load_from_checkpoint)"
            )
        # Checkpoints of earlier versions have neither of the last two.
        self._learned_before = state_dict.get("learned_steps")
        self._learning.check(self._learned_before)
        data = state_dict["resolved_plan"]
        self.resolved_plan = None if data is None else ResolvedPlan.from_dict(data)
        following = state_dict.get("following")
        self._following = Following() if following is None else Following.from_state_dict(following)
        self._must_attach = True

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Forgets the formats in use, in favour of those of the checkpoint, if it has any."""
        self.resolved_plan, self._following, self._learned_before = None, Following(), None
        self._must_attach = True

    def _follows(self, epoch: int) -> bool:
        """Whether formats follow the network; in the first quantised epoch they always do."""
        return self.freeze_epoch is None or epoch < max(self.freeze_epoch, self.start_epoch + 1)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluates a loaded checkpoint as it was trained."""
        restored = self._must_attach
        self._attach_restored(pl_module)
        if trainer.state.fn == TrainerFn.FITTING:
            return
        if is_attached(pl_module) and trainer.ckpt_path is not None and not restored:
            log.warning(
                "InTrainingQuantization: %s holds no formats (save_weights_only?), so its weights "
                "are evaluated with the formats in use before",
                trainer.ckpt_path,
            )
        if not is_attached(pl_module):
            log.warning(
                "InTrainingQuantization: no formats are known, so this evaluates the 32-bit "
                "network; fit first, or give ckpt_path= a full checkpoint of a fit"
            )

    on_test_start = on_predict_start = on_validation_start

    def _try(self, trainer: Trainer, pl_module: LightningModule, batch: Any) -> LightningModule:
        """Evaluates a quantised copy, trains it if training is still to come, and returns it."""
        with preserved_globals(), quiet_lightning():
            arguments = (self.forward, self.compile_steps)
            quantized = tried(self.plan, pl_module, trainer, batch, *arguments, learning=True)
            if trainer.current_epoch < self.start_epoch:
                try_to_learn(quantized, pl_module, trainer, batch)
        return quantized

    def _calibrated(self, trainer: Trainer, pl_module: LightningModule, batch: Any) -> ResolvedPlan:
        with preserved_globals(), quiet_lightning():
            return calibrated(self.plan, pl_module, trainer, [batch], self.forward, learning=True)
