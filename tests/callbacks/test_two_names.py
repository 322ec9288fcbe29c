"""Projects that say ``import pytorch_lightning as pl``, or both names."""

import importlib
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import torchmetrics
from torch import nn
from torch.nn.functional import cross_entropy

from qspinn.callbacks import (
    InTrainingQuantization,
    PostTrainingQuantization,
    RandomState,
    ResetStates,
)
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import is_attached
from tests.callbacks.strangers import loader, sequential

pytest.importorskip(
    "pytorch_lightning", reason="pytorch_lightning is missing; pip install -r requirements.txt"
)
NAMES = ["lightning", "pytorch_lightning"]
PLAN = QuantizationPlan.uniform(word_length=4)


def project_of(package: Any) -> Any:
    class Project(package.LightningModule):  # type: ignore[misc,name-defined]
        """Somebody's, with a metric, batch hooks and parameters that are saved."""

        def __init__(self) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.network: nn.Module = sequential(0.0)
            self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=3)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return cross_entropy(self.network(batch[0]), batch[1])

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.accuracy(self.network(batch[0]), batch[1])
            self.log("accuracy", self.accuracy)
            self.log("loss", cross_entropy(self.network(batch[0]), batch[1]))

        def test_step(self, batch: Any, batch_idx: int) -> None:
            self.validation_step(batch, batch_idx)

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=0.01)

    torch.manual_seed(1)
    return Project()


def data_of(package: Any) -> Any:
    class Data(package.LightningDataModule):  # type: ignore[misc,name-defined]
        def train_dataloader(self) -> Any:
            return loader("sequential")

        def val_dataloader(self) -> Any:
            return loader("sequential", 6, seed=1)

        def test_dataloader(self) -> Any:
            return loader("sequential", 6, seed=3)

    return Data()


def trainer_of(package: Any, folder: Path, *callbacks: Any) -> Any:
    return package.Trainer(
        accelerator="cpu",
        max_epochs=2,
        callbacks=list(callbacks),
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@pytest.fixture(autouse=True)
def one_seed() -> None:
    torch.manual_seed(7)


def fitted(name: str, folder: Path, callback: Any) -> Any:
    package = importlib.import_module(name)
    module = project_of(package)
    stock = trainer_of(package, folder, RandomState(), callback)
    stock.fit(module, datamodule=data_of(package))
    return module, stock


def test_both_names_give_the_same_numbers(tmp_path: Path) -> None:
    found = []
    for name in NAMES:
        torch.manual_seed(7)
        callback = PostTrainingQuantization(PLAN, stages=("validate", "test"))
        module, stock = fitted(name, tmp_path / name, callback)
        assert callback.failure is None
        assert {"ptq/loss", "ptq/accuracy"} <= set(callback.metrics)
        assert isinstance(callback.quantized_module, type(module))
        found.append((callback.metrics, callback.resolved_plan.formats(), stock.callback_metrics))
    assert found[0] == found[1]


@pytest.mark.parametrize("start_epoch", [0, 1])
def test_in_training(tmp_path: Path, start_epoch: int) -> None:
    found = []
    for name in NAMES:
        torch.manual_seed(7)
        callback = InTrainingQuantization(PLAN, start_epoch=start_epoch)
        module, stock = fitted(name, tmp_path / name, callback)
        assert is_attached(module)
        again = trainer_of(
            importlib.import_module(name),
            tmp_path / "x",
            InTrainingQuantization(PLAN, start_epoch=start_epoch),
        )
        path = stock.checkpoint_callback.best_model_path
        fresh = project_of(importlib.import_module(name))
        tested = again.test(fresh, loader("sequential", 6, seed=3), ckpt_path=path, verbose=False)
        assert tested == stock.test(module, loader("sequential", 6, seed=3), verbose=False)
        found.append(tested)
    assert found[0] == found[1]


@pytest.mark.parametrize("how", ["validate", "test"])
def test_a_checkpoint_is_evaluated_quantised(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    import pytorch_lightning

    callback = PostTrainingQuantization(PLAN, stages=(how,))
    _, stock = fitted("pytorch_lightning", tmp_path, callback)
    path = stock.checkpoint_callback.best_model_path
    again = trainer_of(pytorch_lightning, tmp_path / "x", PostTrainingQuantization(PLAN))
    fresh = project_of(pytorch_lightning)
    with caplog.at_level(logging.WARNING, "qspinn"):
        found = getattr(again, how)(
            fresh, datamodule=data_of(pytorch_lightning), ckpt_path=path, verbose=False
        )
    assert {f"ptq/{name}": value for name, value in found[0].items()} == callback.metrics
    assert not is_attached(fresh)
    assert "evaluates the quantised Project" in caplog.text


def test_states_are_reset(tmp_path: Path) -> None:
    module, _ = fitted("pytorch_lightning", tmp_path, ResetStates())
    assert not is_attached(module)
