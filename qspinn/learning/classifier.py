"""What all LightningModules here share: the steps of an evaluation, and who steps a scheduler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import lightning
import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from qspinn.learning.schedule import step_count_argument
from qspinn.metrics import Accuracy

Batch = tuple[Tensor, Tensor]


class Classifier(lightning.LightningModule):
    """Evaluates batches ``(x, labels)`` by :meth:`_evaluate`, and predicts the best class."""

    network: nn.Module
    accuracies: nn.ModuleDict

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Logs what a batch shows."""
        del batch_idx
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Logs what a batch shows."""
        del batch_idx
        self._evaluate("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The classes ``[N]`` of a batch; its labels are ignored."""
        del batch_idx
        return self(batch[0]).argmax(1)

    def _evaluate(self, phase: str, batch: Batch) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must implement _evaluate")

    def _log_accuracy(self, name: str, scores: Tensor, labels: Tensor, prog_bar: bool) -> None:
        """Logs ``PHASE/NAME`` per epoch, by the metric that is called ``PHASE_NAME``."""
        accuracy = cast(Accuracy, self.accuracies[name.replace("/", "_")])
        accuracy.update(scores, labels)
        self.log(name, accuracy, prog_bar=prog_bar, **per_epoch(labels))


class GradientClassifier(Classifier):
    """Trains by an optimizer; every batch starts from freshly reset neurons, none keeps a state.

    Args:
        network: The network.
        optimizer: Called with the parameters; makes the optimizer.
        scheduler: Called with the optimizer; makes the learning-rate scheduler. None: none.
        num_classes: Classes.
        monitor: What a ReduceLROnPlateau scheduler watches.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., Any] | None,
        num_classes: int,
        monitor: str,
    ) -> None:
        super().__init__()
        self.network = network
        self.optimizer_factory, self.scheduler_factory = optimizer, scheduler
        self.num_classes, self.monitor = num_classes, monitor

    def forward(self, x: Tensor) -> Tensor:
        """Class scores ``[N, classes]`` of the network, from freshly reset neurons."""
        functional.reset_net(self.network)
        try:
            return self.network(x)
        finally:
            functional.reset_net(self.network)

    def _scheduler(self, optimizer: torch.optim.Optimizer) -> tuple[Any, bool]:
        """The scheduler, and whether it steps after every batch and not after every epoch.

        It does if it wants the number of steps and was not given it: then it is told.
        """
        if self.scheduler_factory is None:
            return None, False
        steps = step_count_argument(self.scheduler_factory)
        told = {} if steps is None else {steps: int(self.trainer.estimated_stepping_batches)}
        return self.scheduler_factory(optimizer, **told), steps is not None


def per_epoch(labels: Tensor) -> dict[str, Any]:
    """How a batch with these labels is logged: as a part of the mean over an epoch."""
    return {"on_step": False, "on_epoch": True, "batch_size": len(labels)}
