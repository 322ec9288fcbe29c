"""The callbacks save how a network goes on learning, in any Lightning project."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from qspinn.callbacks import InTrainingQuantization, PostTrainingQuantization
from qspinn.export import NotExportableError, load_model
from qspinn.export.c import write_c
from qspinn.learning import UnsupervisedLearning
from qspinn.networks import DiehlCook
from qspinn.plan import QuantizationPlan
from tests.export.c.c_programs import needs_compiler
from tests.export.c.learners import check_equal, compiled
from tests.export.test_plastic_model import CLASSES, SETTINGS, SHAPE, pixels
from tests.stdp.cases import lively

PLAN = QuantizationPlan.uniform(8)
IMAGE = pixels(1, SHAPE, 1)
"""The network is called by `present`, by which what it takes cannot be told."""


def fitted(folder: Path, callback: Any, **stdp: Any) -> Any:
    """The module of a fit on 20 images; the callback holds its quantised network."""
    torch.manual_seed(0)
    rule = replace(lively(weight_sum=6.0).stdp, **stdp)
    network = DiehlCook(SHAPE, 12, 70, SETTINGS, rule, backend="torch")
    module = UnsupervisedLearning(network, CLASSES, "maximum", 20)
    data = DataLoader(TensorDataset(pixels(20, SHAPE, 1), torch.arange(20) % CLASSES), 10)
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[callback],
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data, data)
    return module


@pytest.mark.few(0.5)
@needs_compiler
@pytest.mark.parametrize("kind", [InTrainingQuantization, PostTrainingQuantization])
def test_the_network_of_a_fit_goes_on_learning_in_c(tmp_path: Path, kind: Any) -> None:
    callback = kind(PLAN, fidelity_samples=0)
    fitted(tmp_path, callback)
    callback.save(tmp_path / "model.qspinn", example=IMAGE)
    program = compiled(load_model(tmp_path / "model.qspinn"), tmp_path / "c")
    found = program.run(pixels(8, SHAPE, 7), None, pixels(2, SHAPE, 8))
    network: Any = callback.quantized_network().network
    network.present(pixels(8, SHAPE, 7), learning=True)
    check_equal(found, network)
    assert found.presentations == 28


@pytest.mark.parametrize("kind", [InTrainingQuantization, PostTrainingQuantization])
def test_a_network_that_cannot_go_on_learning_is_saved_with_the_reason(
    tmp_path: Path, kind: Any
) -> None:
    callback = kind(PLAN, fidelity_samples=0)
    fitted(tmp_path, callback, parallel=2)
    callback.save(tmp_path / "model.qspinn", example=IMAGE)
    model = load_model(tmp_path / "model.qspinn")
    assert model.learning is None
    with pytest.raises(ValueError, match=r"^learning=true: .*stdp\.parallel=2: .*; train with"):
        write_c(model, tmp_path, learning=True)
    with pytest.raises(NotExportableError, match=r"stdp\.parallel=2"):
        callback.device_model(IMAGE, learning=True)
    assert callback.device_model(IMAGE, learning=False).learning_refused is None
