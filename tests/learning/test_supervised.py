"""Supervised learning: losses, reset, logging, schedules, checkpoints, and that it learns."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from spikingjelly.activation_based import neuron
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from qspinn.learning import SupervisedLearning, rate_loss
from qspinn.networks import ConvSNN

CLASSES = 3


def pictures(count: int = 96) -> TensorDataset:
    """Bright bars in one of three places, with noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % CLASSES
    images = torch.rand(count, 1, 9, 9, generator=generator) * 0.4
    for image, label in zip(images, labels.tolist(), strict=True):
        image[0, 3 * label : 3 * label + 3] += 0.6
    return TensorDataset(images, labels)


def module(scheduler: Any = None, lr: float = 0.01, **settings: Any) -> SupervisedLearning:
    network = ConvSNN((1, 9, 9), CLASSES, channels=(6,), kernel_sizes=3, population=3, time_steps=3)
    optimizer = partial(torch.optim.Adam, lr=lr)
    return SupervisedLearning(network, optimizer, scheduler, num_classes=CLASSES, **settings)


def trainer(folder: Path, **settings: Any) -> lightning.Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
        "deterministic": True,
        "max_epochs": 2,
    }
    return lightning.Trainer(**{**defaults, **settings})


def loader(shuffle: bool = False) -> DataLoader[Any]:
    return DataLoader(pictures(), batch_size=32, shuffle=shuffle)


def test_losses_against_numpy() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.random((7, 4)), rng.integers(0, 4, 7)
    one_hot = np.eye(4)[labels]
    log_softmax = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    expected = {
        "mse": ((scores - one_hot) ** 2).mean(),
        "cross_entropy": -(one_hot * log_softmax).sum(1).mean(),
    }

    for loss, value in expected.items():
        result = rate_loss(torch.from_numpy(scores), torch.from_numpy(labels), loss)
        assert result.item() == pytest.approx(value)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_it_learns(tmp_path: Path, loss: str) -> None:
    lightning.seed_everything(1, verbose=False)
    learning = module(loss=loss)
    run = trainer(tmp_path, max_epochs=8)
    before = trainer(tmp_path).validate(learning, loader(), verbose=False)[0]

    run.fit(learning, loader(shuffle=True), loader())

    metrics = {name: float(value) for name, value in run.callback_metrics.items()}
    assert set(metrics) == {"train/loss", "train/accuracy", "val/loss", "val/accuracy"}
    assert metrics["val/loss"] < before["val/loss"]
    assert before["val/accuracy"] < 0.8
    assert metrics["val/accuracy"] > 0.95
    test = trainer(tmp_path).test(learning, loader(), verbose=False)[0]
    assert test == {
        "test/loss": pytest.approx(metrics["val/loss"]),
        "test/accuracy": pytest.approx(metrics["val/accuracy"]),
    }


def test_logged_values_are_means_over_samples(tmp_path: Path) -> None:
    learning = module().eval()
    images, labels = pictures(50).tensors  # batches of 32 and 18
    batches = DataLoader(TensorDataset(images, labels), batch_size=32)

    logged = trainer(tmp_path).validate(learning, batches, verbose=False)[0]

    with torch.no_grad():
        scores = learning(images).numpy()
    squares = (scores - np.eye(CLASSES)[labels]) ** 2
    assert logged["val/loss"] == pytest.approx(squares.mean(), rel=1e-5)
    assert logged["val/accuracy"] == pytest.approx((scores.argmax(1) == labels.numpy()).mean())


def test_batches_do_not_depend_on_each_other() -> None:
    learning = module()
    images, _ = pictures().tensors

    first = learning(images)
    learning(1 - images)

    assert torch.equal(learning(images), first)
    assert torch.equal(torch.cat([learning(images[:5]), learning(images[5:])]), first)


def test_no_state_is_left_after_a_batch_or_an_error() -> None:
    learning = module()
    learning.network(torch.rand(2, 1, 9, 9))  # leaves a state of another batch size

    learning(pictures().tensors[0]).sum().backward()

    nodes = [m for m in learning.modules() if isinstance(m, neuron.BaseNode)]
    assert [node.v for node in nodes] == [0.0] * len(nodes)
    copy.deepcopy(learning)
    with pytest.raises(ValueError, match="expected"):
        learning(torch.rand(2, 1, 5, 5))
    assert [node.v for node in nodes] == [0.0] * len(nodes)


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    def trained(seed: int) -> list[Tensor]:
        lightning.seed_everything(seed, verbose=False)
        learning = module()
        trainer(tmp_path).fit(learning, loader(shuffle=True))
        return [p.detach() for p in learning.parameters()]

    first, again, other = trained(3), trained(3), trained(4)

    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


class RateLog(lightning.Callback):
    """Learning rate of every step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: lightning.Trainer, *args: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (None, [0.01] * 6),
        (partial(lr_scheduler.StepLR, step_size=1, gamma=0.5), [0.01] * 3 + [0.005] * 3),
        (
            partial(lr_scheduler.CosineAnnealingLR),
            [0.005 * (1 + np.cos(np.pi * step / 6)) for step in range(6)],
        ),
        (partial(lr_scheduler.ReduceLROnPlateau, threshold=9.0), [0.01] * 6),
    ],
)
def test_schedules(tmp_path: Path, scheduler: Any, expected: list[float]) -> None:
    log = RateLog()

    run = trainer(tmp_path, callbacks=[log])
    run.fit(module(scheduler), loader(), loader())

    assert log.rates == pytest.approx(expected)


def test_one_cycle_is_told_the_length_of_the_fit(tmp_path: Path) -> None:
    log = RateLog()

    learning = module(partial(lr_scheduler.OneCycleLR, max_lr=0.01, pct_start=0.5))
    trainer(tmp_path, callbacks=[log]).fit(learning, loader())

    # Rises to its maximum in the middle of the 6 steps, then falls.
    assert np.argmax(log.rates) == 2
    assert max(log.rates) == pytest.approx(0.01)
    assert log.rates[-1] < log.rates[0] * 10


def test_checkpoints_hold_plain_types_and_restore(tmp_path: Path) -> None:
    learning = module(loss="cross_entropy")
    checkpoint = ModelCheckpoint(tmp_path)
    run = trainer(tmp_path, enable_checkpointing=True, callbacks=[checkpoint])
    run.fit(learning, loader())

    content = torch.load(checkpoint.best_model_path, weights_only=True)
    restored = SupervisedLearning.load_from_checkpoint(
        checkpoint.best_model_path,
        network=module().network,
        optimizer=partial(torch.optim.SGD, lr=0.1),
        weights_only=True,
    )

    assert content["hyper_parameters"] == {
        "num_classes": CLASSES,
        "loss": "cross_entropy",
        "monitor": "val/loss",
    }
    assert restored.loss == "cross_entropy"
    images = pictures().tensors[0]
    assert torch.equal(restored(images), learning(images))


def test_predictions_are_classes(tmp_path: Path) -> None:
    learning = module()
    predicted = trainer(tmp_path).predict(learning, loader())

    assert predicted is not None
    classes = torch.cat(list(predicted))  # type: ignore[arg-type]
    assert torch.equal(classes, learning(pictures().tensors[0]).argmax(1))


def test_wrong_settings() -> None:
    with pytest.raises(ValueError, match="loss='hinge'; write one of mse, cross_entropy"):
        module(loss="hinge")
    with pytest.raises(ValueError, match="num_classes=1; write 2 or more"):
        SupervisedLearning(nn.Identity(), torch.optim.SGD, num_classes=1)
    with pytest.raises(ValueError, match=r"Identity has no parameter .*for learning=stdp"):
        SupervisedLearning(nn.Identity(), torch.optim.SGD)


def test_network_and_learning_must_agree_on_the_classes(tmp_path: Path) -> None:
    learning = SupervisedLearning(module().network, partial(torch.optim.SGD, lr=0.1))

    with pytest.raises(ValueError, match=r"made scores \[32, 3\].*expected \[N, 10\]"):
        trainer(tmp_path).fit(learning, loader())
