"""Fits with a stock trainer, and what is compared afterwards."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from qspinn.callbacks import InTrainingQuantization, PostTrainingQuantization
from qspinn.callbacks.random_state import RandomState, capture_random_states
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import is_attached
from tests.callbacks.strangers import MAKERS, Stranger, loader, sequential

# A small and fast network, with dropout.
NAME = "sequential"
PLAN = QuantizationPlan.uniform(word_length=8)


def module(name: str = "sequential", kind: type[Stranger] = Stranger, seed: int = 1) -> Stranger:
    torch.manual_seed(seed)
    return kind(MAKERS[name]())


def trainer(folder: Path, *callbacks: lightning.Callback, **arguments: Any) -> lightning.Trainer:
    stock = {
        "accelerator": "cpu",
        "max_epochs": 2,
        "logger": CSVLogger(folder, name="log", version=0, flush_logs_every_n_steps=1000),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
    }
    return lightning.Trainer(callbacks=list(callbacks), **{**stock, **arguments})


def keeper(folder: Path, **arguments: Any) -> ModelCheckpoint:
    """Keeps the checkpoint of every epoch, as ``epoch=0.ckpt`` and so on."""
    return ModelCheckpoint(folder, "{epoch}", save_top_k=-1, monitor=None, **arguments)


def fit(
    folder: Path,
    name: str,
    *callbacks: lightning.Callback,
    ckpt_path: Path | None = None,
    size: int = 12,
    **arguments: Any,
) -> tuple[lightning.Trainer, Stranger]:
    """Fits a fresh stranger on shuffled data, with a checkpoint after every epoch."""
    fitted = module(name)
    stock = trainer(folder, RandomState(), *callbacks, keeper(folder), **arguments)
    torch.manual_seed(2)
    train = loader(name, size, shuffle=True)
    stock.fit(fitted, train, loader(name, 6, seed=1), ckpt_path=ckpt_path)
    return stock, fitted


def itq(**arguments: Any) -> InTrainingQuantization:
    return InTrainingQuantization(PLAN, **arguments)


def ptq(**arguments: Any) -> PostTrainingQuantization:
    return PostTrainingQuantization(PLAN, **arguments)


def simple_fit(stock: lightning.Trainer, fitted: Stranger, **arguments: Any) -> None:
    """On shuffled data."""
    torch.manual_seed(2)
    stock.fit(fitted, loader(NAME, shuffle=True), loader(NAME, 6, seed=1), **arguments)


def growing(dropout: float = 0.25) -> Stranger:
    """Learns so fast that the range of its weights changes every epoch."""
    torch.manual_seed(1)
    return Stranger(sequential(dropout), lr=1.0)


def measured_on_test(
    stock: lightning.Trainer, tested_module: Any, name: str, **arguments: Any
) -> dict:
    return stock.test(tested_module, loader(name, 6, seed=3), verbose=False, **arguments)[0]


class Watcher(Callback):
    """Notes, after every training batch, whether and how the module is quantised."""

    def __init__(self, watched: InTrainingQuantization) -> None:
        self.watched = watched
        self.quantized: list[tuple[int, bool]] = []
        self.formats: dict[int, Any] = {}

    def on_train_batch_end(self, stock: Any, pl_module: Any, *args: Any) -> None:
        self.quantized.append((stock.current_epoch, is_attached(pl_module)))
        if self.watched.resolved_plan is not None:
            self.formats[stock.current_epoch] = self.watched.resolved_plan.formats()


def assert_same(left: Any, right: Any) -> None:
    """Bit for bit, in nested dictionaries and lists of tensors and plain values."""
    assert type(left) is type(right)
    if isinstance(left, torch.Tensor):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert list(left) == list(right)
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    else:
        assert left == right


def plain_types(value: object) -> bool:
    """Whether it is made of dictionaries, lists, texts and numbers alone."""
    if isinstance(value, dict):
        return all(type(key) is str and plain_types(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(plain_types, value))
    return value is None or type(value) in (str, int, float, bool)


def traces(stock: lightning.Trainer, fitted: Stranger) -> dict[str, Any]:
    """Everything that a fit leaves behind."""
    return {
        "weights": dict(fitted.state_dict()),
        "optimizers": [optimizer.state_dict() for optimizer in stock.optimizers],
        "callback_metrics": dict(stock.callback_metrics),
        "logged_metrics": dict(stock.logged_metrics),
        "progress_bar_metrics": dict(stock.progress_bar_metrics),
        "state": (str(stock.state.fn), str(stock.state.status), str(stock.state.stage)),
        "steps": (stock.global_step, stock.current_epoch, stock.num_val_batches),
        "random": capture_random_states(),
        "training": [child.training for child in fitted.modules()],
        "trainer": fitted.trainer is stock,
        "flags": flags(),
    }


def flags() -> tuple[Any, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
    )


def logged_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "log" / "version_0" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def logged(folder: Path, column: str) -> list[float]:
    """The values of a column of the logger's table, in order, without gaps."""
    return [float(row[column]) for row in logged_rows(folder) if row.get(column)]
