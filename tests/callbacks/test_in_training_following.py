"""Formats follow the network while it trains: batch norm, blank batches, failures, freezing."""

import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from qspinn.callbacks import InTrainingQuantization
from qspinn.fixed_point import FixedPointFormat, to_integers
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import quantized_parameters
from qspinn.quantizers.class_swap import attached_quantizer
from tests.callbacks.harness import trainer

QUIET: dict[str, Any] = {"logger": False, "enable_checkpointing": False}


class Project(lightning.LightningModule):
    """Convolution, batch norm and LIF neurons, as PyTorch initialises them."""

    def __init__(self, gammas: list[float] | None = None, lr: float = 0.003) -> None:
        super().__init__()
        conv: Any = layer.Conv2d(1, 4, 3, padding=1, bias=False)
        stages = [conv, layer.BatchNorm2d(4), neuron.LIFNode(detach_reset=True), layer.Flatten()]
        self.network = nn.Sequential(*stages, layer.Linear(144, 3))
        functional.set_step_mode(self.network, "m")
        if gammas is not None:
            with torch.no_grad():
                self.network[1].weight.copy_(torch.tensor(gammas))
        self.lr = lr

    def forward(self, x: Tensor) -> Tensor:
        functional.reset_net(self.network)
        return self.network(x.expand(3, *x.shape)).mean(0)

    def training_step(self, batch: Any, index: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), self.lr)


class Watch(Callback):
    """Notes, batch by batch, the weights' gradients and all formats."""

    def __init__(self, callback: InTrainingQuantization) -> None:
        self.callback = callback
        self.dead: list[float] = []
        self.formats: list[dict[str, str]] = []

    def on_after_backward(self, stock: Any, pl_module: Any) -> None:
        gradient = pl_module.network[0].weight.grad
        self.dead.append(float((gradient.flatten(1) == 0).all(1).float().mean()))

    def on_train_batch_end(self, stock: Any, *args: Any) -> None:
        tensors = self.callback.resolved_plan.tensors
        self.formats.append({tensor.path: str(tensor.format) for tensor in tensors})


def images(count: int = 480) -> TensorDataset:
    """Bright rows tell the class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    noise = 0.5 * torch.rand(count, 1, 6, 6, generator=generator)
    rows = torch.arange(6)[None, None, :, None] // 2 == labels[:, None, None, None]
    return TensorDataset(noise + 0.5 * rows, labels)


def fitted(
    folder: Path,
    bits: int = 8,
    gammas: list[float] | None = None,
    data: TensorDataset | None = None,
    epochs: int = 1,
    **arguments: Any,
) -> tuple[Project, InTrainingQuantization, Watch, float]:
    """A module after a fit, and its accuracy."""
    torch.manual_seed(0)
    module = Project(gammas)
    callback = InTrainingQuantization(QuantizationPlan.uniform(word_length=bits), **arguments)
    watch = Watch(callback)
    stock = trainer(folder, callback, watch, max_epochs=epochs, **QUIET)
    data = data or images()
    stock.fit(module, DataLoader(data, 8), DataLoader(images(48), 24))
    return module, callback, watch, float(stock.callback_metrics["accuracy"])


def saturated(module: Project, callback: InTrainingQuantization) -> float:
    """The share of folded weights that lie beyond the format, from the definition of the fold."""
    conv, norm = module.network[0], module.network[1]
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    folded = conv.weight.double() * scale[:, None, None, None]
    fmt = callback.resolved_plan.of_layer("network.0")["weight"].format
    assert isinstance(fmt, FixedPointFormat)
    return float(((folded > fmt.max + fmt.step) | (folded < fmt.min - fmt.step)).float().mean())


@pytest.mark.few(0.1)
@pytest.mark.parametrize("arguments", [{}, {"freeze_epoch": 1}], ids=str)
@pytest.mark.parametrize("bits", [8, 4])
def test_folded_weights_do_not_outgrow_their_format(
    tmp_path: Path, bits: int, arguments: dict[str, int]
) -> None:
    """The running variance falls from 1 to about 0.06 within an epoch."""
    module, callback, watch, accuracy = fitted(tmp_path, bits, epochs=2, **arguments)
    assert float(module.network[1].running_var.mean()) < 0.2
    assert watch.formats[0]["network.0.weight"] != watch.formats[-1]["network.0.weight"]
    assert max(watch.dead) == 0.0
    assert saturated(module, callback) <= (0.05 if bits == 8 else 0.25)
    assert accuracy > 0.9


@pytest.mark.few(0.1)
@pytest.mark.parametrize(
    "gammas",
    [[0.0] * 4, [0.0, 1.0, 0.0, 1.0], [0.01, 1.0, 10.0, 1.0], [100.0, 1.0, 1.0, 1.0]],
    ids=str,
)
def test_gammas_of_all_sizes_train(tmp_path: Path, gammas: list[float]) -> None:
    module, _, watch, accuracy = fitted(tmp_path, 8, gammas, epochs=2)
    assert max(watch.dead[1:]) == 0.0 or min(gammas) == max(gammas) == 0.0
    moved = module.network[1].weight.detach() - torch.tensor(gammas)
    assert (moved.abs() > 1e-3).all()
    assert accuracy > 0.9


def test_formats_settle(tmp_path: Path) -> None:
    """They may not change to and fro: each change of a membrane's is compiled anew."""
    _, _, watch, _ = fitted(tmp_path, epochs=3)
    for path in watch.formats[0]:
        held = [formats[path] for formats in watch.formats]
        changes = [one != other for one, other in pairwise(held)]
        assert sum(changes) <= 8, path
        assert sum(changes[60:]) <= 2, path


def test_frozen_formats_stay(tmp_path: Path) -> None:
    _, _, watch, _ = fitted(tmp_path, epochs=3, freeze_epoch=1)
    batches = len(watch.formats) // 3
    assert watch.formats[0] != watch.formats[batches - 1]
    assert all(formats == watch.formats[batches - 1] for formats in watch.formats[batches:])


def with_first(batch: Tensor) -> TensorDataset:
    """The images, after a first batch of eight others."""
    x, y = images().tensors
    return TensorDataset(torch.cat([batch.expand(8, 1, 6, 6), x]), torch.cat([y[:8], y]))


@pytest.mark.parametrize("first", ["blank", "sparse"])
def test_a_first_batch_does_not_decide_that_an_input_is_binary(
    tmp_path: Path, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    batch = torch.zeros(1, 1, 6, 6)
    batch[..., 0, 0] = float(first == "sparse")
    with caplog.at_level(logging.WARNING, "qspinn"):
        module, callback, watch, accuracy = fitted(tmp_path, data=with_first(batch))
    assert "network.0.input" in watch.formats[1]
    # A blank batch shows nothing, so that an input gets a format at once.
    assert ("network.0.input" in watch.formats[0]) == (first == "blank")
    assert caplog.text.count("the input of network.0 was 0 or 1") == (first == "sparse")
    fmt = callback.resolved_plan.of_layer("network.0")["input"].format
    assert isinstance(fmt, FixedPointFormat)
    assert 0.9 < fmt.max < 2.0
    to_integers(attached_quantizer(module.network[0]).quantized_input(torch.rand(9)), fmt)
    assert accuracy > 0.9


def test_an_input_that_only_validation_shows_gets_a_format(tmp_path: Path) -> None:
    x, y = images(24).tensors
    torch.manual_seed(0)
    module, callback = Project(), InTrainingQuantization(QuantizationPlan.uniform(word_length=8))
    stock = trainer(tmp_path, callback, max_epochs=1, **QUIET)
    train = DataLoader(TensorDataset((x > 0.5).float(), y), 8)
    stock.fit(module, train, DataLoader(TensorDataset(x, y), 8))
    fmt = callback.resolved_plan.of_layer("network.0")["input"].format
    assert isinstance(fmt, FixedPointFormat)
    assert 0.9 < fmt.max < 2.0
    assert attached_quantizer(module.network[0]).input.format == fmt


def test_dropout_does_not_make_an_input(tmp_path: Path) -> None:
    """Spikes that dropout scales in training are 0 or 1 on the device."""
    torch.manual_seed(0)
    module, callback = Project(), InTrainingQuantization(QuantizationPlan.uniform(word_length=8))
    module.network.insert(4, layer.Dropout(0.3, step_mode="m"))
    stock = trainer(tmp_path, callback, max_epochs=1, **QUIET)
    stock.fit(module, DataLoader(images(96), 8), DataLoader(images(48), 24))
    assert "input" not in callback.resolved_plan.of_layer("network.5")
    assert "input" in callback.resolved_plan.of_layer("network.0")


class Spoiler(Callback):
    """Spoils the module after the fourth batch, and repairs it before the fifth."""

    def __init__(self, set_to: Any, bad: float) -> None:
        self.set_to, self.bad = set_to, bad

    def on_train_batch_end(self, stock: Any, pl_module: Any, *args: Any) -> None:
        if stock.global_step == 4:
            self.set_to(pl_module.network, self.bad)

    def on_train_batch_start(self, stock: Any, pl_module: Any, *args: Any) -> None:
        if stock.global_step == 4:
            self.set_to(pl_module.network, 0.0)


def set_bias(network: nn.Sequential, value: float) -> None:
    with torch.no_grad():
        network[4].bias.fill_(value)


def set_reset(network: nn.Sequential, value: float) -> None:
    network[2].v_reset = value


@pytest.mark.parametrize(
    ("set_to", "bad", "message"),
    [
        (set_bias, float("nan"), "network.4.bias: holds values that are not finite"),
        (set_reset, 0.9999, "network.2.v: in Q"),
    ],
    ids=["parameters that are not finite", "a neuron that would always fire"],
)
def test_what_fails_later_keeps_the_formats_and_is_told_once(
    tmp_path: Path, set_to: Any, bad: float, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    module, callback = Project(), InTrainingQuantization(QuantizationPlan.uniform(word_length=8))
    watch = Watch(callback)
    callbacks = [Spoiler(set_to, bad), callback, watch]
    stock = trainer(tmp_path, *callbacks, max_epochs=1, **QUIET)
    with caplog.at_level(logging.WARNING, "qspinn"):
        stock.fit(module, DataLoader(images(96), 8), DataLoader(images(48), 24))
    assert stock.global_step == 12
    assert caplog.text.count("keeps the formats in use") == 1
    assert f"keeps the formats in use: {message}" in caplog.text
    assert watch.formats[3][message.split(":")[0]] == watch.formats[2][message.split(":")[0]]
    assert all(torch.isfinite(value).all() for _, value in quantized_parameters(module))
