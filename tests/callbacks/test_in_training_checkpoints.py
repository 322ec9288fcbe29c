"""In-training quantisation and checkpoints: testing, resuming, plain types."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from qspinn.callbacks import InTrainingQuantization, ResetStates
from qspinn.plan import QuantizationPlan, ResolvedPlan
from qspinn.quantizers import attach, is_attached
from tests.callbacks.harness import (
    NAME,
    PLAN,
    Watcher,
    assert_same,
    fit,
    growing,
    itq,
    keeper,
    measured_on_test,
    module,
    plain_types,
    simple_fit,
    trainer,
)
from tests.callbacks.strangers import (
    Stranger,
    dataset,
    loader,
    sequential,
)


def test_the_best_checkpoint_is_tested_with_its_own_formats(tmp_path: Path) -> None:
    callback = itq()
    best = ModelCheckpoint(tmp_path, "best", monitor="epoch", mode="min", save_top_k=1)
    stock = trainer(tmp_path, callback, best, Epoch(), max_epochs=3)
    fitted = growing()
    simple_fit(stock, fitted)
    last = callback.resolved_plan
    found = measured_on_test(stock, fitted, NAME, ckpt_path="best")
    assert callback.resolved_plan.formats() != last.formats()
    other = trainer(tmp_path / "other", itq())
    assert found == measured_on_test(other, module(), NAME, ckpt_path=best.best_model_path)


class Epoch(Callback):
    """Makes the epoch a metric, so that the first one is the best."""

    def on_validation_epoch_end(self, stock: Any, pl_module: Any) -> None:
        pl_module.log("epoch", float(stock.current_epoch))


def test_a_checkpoint_from_before_the_start_is_tested_in_float(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = itq(start_epoch=1)
    stock, fitted = fit(tmp_path, NAME, callback)
    assert is_attached(fitted)
    with caplog.at_level(logging.WARNING, "qspinn"):
        found = measured_on_test(stock, fitted, NAME, ckpt_path=tmp_path / "epoch=0.ckpt")
    assert not is_attached(fitted)
    assert "evaluates the 32-bit network" in caplog.text
    plain = trainer(tmp_path / "plain", ResetStates())
    assert found == measured_on_test(plain, fitted, NAME)


def test_a_checkpoint_of_a_float_training_is_tested_in_float(tmp_path: Path) -> None:
    stock, fitted = fit(tmp_path, NAME, itq())
    _, plain = fit(tmp_path / "float", NAME, ResetStates())
    found = measured_on_test(stock, fitted, NAME, ckpt_path=tmp_path / "float" / "epoch=1.ckpt")
    assert not is_attached(fitted)
    assert found == measured_on_test(trainer(tmp_path / "x", ResetStates()), plain, NAME)


def test_a_checkpoint_without_formats_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stock = trainer(tmp_path, itq(), keeper(tmp_path, save_weights_only=True))
    fitted = module()
    simple_fit(stock, fitted)
    with caplog.at_level(logging.WARNING, "qspinn"):
        measured_on_test(stock, fitted, NAME, ckpt_path=tmp_path / "epoch=0.ckpt")
    assert "holds no formats" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "qspinn"):
        fresh = trainer(tmp_path / "fresh", itq())
        measured_on_test(fresh, module(), NAME, ckpt_path=tmp_path / "epoch=0.ckpt")
    assert "evaluates the 32-bit network" in caplog.text


def test_validating_before_the_fit_is_float_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stock, fitted = trainer(tmp_path, itq()), module()
    with caplog.at_level(logging.WARNING, "qspinn"):
        first = stock.validate(fitted, loader(NAME, 6, seed=1), verbose=False)
    assert "evaluates the 32-bit network" in caplog.text
    plain = trainer(tmp_path / "plain", ResetStates())
    assert first == plain.validate(module(), loader(NAME, 6, seed=1), verbose=False)
    simple_fit(stock, fitted)
    assert is_attached(fitted)


def test_checkpoints_hold_plain_types(tmp_path: Path) -> None:
    fit(tmp_path, NAME, itq())
    checkpoint = torch.load(tmp_path / "epoch=1.ckpt", weights_only=True)
    state = checkpoint["callbacks"]["InTrainingQuantization"]
    assert plain_types(state)
    assert QuantizationPlan.from_dict(state["plan"]) == PLAN
    assert list(checkpoint["state_dict"]) == list(module().state_dict())


@pytest.mark.parametrize("freeze_epoch", [None, 1])
def test_resuming_in_the_middle_of_an_epoch_is_the_unbroken_run(
    tmp_path: Path, freeze_epoch: int | None
) -> None:
    # Without random numbers and with one batch again and again: Lightning begins a
    # resumed epoch at the first batch of its loader, with a new seed.
    same = torch.utils.data.ConcatDataset([dataset(NAME, 4, seed=0)] * 3)
    data = torch.utils.data.DataLoader(same, batch_size=4)

    def run(folder: Path, **arguments: Any) -> tuple[Stranger, Any]:
        each = ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=2)
        quantizing, fitted = itq(freeze_epoch=freeze_epoch), growing(dropout=0.0)
        trainer(folder, quantizing, each, max_epochs=3).fit(fitted, data, data, **arguments)
        return fitted, quantizing.resolved_plan

    unbroken, plan = run(tmp_path / "a")
    resumed, again = run(tmp_path / "b", ckpt_path=tmp_path / "a" / "step=4.ckpt")
    assert again == plan
    assert_same(dict(resumed.state_dict()), dict(unbroken.state_dict()))


def test_resuming_with_stochastic_rounding_is_the_unbroken_run(tmp_path: Path) -> None:
    plan = QuantizationPlan.uniform(word_length=6, rounding="stochastic")
    stock, unbroken = fit(tmp_path, NAME, InTrainingQuantization(plan))
    start = tmp_path / "epoch=0.ckpt"
    again, resumed = fit(tmp_path / "b", NAME, InTrainingQuantization(plan), ckpt_path=start)
    assert_same(dict(resumed.state_dict()), dict(unbroken.state_dict()))
    assert_same(dict(again.callback_metrics), dict(stock.callback_metrics))


def test_resuming_with_another_plan_is_refused(tmp_path: Path) -> None:
    fit(tmp_path, NAME, itq())
    other = InTrainingQuantization(QuantizationPlan.uniform(word_length=4))
    with pytest.raises(ValueError, match="trained with another plan"):
        fit(tmp_path, NAME, other, ckpt_path=tmp_path / "epoch=0.ckpt")


def test_resuming_from_a_float_checkpoint_quantises_at_once(tmp_path: Path) -> None:
    each = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=2)
    simple_fit(trainer(tmp_path, ResetStates(), each, max_epochs=1), module())
    callback = itq()
    watcher = Watcher(callback)
    stock = trainer(tmp_path / "b", callback, watcher, max_epochs=1)
    simple_fit(stock, module(), ckpt_path=tmp_path / "step=2.ckpt")
    assert watcher.quantized == [(0, True)]


def test_formats_can_be_attached_by_hand(tmp_path: Path) -> None:
    """As docs/reuse.md says."""
    callback = itq()
    stock, fitted = fit(tmp_path, NAME, callback)
    path = tmp_path / "epoch=1.ckpt"
    loaded = Stranger.load_from_checkpoint(path, network=sequential())
    assert not is_attached(loaded)
    state = torch.load(path)["callbacks"]["InTrainingQuantization"]
    attach(loaded, ResolvedPlan.from_dict(state["resolved_plan"]))
    plain = trainer(tmp_path / "plain", ResetStates())
    assert measured_on_test(plain, loaded, NAME) == measured_on_test(stock, fitted, NAME)
