"""Learning without labels: the network changes its own synapses while it is shown images."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from qspinn.learning.classifier import Batch, Classifier, per_epoch
from qspinn.learning.labelling import LabellingImages
from qspinn.metrics import Accuracy, Share, SpikeStatistics
from qspinn.networks import Presentation
from qspinn.networks.device_operations import prefixed, with_readout
from qspinn.networks.readouts import Readouts

log = logging.getLogger(__name__)

PHASES = ("val", "test")
PRESENTED_TOGETHER = 500
"""Labelling images that are presented in one call."""
CHECKPOINT_KEY = "labelling_images"


class PresentsImages(Protocol):
    """A network that can be trained here.

    Attributes:
        neurons: Neurons whose spikes it counts.
        revision: Another number whenever weights, theta or formats have changed.
    """

    neurons: int

    @property
    def revision(self) -> int:
        """See above."""
        ...

    def present(self, images: Tensor, learning: bool = False) -> Presentation:
        """Shows images ``[M, *]`` in [0, 1], one after the other; learns from them if asked to."""
        ...


class UnsupervisedLearning(Classifier):
    """Trains a network that learns by itself, and fits readouts to its neurons.

    Training uses no label and no optimizer: a batch is so many images shown to the network, and
    how many of them share the same weights is up to the network. A batch counts as one step
    of the trainer.

    Which class each neuron represents is determined afterwards, from the training set alone: the
    first ``labelling_images`` images of the epoch are kept with their labels, and the readouts are
    fitted to the responses of the network to them, whenever a validation, a test, a prediction, a
    checkpoint or the end of the training finds that the network has changed since the last fit.
    Checkpoints hold the fitted readouts and these images (compressed), so that the readouts of a
    loaded network can be fitted again after it was quantised.

    Logs, per epoch:

    * ``train/output_spikes`` and ``train/input_spikes``: per image;
    * ``train/update_underflow``: the share of synaptic updates that rounding lost;
    * ``{val,test}/accuracy``: of the chosen readout, as a device would compute it, in [0, 1];
    * ``{val,test}/accuracy_maximum``, ``_proportion``, ``_ridge``: of each readout; those that were
      not chosen are in 32-bit, whatever the plan;
    * ``{val,test}/silent_neurons``: the share of neurons that answered to no image.

    Args:
        network: Follows :class:`PresentsImages`.
        num_classes: Classes.
        readout: ``maximum``, ``proportion`` or ``ridge``, see :mod:`qspinn.networks.readouts`.
        labelling_images: Training images that the readouts are fitted on, at most.

    Attributes:
        readout: The readouts.
        confusion: Of the last test: rows are labels, columns the classes given, ``[C, C]``.

    Raises:
        TypeError: A network that does not learn by itself.
        ValueError: An unknown readout, fewer than 2 classes or no labelling image.
    """

    network: Any  # PresentsImages

    def __init__(
        self,
        network: nn.Module,
        num_classes: int = 10,
        readout: str = "proportion",
        labelling_images: int = 20000,
    ) -> None:
        super().__init__()
        for name in ("present", "neurons", "revision"):
            if not hasattr(network, name):
                raise TypeError(
                    f"{type(network).__name__} does not learn by itself (it has no {name}); take "
                    "network=diehl_cook, or learning=supervised"
                )
        self.save_hyperparameters("num_classes", "readout", "labelling_images")
        self.automatic_optimization = False
        self.network = network
        self.num_classes = num_classes
        self.readout = Readouts(readout, self.network.neurons, num_classes)
        self.labelling = LabellingImages(labelling_images)
        names = ("accuracy", *(f"accuracy_{name}" for name in self.readout.each))
        self.accuracies = nn.ModuleDict(
            {f"{phase}_{name}": Accuracy() for phase in PHASES for name in names}
        )
        self.responses = nn.ModuleDict({phase: SpikeStatistics() for phase in PHASES})
        self.underflow = Share()
        self.confusion = MulticlassConfusionMatrix(num_classes)
        self._fitted_revision: int | None = None
        self.register_load_state_dict_post_hook(_take_readouts_as_they_are)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores ``[M, classes]`` of the chosen readout."""
        return self.readout[self.readout.chosen](self._shown(images))

    def device_operations(self, example: Tensor) -> Mapping[str, Any]:
        """What a device would compute to classify, by the protocol of `qspinn.plan`."""
        network: Any = self.network
        if not hasattr(network, "device_operations"):
            raise ValueError(
                f"{type(network).__name__} does not say what a device would compute of it; write "
                "its device_operations()"
            )
        said = prefixed(network.device_operations(example), "network.")
        return with_readout(said, self.readout[self.readout.chosen], "readout")

    def device_learning(self) -> Mapping[str, Any]:
        """What a device would need to go on learning, by the protocol of `qspinn.plan`."""
        network: Any = self.network
        if not hasattr(network, "device_learning"):
            raise ValueError(
                f"{type(network).__name__} does not say how a device would learn; write its "
                "device_learning()"
            )
        learning: Mapping[str, Any] = network.device_learning()
        return learning

    def configure_optimizers(self) -> Any:
        """No optimizer (an empty list: Lightning warns of None)."""
        return []

    def on_fit_start(self) -> None:
        """Refuses several processes, of which each would learn weights of its own."""
        if self.trainer.world_size != 1:
            raise ValueError(
                f"UnsupervisedLearning: the trainer has {self.trainer.world_size} processes, and "
                "synapses that change at every spike lie in one; write Trainer(devices=1)"
            )

    def on_train_epoch_start(self) -> None:
        """Starts to keep images again."""
        self.labelling.clear()

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Shows a batch ``(images, labels)`` to the network, which learns; the labels are kept."""
        del batch_idx
        images, labels = batch
        self.labelling.add(images, labels)
        with torch.no_grad():
            shown = self.network.present(images, learning=True)
        self.underflow.update(shown.underflows, shown.updates)
        count, settings = len(images), per_epoch(labels)
        self.log("train/output_spikes", shown.spike_counts.sum() / count, **settings)
        self.log("train/input_spikes", shown.input_spikes / count, **settings)
        self.log("train/update_underflow", self.underflow, **settings)
        # Lightning counts steps of optimizers; a step count that stays at 0 means no checkpoints.
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.increment_ready()
        progress.increment_completed()

    def on_train_end(self) -> None:
        """Fits the readouts to the trained network."""
        if len(self.labelling):
            self.fit_readouts()

    def on_validation_start(self) -> None:
        """Fits the readouts to the network as it is now."""
        if not self.trainer.sanity_checking:
            self.fit_readouts()

    def on_test_start(self) -> None:
        """Fits the readouts to the network as it is now."""
        self.fit_readouts()
        self.confusion.reset()

    def on_predict_start(self) -> None:
        """Fits the readouts to the network as it is now."""
        self.fit_readouts()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Logs the accuracies of a batch, and counts which class is confused with which."""
        del batch_idx
        scores = self._evaluate("test", batch)
        self.confusion.update(scores.argmax(1), batch[1])

    def on_validation_epoch_end(self) -> None:
        """Logs the share of silent neurons."""
        self._log_silent("val")

    def on_test_epoch_end(self) -> None:
        """Logs the share of silent neurons."""
        self._log_silent("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the labelling images, and readouts that fit the network."""
        if len(self.labelling):
            self.fit_readouts()
        checkpoint["state_dict"].update(self.readout.state_dict(prefix="readout."))
        checkpoint[CHECKPOINT_KEY] = self.labelling.to_checkpoint()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over the labelling images."""
        if CHECKPOINT_KEY in checkpoint:
            self.labelling.from_checkpoint(checkpoint[CHECKPOINT_KEY])

    def fit_readouts(self) -> None:
        """Fits the readouts on the labelling images, unless they fit the network already.

        Raises:
            RuntimeError: There are no images, and there never were any.
        """
        if bool(self.readout.is_fitted) and self._fitted_revision == self.network.revision:
            return
        if len(self.labelling):
            counts = [self._shown(images) for images in self.labelling.batches(PRESENTED_TOGETHER)]
            self.readout.fit(torch.cat(counts), self.labelling.labels.to(self.device))
        elif self.readout.is_fitted:
            log.warning(
                "UnsupervisedLearning: the readouts were fitted on the network before it was "
                "changed, and there are no labelling images to fit them anew"
            )
        else:
            raise RuntimeError(
                "UnsupervisedLearning: the readouts are not fitted; fit the module first, or give "
                "ckpt_path= a checkpoint of a fit"
            )
        self._fitted_revision = self.network.revision

    def _shown(self, images: Tensor) -> Tensor:
        """Spike counts ``[M, neurons]`` without learning."""
        with torch.no_grad():
            counts: Tensor = self.network.present(images.to(self.device)).spike_counts
        return counts

    def _evaluate(self, phase: str, batch: Batch) -> Tensor:
        images, labels = batch
        counts = self._shown(images)
        cast(SpikeStatistics, self.responses[phase]).update(counts[None])
        scores = self.readout(counts)
        chosen: Tensor = scores[self.readout.chosen]
        self._log_accuracy(f"{phase}/accuracy", chosen, labels, prog_bar=True)
        for name, values in scores.items():
            self._log_accuracy(f"{phase}/accuracy_{name}", values, labels, prog_bar=False)
        return chosen

    def _log_silent(self, phase: str) -> None:
        statistics = cast(SpikeStatistics, self.responses[phase])
        self.log(f"{phase}/silent_neurons", statistics.compute()["silent_fraction"])
        statistics.reset()


def _take_readouts_as_they_are(module: nn.Module, keys: Any) -> None:
    """After a state was loaded: its readouts were fitted on its network."""
    del keys
    assert isinstance(module, UnsupervisedLearning)
    module._fitted_revision = module.network.revision
