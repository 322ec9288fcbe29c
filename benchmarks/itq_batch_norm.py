"""In-training quantisation behind batch norm: accuracy epoch by epoch, and what it costs.

2,000 MNIST images at 14x14, two blocks of convolution, batch norm and LIF neurons with PyTorch's
own initialisation: the running variances fall by orders of magnitude in the first epoch, and
formats must follow.

    python benchmarks/itq_batch_norm.py --root FOLDER       # MNIST in FOLDER/MNIST/raw
    python benchmarks/itq_batch_norm.py --cost              # what following takes of a step
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import measuring  # noqa: F401  (the path, one thread)

import lightning
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model.sew_resnet import sew_resnet18
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from qspinn.callbacks import InTrainingQuantization, ResetStates
from qspinn.data.idx import read_idx
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, calibrate
from qspinn.quantizers.attach import reattach
from qspinn.quantizers.following import Following

STEPS = 4


def network(gammas: Tensor | None = None) -> nn.Sequential:
    """Two blocks of convolution, batch norm and LIF neurons, pooling between, and class scores."""

    def lif() -> nn.Module:
        return neuron.LIFNode(detach_reset=True, surrogate_function=surrogate.ATan())

    net = nn.Sequential(
        *(layer.Conv2d(1, 32, 3, padding=1, bias=False), layer.BatchNorm2d(32), lif()),
        layer.MaxPool2d(2, 2),
        *(layer.Conv2d(32, 64, 3, padding=1, bias=False), layer.BatchNorm2d(64), lif()),
        *(layer.Flatten(), layer.Linear(64 * 7 * 7, 10)),
    )
    functional.set_step_mode(net, "m")
    if gammas is not None:
        for child in net.modules():
            if isinstance(child, nn.BatchNorm2d):
                with torch.no_grad():
                    child.weight.copy_(gammas.repeat(child.num_features)[: child.num_features])
    return net


class Project(lightning.LightningModule):
    """A module as anyone writes it; keeps the validation accuracy of each epoch."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.network = net
        self.accuracies: list[float] = []
        self.correct: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self.network)
        return self.network(x.expand(STEPS, *x.shape)).mean(0)

    def training_step(self, batch: Any, index: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, index: int) -> None:
        self.correct.append(self(batch[0]).argmax(1) == batch[1])

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.accuracies.append(100 * torch.cat(self.correct).float().mean().item())
        self.correct = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 2e-3)


def images(root: Path, part: str, count: int) -> TensorDataset:
    """The first ``count`` images, averaged to 14x14."""
    folder = root / "MNIST" / "raw"
    pixels = torch.as_tensor(read_idx(folder / f"{part}-images-idx3-ubyte"))[:count]
    labels = torch.as_tensor(read_idx(folder / f"{part}-labels-idx1-ubyte"))[:count]
    small = nn.functional.avg_pool2d(pixels[:, None].float() / 255, 2)
    return TensorDataset(small, labels.long())


def fit(root: Path, seed: int, callback: Any, gammas: Tensor | None = None) -> list[float]:
    """The validation accuracy after each of four epochs, in percent."""
    lightning.seed_everything(seed, verbose=False)
    module = Project(network(gammas))
    train = DataLoader(images(root, "train", 2000), 16, shuffle=True)
    test = DataLoader(images(root, "t10k", 2000), 500)
    trainer(4, callback).fit(module, train, test)
    return module.accuracies


def trainer(epochs: int, *callbacks: Any, **arguments: Any) -> lightning.Trainer:
    """One that says and keeps nothing."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return lightning.Trainer(
        max_epochs=epochs,
        callbacks=list(callbacks),
        accelerator="cpu",
        enable_model_summary=False,
        **quiet,
        **arguments,
    )


def itq(bits: int, granularity: str = "tensor", **arguments: Any) -> InTrainingQuantization:
    """In-training quantisation with so many bits for all that is quantised."""
    plan = QuantizationPlan.uniform(word_length=bits, granularity=granularity)
    return InTrainingQuantization(plan, **arguments)


SETTINGS: dict[str, Any] = {
    "float": (ResetStates, None),
    "8 bits": (lambda: itq(8), None),
    "8 bits, freeze_epoch=1": (lambda: itq(8, freeze_epoch=1), None),
    "4 bits": (lambda: itq(4), None),
    "4 bits, freeze_epoch=1": (lambda: itq(4, freeze_epoch=1), None),
    "float, gammas 0, 1": (ResetStates, (0.0, 1.0)),
    "8 bits, gammas 0, 1": (lambda: itq(8), (0.0, 1.0)),
    "4 bits, gammas 0, 1": (lambda: itq(4), (0.0, 1.0)),
    "float, gammas 0.1, 1, 10": (ResetStates, (0.1, 1.0, 10.0)),
    "8 bits, gammas 0.1, 1, 10": (lambda: itq(8), (0.1, 1.0, 10.0)),
    "4 bits, gammas 0.1, 1, 10": (lambda: itq(4), (0.1, 1.0, 10.0)),
    "4 bits by channel, gammas 0.1, 1, 10": (lambda: itq(4, "channel"), (0.1, 1.0, 10.0)),
}


def accuracies(root: Path, seeds: int, only: str) -> None:
    """A line per setting: the mean over seeds after each epoch."""
    for name, (callback, gammas) in SETTINGS.items():
        if only in name:
            given = None if gammas is None else torch.tensor(gammas)
            runs = [fit(root, seed, callback(), given) for seed in range(seeds)]
            means = [statistics.mean(epoch) for epoch in zip(*runs, strict=True)]
            print(f"{name:36}", *(f"{mean:6.2f}" for mean in means), flush=True)


def cost() -> None:
    """Processor time of a step of SEW-ResNet-18, and of what chooses its formats."""
    net = sew_resnet18(
        spiking_neuron=neuron.IFNode, cnf="ADD", num_classes=10, surrogate_function=surrogate.ATan()
    )
    functional.set_step_mode(net, "m")
    x, y = torch.rand(4, 4, 3, 64, 64), torch.arange(4)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)

    def step() -> None:
        functional.reset_net(net)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x).mean(0), y).backward()
        optimizer.step()

    step()
    print(f"step in float                {seconds(step, 5):.3f} s")
    plan = QuantizationPlan.uniform(word_length=8)
    resolved = plan.resolve(net, x)
    once = seconds(lambda: calibrate(net, resolved, x, learning=True), 1)
    print(f"choosing on the first batch  {once:.3f} s")
    resolved = calibrate(net, resolved, x, learning=True)
    attach(net, resolved).train()
    step()
    print(f"quantised step               {seconds(step, 5):.3f} s")
    following, taken = Following(), []
    for _ in range(48):
        start = time.process_time()
        following.begin_batch(net, resolved)
        looked = time.process_time() - start
        step()
        start = time.process_time()
        following.end_batch(net, resolved)
        changed = following.follow(net, resolved)
        if changed != resolved:
            reattach(net, changed)
            resolved = changed
        taken.append(looked + time.process_time() - start)
    print(f"following, batches 0 to 15   {statistics.mean(taken[:16]):.4f} s a step")
    print(f"following, batches 16 to 47  {statistics.mean(taken[16:]):.4f} s a step")


def seconds(work: Any, times: int) -> float:
    """The median processor time of ``work``."""
    found = []
    for _ in range(times):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return statistics.median(found)


def main() -> None:
    """Prints what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("data"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--cost", action="store_true", help="what following takes of a step")
    parser.add_argument("--only", default="", help="settings whose name contains this")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    if arguments.cost:
        cost()
        return
    start = time.perf_counter()
    accuracies(arguments.root, arguments.seeds, arguments.only)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
