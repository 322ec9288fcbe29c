"""Supervised learning with surrogate gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from qspinn.learning.schedule import step_count_argument
from qspinn.metrics import Accuracy

LOSSES = ("mse", "cross_entropy")
Batch = tuple[Tensor, Tensor]


def rate_loss(scores: Tensor, labels: Tensor, loss: str) -> Tensor:
    """Loss of class scores that are firing rates.

    * ``mse``: mean square of the difference to 1 for the right class and 0 for the others.
    * ``cross_entropy``: of the softmax of the scores.

    Args:
        scores: ``[N, classes]``.
        labels: ``int64`` ``[N]``.
        loss: ``mse`` or ``cross_entropy``.

    Returns:
        Mean over the batch, ``[]``.
    """
    if loss == "cross_entropy":
        return nn.functional.cross_entropy(scores, labels)
    target = nn.functional.one_hot(labels, scores.shape[1]).to(scores.dtype)
    return nn.functional.mse_loss(scores, target)


class SupervisedLearning(lightning.LightningModule):
    """Trains a spiking network to classify, through the surrogate gradient of its neurons.

    Every batch starts from freshly reset neurons, and none keeps a state after it, so the module
    can be copied and pickled between batches. Logs, per epoch, ``train/loss``, ``train/accuracy``,
    ``val/loss``, ``val/accuracy``, ``test/loss`` and ``test/accuracy`` (accuracy in [0, 1]).

    Args:
        network: Module from ``[N, ...]`` (or ``[T, N, ...]``) to class scores ``[N, classes]``.
        optimizer: Called with the parameters; makes the optimizer.
        scheduler: Called with the optimizer; makes the learning-rate scheduler. One that wants the
            number of steps (``total_steps`` of OneCycleLR, ``T_max`` of CosineAnnealingLR) and was
            not given it is told the number for the whole fit and steps after every batch; any other
            steps after every epoch. ReduceLROnPlateau watches ``monitor``. None: a constant rate.
        num_classes: Classes.
        loss: ``mse`` or ``cross_entropy``, see :func:`rate_loss`.
        monitor: What a ReduceLROnPlateau scheduler watches.

    Raises:
        ValueError: An unknown loss, fewer than 2 classes, or a network with nothing to train.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., Any] | None = None,
        num_classes: int = 10,
        loss: str = "mse",
        monitor: str = "val/loss",
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise ValueError(f"loss={loss!r}; write one of {', '.join(LOSSES)}")
        if num_classes < 2:
            raise ValueError(f"num_classes={num_classes}; write 2 or more")
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise ValueError(
                f"{type(network).__name__} has no parameter that a gradient can train; a network "
                "that learns by itself is for learning=stdp"
            )
        self.save_hyperparameters("num_classes", "loss", "monitor")
        self.network = network
        self.optimizer_factory = optimizer
        self.scheduler_factory = scheduler
        self.num_classes = num_classes
        self.loss = loss
        self.monitor = monitor
        self.accuracies = nn.ModuleDict(
            {f"{phase}_accuracy": Accuracy() for phase in ("train", "val", "test")}
        )

    def forward(self, x: Tensor) -> Tensor:
        """Class scores ``[N, classes]`` of the network, from freshly reset neurons."""
        functional.reset_net(self.network)
        try:
            return self.network(x)
        finally:
            functional.reset_net(self.network)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch ``(x, labels)``."""
        del batch_idx
        return self._step("train", batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Logs the loss and the accuracy of a batch."""
        del batch_idx
        self._step("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Logs the loss and the accuracy of a batch."""
        del batch_idx
        self._step("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The classes ``[N]`` of a batch; its labels are ignored."""
        del batch_idx
        return self(batch[0]).argmax(1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, and the scheduler with the interval at which it steps."""
        optimizer = self.optimizer_factory(self.parameters())
        if self.scheduler_factory is None:
            return optimizer
        steps = step_count_argument(self.scheduler_factory)
        if steps is None:
            scheduler, interval = self.scheduler_factory(optimizer), "epoch"
        else:
            count = int(self.trainer.estimated_stepping_batches)
            scheduler, interval = self.scheduler_factory(optimizer, **{steps: count}), "step"
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": scheduler,
                "interval": interval,
                "monitor": self.monitor,
            },
        }

    def _step(self, phase: str, batch: Batch) -> Tensor:
        x, labels = batch
        scores = self(x)
        self._check_scores(scores, x)
        loss = rate_loss(scores, labels, self.loss)
        accuracy = cast(Accuracy, self.accuracies[f"{phase}_accuracy"])
        accuracy.update(scores.detach(), labels)
        shared: dict[str, Any] = {
            "on_step": False,
            "on_epoch": True,
            "batch_size": len(labels),
        }
        self.log(f"{phase}/loss", loss, prog_bar=phase == "train", **shared)
        self.log(f"{phase}/accuracy", accuracy, prog_bar=True, **shared)
        return loss

    def _check_scores(self, scores: Tensor, x: Tensor) -> None:
        if scores.ndim != 2 or scores.shape[1] != self.num_classes:
            raise ValueError(
                f"the network made scores {list(scores.shape)} from an input {list(x.shape)}: "
                f"expected [N, {self.num_classes}]; num_classes of learning and network must agree"
            )
