"""Supervised learning with surrogate gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from qspinn.learning.classifier import Batch, GradientClassifier, per_epoch
from qspinn.metrics import Accuracy

LOSSES = ("mse", "cross_entropy")


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


class SupervisedLearning(GradientClassifier):
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
        super().__init__(network, optimizer, scheduler, num_classes, monitor)
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
        self.loss = loss
        self.accuracies = nn.ModuleDict(
            {f"{phase}_accuracy": Accuracy() for phase in ("train", "val", "test")}
        )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch ``(x, labels)``."""
        del batch_idx
        return self._evaluate("train", batch)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, and the scheduler with the interval at which it steps."""
        optimizer = self.optimizer_factory(self.parameters())
        scheduler, by_batches = self._scheduler(optimizer)
        if scheduler is None:
            return optimizer
        interval = "step" if by_batches else "epoch"
        settings: Any = {"scheduler": scheduler, "interval": interval, "monitor": self.monitor}
        return {"optimizer": optimizer, "lr_scheduler": settings}

    def _evaluate(self, phase: str, batch: Batch) -> Tensor:
        x, labels = batch
        scores = self(x)
        if scores.ndim != 2 or scores.shape[1] != self.num_classes:
            raise ValueError(
                f"the network made scores {list(scores.shape)} from an input {list(x.shape)}: "
                f"expected [N, {self.num_classes}]; num_classes of learning and network must agree"
            )
        loss = rate_loss(scores, labels, self.loss)
        self.log(f"{phase}/loss", loss, prog_bar=phase == "train", **per_epoch(labels))
        self._log_accuracy(f"{phase}/accuracy", scores.detach(), labels, prog_bar=True)
        return loss
