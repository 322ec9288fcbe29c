"""Local learning: every layer from the error of its own readout, at every time step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from spikingjelly.activation_based import functional
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from qspinn.learning.classifier import Batch, GradientClassifier, per_epoch
from qspinn.metrics import Accuracy
from qspinn.networks.decolle import Decolle, LayerStep
from qspinn.networks.device_operations import prefixed

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "smooth_l1": nn.functional.smooth_l1_loss,
    "mse": nn.functional.mse_loss,
}
PHASES = ("train", "val", "test")
POTENTIAL_ABOVE = -0.01
ACTIVITY_BELOW = 0.1


class _Scheduler(Protocol):
    def step(self, *metrics: Any) -> None:
        """Advances."""


def local_loss(
    step: LayerStep, target: Tensor, loss: str, excitation: float = 0.0, silence: float = 0.0
) -> Tensor:
    """The loss of one layer at one time step.

    ``loss(Y, target) + excitation <[u + 0.01]+> + silence [0.1 - <sigmoid(u)>]+``, where <> is the
    mean over neurons and batch and []+ is 0 below 0. The regularisers are those of the public code
    of Kaiser, Mostafa & Neftci (``DECOLLELoss`` in ``decolle/base_model.py``), which takes them of
    the pooled potentials, with weights in the ratio 0.01 to 0.00006: the first keeps potentials
    from staying high, the second keeps a layer from falling silent.

    Args:
        step: What the layer gave.
        target: ``[N, classes]``.
        loss: ``smooth_l1`` or ``mse``; the mean over batch and classes.
        excitation: Weight of the first regulariser.
        silence: Of the second.

    Returns:
        ``[]``.
    """
    value = LOSSES[loss](step.readout, target.to(step.readout.dtype))
    if excitation > 0.0:
        value = value + excitation * (step.membrane - POTENTIAL_ABOVE).relu().mean()
    if silence > 0.0:
        value = value + silence * (ACTIVITY_BELOW - step.membrane.sigmoid().mean()).relu()
    return value


class LocalLearning(GradientClassifier):
    """Trains a :class:`~qspinn.networks.Decolle` network by deep continuous local learning.

    At every step after the burn-in, each layer has a loss of its own (:func:`local_loss`, against 1
    for the right class and 0 for the others). Its gradient reaches that layer's weights and biases
    through the potentials of this step alone, so it is the three-factor rule of Kaiser, Mostafa &
    Neftci (Frontiers in Neuroscience 14:424, 2020): error of the readout, times surrogate gradient
    of the potential, times membrane trace of the input. Nothing of a step is kept for the next, so
    memory does not grow with the number of steps. With ``readout_dropout`` in the network's
    settings, the losses of training are those of readouts that do not see all spikes.

    Every batch starts from states at 0. A step of the trainer is one update of the parameters,
    of which a batch has several. Logs, per epoch:

    * ``{train,val,test}/loss``: summed over layers, mean over steps;
    * ``{train,val,test}/accuracy``: of the last layer, in [0, 1];
    * ``{train,val,test}/accuracy_layer_I``: of each layer before it, by its own readout;
    * ``{train,val,test}/activity_layer_I``: spikes per output and step.

    Args:
        network: The network; it says how long the burn-in is.
        optimizer: Called with the parameters; makes the optimizer.
        scheduler: Called with the optimizer; makes the learning-rate scheduler. One that wants the
            number of steps and was not given it is told the number of batches of the whole fit and
            steps after every batch; any other steps after every epoch. ReduceLROnPlateau watches
            ``monitor``. None: a constant rate.
        num_classes: Classes.
        loss: ``smooth_l1`` or ``mse``.
        update_every: Steps after which the parameters are updated, by the sum of the gradients of
            these steps; 1 is the online update of the authors' code. None: once per batch.
        excitation: Weight of the regulariser that keeps potentials low.
        silence: Of the one that keeps layers active.
        monitor: What a ReduceLROnPlateau scheduler watches.

    Raises:
        TypeError: Another network.
        ValueError: A value outside what is listed here.
    """

    network: Decolle

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., Any] | None = None,
        num_classes: int = 10,
        loss: str = "smooth_l1",
        update_every: int | None = 1,
        excitation: float = 0.0,
        silence: float = 0.0,
        monitor: str = "val/loss",
    ) -> None:
        super().__init__(network, optimizer, scheduler, num_classes, monitor)
        if not isinstance(network, Decolle):
            raise TypeError(
                f"{type(network).__name__} has no readout at each layer; take network=decolle, or "
                "learning=supervised"
            )
        _check(network, num_classes, loss, update_every)
        for name, value in (("excitation", excitation), ("silence", silence)):
            if not value >= 0.0:
                raise ValueError(f"{name}={value}; write 0 or more")
        self.automatic_optimization = False
        self.loss, self.update_every = loss, update_every
        self.excitation, self.silence = excitation, silence
        self._follows_batches = False
        self.accuracies = nn.ModuleDict(
            {f"{phase}_{name}": Accuracy() for phase in PHASES for name in self._accuracy_names()}
        )

    def device_operations(self, example: Tensor) -> Mapping[str, Any]:
        """What a device would compute to classify, by the protocol of `qspinn.plan`."""
        return prefixed(self.network.device_operations(example), "network.")

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Shows a batch ``(x, labels)`` and learns from it step by step."""
        del batch_idx
        self._evaluate("train", batch)
        if self._follows_batches:
            cast(_Scheduler, self.lr_schedulers()).step()

    def on_train_epoch_end(self) -> None:
        """Advances a scheduler that counts epochs."""
        scheduler = self.lr_schedulers()
        if scheduler is None or self._follows_batches:
            return
        if not isinstance(scheduler, ReduceLROnPlateau):
            cast(_Scheduler, scheduler).step()
            return
        metrics = self.trainer.callback_metrics
        if self.monitor not in metrics:
            raise ValueError(
                f"monitor={self.monitor!r} is not logged; write one of {', '.join(metrics)}"
            )
        scheduler.step(metrics[self.monitor])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, and the scheduler, which this module advances by itself."""
        optimizer = self.optimizer_factory(self.parameters())
        scheduler, self._follows_batches = self._scheduler(optimizer)
        return optimizer if scheduler is None else ([optimizer], [scheduler])

    def _evaluate(self, phase: str, batch: Batch) -> None:
        """Runs the network over a batch, learning meanwhile in training, and logs."""
        (x, labels), learning = batch, phase == "train"
        functional.reset_net(self.network)
        try:
            seen = _Seen(len(self.network.layers))
            target = nn.functional.one_hot(labels, self.num_classes).to(torch.float32)
            pending = 0
            for t, frame in enumerate(self.network.encoded(x)):
                counted = t >= self.network.burn_in
                with torch.set_grad_enabled(learning and counted):
                    steps = self.network.step(frame)
                    if not counted:
                        continue
                    loss = self._loss_of(steps, target)
                if learning:
                    self.manual_backward(loss)
                    pending += 1
                    if pending == self.update_every:
                        self._update()
                        pending = 0
                seen.add(steps, loss)
            if pending:
                self._update()
        finally:
            functional.reset_net(self.network)
        self._log(phase, seen, labels)

    def _loss_of(self, steps: Sequence[LayerStep], target: Tensor) -> Tensor:
        losses = [
            local_loss(step, target, self.loss, self.excitation, self.silence) for step in steps
        ]
        return torch.stack(losses).sum()

    def _update(self) -> None:
        optimizer = cast(LightningOptimizer, self.optimizers())
        optimizer.step()
        optimizer.zero_grad()

    def _accuracy_names(self) -> list[str]:
        return [*(f"accuracy_layer_{i}" for i in range(len(self.network.layers) - 1)), "accuracy"]

    def _log(self, phase: str, seen: _Seen, labels: Tensor) -> None:
        shared = per_epoch(labels)
        self.log(f"{phase}/loss", seen.loss / seen.count, prog_bar=phase == "train", **shared)
        names = self._accuracy_names()
        for name, scores in zip(names, seen.scores, strict=True):
            self._log_accuracy(f"{phase}/{name}", scores, labels, prog_bar=name == "accuracy")
        for index, activity in enumerate(seen.activities):
            self.log(f"{phase}/activity_layer_{index}", activity / seen.count, **shared)


class _Seen:
    """What is summed up over the steps of a batch."""

    def __init__(self, layers: int) -> None:
        self.count = 0
        self.loss: Tensor | float = 0.0
        self.scores: list[Any] = [0.0] * layers
        self.activities: list[Any] = [0.0] * layers

    def add(self, steps: Sequence[LayerStep], loss: Tensor) -> None:
        """Adds one step; sums of readouts in float64, where those of fixed point are exact."""
        self.count += 1
        self.loss = self.loss + loss.detach()
        for index, step in enumerate(steps):
            self.scores[index] = self.scores[index] + step.readout.detach().double()
            self.activities[index] = self.activities[index] + step.spikes.detach().float().mean()


def _check(network: Decolle, num_classes: int, loss: str, update_every: int | None) -> None:
    if num_classes != network.num_classes:
        raise ValueError(
            f"num_classes={num_classes}: the network has {network.num_classes}; write the same"
        )
    if loss not in LOSSES:
        raise ValueError(f"loss={loss!r}; write one of {', '.join(LOSSES)}")
    if update_every is not None and update_every < 1:
        raise ValueError(f"update_every={update_every}; write 1 or more, or null")
