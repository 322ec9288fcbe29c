"""What other people's projects look like: nothing here knows of qspinn."""

from __future__ import annotations

import functools
from typing import Any

import lightning
import torch
import torchmetrics
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model.parametric_lif_net import DVSGestureNet
from spikingjelly.activation_based.model.spiking_resnet import spiking_resnet18
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

CLASSES = 3


class StepLoop(nn.Module):
    """PLIF and IF with soft reset, single-step, in a loop over time that is written out."""

    def __init__(self, steps: int = 4) -> None:
        super().__init__()
        self.steps = steps
        self.conv = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.plif = neuron.ParametricLIFNode(init_tau=2.0, detach_reset=True)
        self.pool = nn.AvgPool2d(2)
        self.hidden = nn.Linear(4 * 4 * 4, 12)
        self.integrate = neuron.IFNode(v_threshold=0.5, v_reset=None)
        self.readout = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(x.shape[0], CLASSES, device=x.device)
        for _ in range(self.steps):
            spikes = self.plif(self.norm(self.conv(x)))
            spikes = self.integrate(self.hidden(self.pool(spikes).flatten(1)))
            total = total + self.readout(spikes)
        return total / self.steps


class Repeated(nn.Module):
    """A multi-step network on inputs ``[N, T, *]``, or on still ones that are repeated."""

    def __init__(self, network: nn.Module, steps: int | None) -> None:
        super().__init__()
        functional.set_step_mode(network, "m")
        self.network = network
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        still = self.steps is not None
        x_seq = x.expand(self.steps, *x.shape) if still else x.transpose(0, 1)
        return self.network(x_seq).mean(0)[:, :CLASSES]


def dvs_gesture() -> nn.Module:
    network = DVSGestureNet(
        channels=4,
        spiking_neuron=neuron.ParametricLIFNode,
        init_tau=2.0,
        v_threshold=0.3,
        surrogate_function=surrogate.ATan(),
        detach_reset=True,
    )
    return Repeated(network, None)


def resnet() -> nn.Module:
    """Without the last stage, which has three quarters of the weights."""
    spiking = functools.partial(neuron.IFNode, surrogate_function=surrogate.ATan())
    network = spiking_resnet18(spiking_neuron=spiking, num_classes=CLASSES)
    network.layer4 = nn.Identity()
    network.fc = layer.Linear(network.fc.in_features // 2, CLASSES)
    return Repeated(network, 2)


def sequential(dropout: float = 0.25) -> nn.Module:
    """A small and fast one, with dropout, so that the order of random numbers shows."""
    return Repeated(
        nn.Sequential(
            layer.Conv2d(1, 4, 3, padding=1, bias=False),
            layer.BatchNorm2d(4),
            neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan()),
            layer.MaxPool2d(2),
            layer.Flatten(),
            layer.Dropout(dropout),
            layer.Linear(64, CLASSES),
        ),
        3,
    )


SAMPLE_SHAPES = {
    "dvs_gesture": (2, 2, 128, 128),
    "resnet": (3, 32, 32),
    "step_loop": (1, 8, 8),
    "sequential": (1, 8, 8),
}
MAKERS: dict[str, Any] = {
    "dvs_gesture": dvs_gesture,
    "resnet": resnet,
    "step_loop": StepLoop,
    "sequential": sequential,
}


def dataset(name: str, size: int, seed: int) -> TensorDataset:
    """Images whose bright rows tell the class."""
    generator = torch.Generator().manual_seed(seed)
    shape = SAMPLE_SHAPES[name]
    labels = torch.arange(size) % CLASSES
    images = torch.rand(size, *shape, generator=generator)
    rows = shape[-2] // CLASSES
    for image, label in zip(images, labels, strict=True):
        image[..., label * rows : (label + 1) * rows, :] += 2.0
    if name == "dvs_gesture":  # event counts
        images = images.floor()
    return TensorDataset(images, labels)


def loader(name: str, size: int = 12, seed: int = 0, **arguments: Any) -> DataLoader:
    return DataLoader(dataset(name, size, seed), **{"batch_size": 4, **arguments})


class Stranger(lightning.LightningModule):
    """Forgets to reset SpikingJelly's states; its accuracies are metrics over the epoch."""

    def __init__(self, network: nn.Module, lr: float = 0.01) -> None:
        super().__init__()
        self.network = network
        self.lr = lr
        metric = torchmetrics.Accuracy(task="multiclass", num_classes=CLASSES)
        self.train_accuracy = metric.clone()
        self.val_accuracy = metric.clone()
        self.test_accuracy = metric.clone()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def scored(self, batch: Any, metric: torchmetrics.Metric) -> Tensor:
        x, y = batch
        scores = self(x)
        metric(scores, y)
        return cross_entropy(scores, y)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.scored(batch, self.train_accuracy)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        self.log("train_accuracy", self.train_accuracy, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.scored(batch, self.val_accuracy))
        self.log("val_accuracy", self.val_accuracy)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_loss", self.scored(batch, self.test_accuracy))
        self.log("test_accuracy", self.test_accuracy)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self(batch[0])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)]


class Resetting(Stranger):
    """Remembers to reset."""

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self.network)
        return super().forward(x)


class TrainingOnly(Stranger):
    """Has only a training step."""

    validation_step = lightning.LightningModule.validation_step
    test_step = lightning.LightningModule.test_step
    predict_step = lightning.LightningModule.predict_step


class Manual(TrainingOnly):
    """Optimises by itself, and has no other step."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        loss = self.scored(batch, self.train_accuracy)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.log("train_loss", loss)


class ManualWithValidation(Manual):
    """Optimises by itself, and validates."""

    validation_step = Stranger.validation_step


class Dictionaries(Stranger):
    """Takes batches that are dictionaries; keeps its last outputs; writes to its logger."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.kept = {"losses": [super().training_step((batch["x"], batch["y"]), batch_idx)]}
        return self.kept["losses"][0]

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step((batch["x"], batch["y"]), batch_idx)
        if self.logger is not None:
            self.logger.log_metrics({"own_entry": float(batch_idx)})


class ManyValidations(Stranger):
    """Validates on several loaders, and says so in its signature."""

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        self.log("val_loss", self.scored(batch, self.val_accuracy))


class AsDictionary(torch.utils.data.Dataset):
    """Items as dictionaries."""

    def __init__(self, tensors: TensorDataset) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        x, y = self.tensors[index]
        return {"x": x, "y": y}


class Halves(lightning.LightningDataModule):
    """Splits at random in ``setup``, scales batches on the device, forgets its data at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.setups: list[str] = []

    def setup(self, stage: str) -> None:
        self.setups.append(stage)
        whole = dataset("sequential", 24, seed=5)
        self.train, self.rest = torch.utils.data.random_split(whole, [12, 12])
        self.tested = dataset("sequential", 8, seed=6)

    def teardown(self, stage: str) -> None:
        del self.train, self.rest, self.tested

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, batch_size=4, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.rest, batch_size=4)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.tested, batch_size=4)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        x, y = batch
        return x * 2.0 - 1.0, y
