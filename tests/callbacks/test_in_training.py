"""When in-training quantisation starts, what it follows and what it refuses."""

import copy
import logging
from pathlib import Path

import pytest
import torch

from qspinn.callbacks import InTrainingQuantization, ResetStates
from qspinn.callbacks.random_state import capture_random_states
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, detach, is_attached
from tests.callbacks.harness import (
    NAME,
    PLAN,
    Watcher,
    assert_same,
    fit,
    growing,
    itq,
    module,
    simple_fit,
    trainer,
)
from tests.callbacks.strangers import (
    Stranger,
)


def test_quantises_from_the_start_epoch_on(tmp_path: Path) -> None:
    callback = itq(start_epoch=1)
    watcher = Watcher(callback)
    simple_fit(trainer(tmp_path, callback, watcher, max_epochs=3), module())
    assert watcher.quantized == [(0, False)] * 3 + [(1, True)] * 3 + [(2, True)] * 3


def test_epochs_before_the_start_are_the_float_training(tmp_path: Path) -> None:
    found = []
    for callback in (ResetStates(), itq(start_epoch=1)):
        fitted = module()
        simple_fit(trainer(tmp_path, callback, max_epochs=1), fitted)
        found.append({"weights": dict(fitted.state_dict()), "random": capture_random_states()})
    assert_same(*found)


def test_formats_follow_the_network_until_they_freeze(tmp_path: Path) -> None:
    free, frozen = itq(), itq(freeze_epoch=1)
    for callback in (free, frozen):
        watcher = Watcher(callback)
        torch.manual_seed(3)
        simple_fit(trainer(tmp_path, callback, watcher, max_epochs=3), growing())
        assert list(watcher.formats) == [0, 1, 2]
        changed = watcher.formats[0] != watcher.formats[2]
        assert changed == (callback is free)


def test_freezing_before_the_start_calibrates_once(tmp_path: Path) -> None:
    callback = itq(start_epoch=1, freeze_epoch=0)
    watcher = Watcher(callback)
    simple_fit(trainer(tmp_path, callback, watcher, max_epochs=3), growing())
    assert watcher.formats[1] == watcher.formats[2]


def test_a_start_epoch_that_is_never_reached_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback, fitted = itq(start_epoch=5), module()
    with caplog.at_level(logging.WARNING, "qspinn"):
        simple_fit(trainer(tmp_path, callback), fitted)
    assert "start_epoch=5 was never reached (2 epochs were trained)" in caplog.text
    assert callback.resolved_plan is None
    assert callback.footprint is None
    assert not is_attached(fitted)


def test_training_computes_with_quantised_values(tmp_path: Path) -> None:
    losses = {}
    for word_length in (3, 16):
        callback = InTrainingQuantization(QuantizationPlan.uniform(word_length=word_length))
        stock, _ = fit(tmp_path / str(word_length), NAME, callback)
        losses[word_length] = float(stock.callback_metrics["train_loss_epoch"])
    stock, _ = fit(tmp_path / "float", NAME, ResetStates())
    expected = float(stock.callback_metrics["train_loss_epoch"])
    assert losses[16] == pytest.approx(expected, rel=2e-2)
    assert losses[3] != pytest.approx(expected, rel=2e-2)


def test_two_fits_in_a_row_on_one_module(tmp_path: Path) -> None:
    callback, fitted = itq(freeze_epoch=1), module()
    watcher = Watcher(callback)
    stock = trainer(tmp_path, callback, watcher, max_epochs=1)
    simple_fit(stock, fitted)
    stock.fit_loop.max_epochs = 2
    simple_fit(stock, fitted)
    assert watcher.quantized == [(0, True)] * 3 + [(1, True)] * 3
    assert watcher.formats[0] == watcher.formats[1]


def test_one_callback_serves_one_network_after_the_other(tmp_path: Path) -> None:
    callback = itq(start_epoch=1)
    first = module()
    simple_fit(trainer(tmp_path, callback), first)
    paths = set(callback.footprint.by_tensor)
    second = module("step_loop")
    watcher = Watcher(callback)
    simple_fit(trainer(tmp_path / "b", callback, watcher), second)
    assert watcher.quantized == [(0, False)] * 3 + [(1, True)] * 3
    assert not paths & set(callback.footprint.by_tensor)
    assert is_attached(first)


def test_a_module_that_is_quantised_already_is_refused(tmp_path: Path) -> None:
    fitted = module()
    first = itq()
    simple_fit(trainer(tmp_path, first), fitted)
    with pytest.raises(ValueError, match="quantizers of something else attached"):
        simple_fit(trainer(tmp_path / "b", itq()), fitted)
    detach(fitted)
    simple_fit(trainer(tmp_path / "c", itq()), fitted)
    assert is_attached(fitted)


@pytest.mark.parametrize("name", ["start_epoch", "freeze_epoch"])
@pytest.mark.parametrize("value", [-1, 1.5, True, "2"])
def test_an_impossible_epoch_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        InTrainingQuantization(PLAN, **{name: value})


def test_a_plan_may_be_a_dictionary(tmp_path: Path) -> None:
    callback = InTrainingQuantization(PLAN.to_dict())
    assert callback.plan == PLAN
    with pytest.raises(ValueError, match="keys"):
        InTrainingQuantization({"word_length": 8})


def test_metrics_of_the_module_see_the_trainers_batches_only(tmp_path: Path) -> None:
    counts: list[int] = []

    class Counting(Stranger):
        def on_train_epoch_end(self) -> None:
            correct = self.train_accuracy
            total = correct.tp + correct.fp + correct.tn + correct.fn
            counts.append(int(total.sum()))

    fitted = module(kind=Counting)
    simple_fit(trainer(tmp_path, itq()), fitted)
    plain = module(kind=Counting)
    quantized_counts = list(counts)
    counts.clear()
    simple_fit(trainer(tmp_path / "b", ResetStates()), plain)
    assert quantized_counts == counts
    assert len(set(quantized_counts)) == 1
    assert quantized_counts[0] > 0


def test_a_quantised_module_from_elsewhere_is_not_silently_requantised(tmp_path: Path) -> None:
    donor = itq()
    simple_fit(trainer(tmp_path, donor), module())
    fitted = attach(module(seed=2), donor.resolved_plan)
    with pytest.raises(ValueError, match="detach first"):
        simple_fit(trainer(tmp_path / "b", itq(start_epoch=1)), fitted)


def test_the_callback_itself_can_be_copied(tmp_path: Path) -> None:
    callback = itq()
    simple_fit(trainer(tmp_path, callback), module())
    copied = copy.deepcopy(callback)
    assert copied.resolved_plan == callback.resolved_plan
