"""Somebody's plastic networks, which declare their tensors: nothing here knows of qspinn."""

from __future__ import annotations

from typing import Any

import lightning
import torch
import torchmetrics
from spikingjelly.activation_based import base
from torch import Tensor, nn

CLASSES = 3
INPUTS = 64
NEURONS = 6
THRESHOLD = 3.0


def on_grid(value: Tensor, quantizer: Any) -> Tensor:
    """The stranger's own rounding; ``None`` for float."""
    if quantizer is None:
        return value
    fmt = quantizer.format
    scale = 2.0 ** torch.as_tensor(fmt.fraction_bits)
    lowest = -(2 ** (fmt.word_length - 1)) if fmt.signed else 0
    highest = lowest + 2**fmt.word_length - 1
    offsets = {"truncate": 0.0, "nearest": 0.5}
    if quantizer.rounding == "stochastic":
        offset: Any = torch.rand(value.shape)
    else:
        offset = offsets[quantizer.rounding]
    return (value * scale + offset).floor().clamp(lowest, highest) / scale


class Plastic(base.MemoryModule):
    """Neurons compete, and the winner's weights move towards the input: no optimizer.

    Its weights and thetas live on their grid while it learns; there is no copy in float.
    """

    def __init__(self, time_steps: int = 4) -> None:
        super().__init__()
        self.time_steps = time_steps
        self.weight = nn.Parameter(0.3 * torch.rand(INPUTS, NEURONS), requires_grad=False)
        self.register_buffer("theta", torch.zeros(NEURONS))
        self.register_buffer("labels", torch.zeros(NEURONS, dtype=torch.int64))
        self.register_buffer("answers", torch.zeros(NEURONS, CLASSES, dtype=torch.int64))
        self.register_memory("v", 0.0)  # a membrane, and yet no neuron of SpikingJelly's
        self.unused = nn.Linear(2, 2)  # whatever it is made of does not matter
        self.quantizers: dict[str, Any] = {}

    def device_tensors(self) -> list[dict[str, Any]]:
        weight = {"name": "weight", "role": "weight", "shape": (INPUTS, NEURONS)}
        theta = {"name": "theta", "role": "theta", "shape": (NEURONS,), "value": self.theta}
        threshold = {"name": "threshold", "role": "threshold", "shape": (), "value": THRESHOLD}
        labels = {"name": "labels", "role": None, "shape": (NEURONS,), "word_length": 2}
        return [
            {**weight, "channel_axis": 1, "value": self.weight, "low": 0.0, "high": 1.0},
            {**theta, "low": 0, "high": 32},
            {"name": "v", "role": "membrane", "shape": (NEURONS,), "low": 0.0, "high": 64.0},
            {**threshold, "constant": True},
            {"name": "trace", "role": "trace", "shape": (INPUTS,), "low": 0.0, "high": 2.0},
            labels,
            {"name": "counts", "role": None, "shape": (NEURONS, CLASSES), "training_only": True},
        ]

    def use_fixed_point(self, quantizers: Any) -> None:
        for quantizer in (quantizers or {}).values():
            if quantizer.overflow != "saturate":
                raise ValueError(f"overflow={quantizer.overflow!r}; this network only saturates")
        self.quantizers = dict(quantizers or {})
        self.weight.data = self.held("weight", self.weight.data)
        self.theta = self.held("theta", self.theta)

    def accumulator_word_lengths(self) -> dict[str, int]:
        return {"current": self.quantizers["weight"].format.word_length + 7}

    def held(self, name: str, value: Tensor) -> Tensor:
        return on_grid(value, self.quantizers.get(name))

    def present(self, images: Tensor, learning: bool = False) -> Tensor:
        """Spikes of each neuron to each image, ``[M, NEURONS]``."""
        return torch.stack([self.present_one(image, learning) for image in images])

    def present_one(self, image: Tensor, learning: bool) -> Tensor:
        spikes = torch.zeros(NEURONS)
        self.v, trace = torch.zeros(NEURONS), torch.zeros(INPUTS)
        threshold = self.held("threshold", torch.tensor(THRESHOLD))
        for _ in range(self.time_steps):
            trace = self.held("trace", 0.5 * trace + image)
            self.v = self.held("v", 0.5 * self.v + image @ self.weight)
            winner = (self.v - self.theta).argmax()
            if self.v[winner] < threshold + self.theta[winner]:
                continue
            spikes[winner] += 1
            self.v = torch.zeros(NEURONS)
            if learning:
                weight = self.weight.data.clone()
                weight[:, winner] += 0.2 * (trace.clamp(max=1.0) - weight[:, winner])
                self.weight.data = self.held("weight", weight)
                theta = self.theta.clone()
                theta[winner] += 0.1
                self.theta = self.held("theta", theta.clamp(max=32.0))
        return spikes

    def remember(self, spikes: Tensor, labels: Tensor) -> None:
        """Which class each neuron answers to most."""
        self.answers.index_add_(1, labels, spikes.long().T.contiguous())
        self.labels.copy_(self.answers.argmax(1))

    def scores(self, spikes: Tensor) -> Tensor:
        return spikes @ nn.functional.one_hot(self.labels, CLASSES).float()


class PlasticProject(lightning.LightningModule):
    """Learns without gradients and without an optimizer; has no forward."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = Plastic()
        self.accuracy = torchmetrics.Accuracy(task="multiclass", num_classes=CLASSES)
        self.validated = 0
        self.transferred = 0

    def configure_optimizers(self) -> Any:
        return []

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.transferred += 1
        return batch

    @staticmethod
    def images(batch: Any) -> Tensor:
        return (batch[0].flatten(1) / 2.0 - 0.5).clamp(0.0, 1.0)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        spikes = self.network.present(self.images(batch), learning=True)
        self.network.remember(spikes, batch[1])
        self.log("train_spikes", spikes.sum() / len(spikes), on_step=False, on_epoch=True)


class Validated(PlasticProject):
    """Has all the other steps."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated += 1
        self.accuracy(self.predict_step(batch, batch_idx), batch[1])
        self.log("val_accuracy", self.accuracy)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        spikes = self.network.present(self.images(batch))
        self.accuracy(self.network.scores(spikes), batch[1])
        self.log("test_accuracy", self.accuracy)
        self.log("test_current", (self.images(batch) @ self.network.weight).mean())

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.network.scores(self.network.present(self.images(batch)))


class DeclaresItself(PlasticProject):
    """The LightningModule is what declares its tensors."""

    def device_tensors(self) -> Any:
        return self.network.device_tensors()

    def use_fixed_point(self, quantizers: Any) -> None:
        self.network.use_fixed_point(quantizers)


class WithLayers(Validated):
    """A layer of the ordinary kind reads the plastic network out."""

    def __init__(self) -> None:
        super().__init__()
        self.readout = nn.Linear(NEURONS, CLASSES)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated += 1
        spikes = self.network.present(self.images(batch))
        self.log("val_scores", self.readout(spikes).sum())


class WithLayersUnvalidated(PlasticProject):
    """Only a step of its own shows how its layers are run."""

    def __init__(self) -> None:
        super().__init__()
        self.readout = nn.Linear(NEURONS, CLASSES)
