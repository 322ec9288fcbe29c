"""In-training quantisation in the corners of a stock trainer."""

import copy
import logging
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint

from qspinn.callbacks import InTrainingQuantization, PostTrainingQuantization, ResetStates
from qspinn.callbacks.random_state import capture_random_states
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, detach, is_attached
from tests.callbacks.harness import (
    PLAN,
    assert_same,
    fit,
    flags,
    itq,
    keeper,
    logged,
    measured_on_test,
    module,
    trainer,
)
from tests.callbacks.strangers import (
    AsDictionary,
    Dictionaries,
    Halves,
    Manual,
    ManualWithValidation,
    ManyValidations,
    Resetting,
    Stranger,
    TrainingOnly,
    dataset,
    loader,
    sequential,
)

NAME = "sequential"


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


def simple_fit(stock: lightning.Trainer, fitted: Stranger, **arguments: Any) -> None:
    stock.fit(fitted, loader(NAME), loader(NAME, 6, seed=1), **arguments)


def growing(dropout: float = 0.25) -> Stranger:
    """Learns so fast that the range of its weights changes every epoch."""
    torch.manual_seed(1)
    return Stranger(sequential(dropout), lr=1.0)


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


def plain_types(value: object) -> bool:
    if isinstance(value, dict):
        return all(type(key) is str and plain_types(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(plain_types, value))
    return value is None or type(value) in (str, int, float, bool)


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


def test_both_callbacks_together_are_refused_before_training(tmp_path: Path) -> None:
    for callbacks in (
        [itq(), PostTrainingQuantization(PLAN)],
        [PostTrainingQuantization(PLAN), itq()],
    ):
        stock, fitted = trainer(tmp_path, *callbacks), module()
        with pytest.raises(ValueError, match="use each in a fit of its own"):
            simple_fit(stock, fitted)
        assert stock.global_step == 0
        assert_same(dict(fitted.state_dict()), dict(module().state_dict()))


BAD_PLANS = {
    "no such layer": ({"layers": "conv9*", "word_length": 4}, "matches no layer. The layers are: "),
    "no such role": ({"role": "theta", "word_length": 4}, "no layer that matches has the role"),
    "known from a dry run only": (
        {"layers": "network.network.6", "role": "input", "word_length": 4},
        "no layer that matches has the role 'input'",
    ),
    "membrane below the threshold": (
        {"role": "membrane", "format": "Q-2.9"},
        "the neuron could never fire",
    ),
}


@pytest.mark.parametrize("start_epoch", [0, 1])
@pytest.mark.parametrize("case", list(BAD_PLANS))
@pytest.mark.parametrize("kind", [InTrainingQuantization, PostTrainingQuantization])
def test_what_is_wrong_with_a_plan_shows_before_training(
    tmp_path: Path, case: str, start_epoch: int, kind: type
) -> None:
    rule, message = BAD_PLANS[case]
    plan = QuantizationPlan.uniform(word_length=8, rules=[rule])
    arguments = {"start_epoch": start_epoch} if kind is InTrainingQuantization else {}
    stock, fitted = trainer(tmp_path, kind(plan, **arguments)), module()
    with pytest.raises(ValueError, match=message):
        simple_fit(stock, fitted)
    assert stock.global_step == 0
    assert_same(dict(fitted.state_dict()), dict(module().state_dict()))


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


def test_early_stopping_and_accumulation(tmp_path: Path) -> None:
    stopping = EarlyStopping("val_loss", patience=0, min_delta=100.0)
    callback, fitted = itq(), module()
    stock = trainer(tmp_path, callback, stopping, max_epochs=9, accumulate_grad_batches=2)
    simple_fit(stock, fitted)
    assert stock.current_epoch == 2
    assert stock.global_step == 4
    assert is_attached(fitted)


@pytest.mark.parametrize(
    "arguments",
    [
        {"fast_dev_run": True},
        {"num_sanity_val_steps": 0},
        {"limit_train_batches": 1, "limit_val_batches": 1},
        {"limit_val_batches": 0},
        {"overfit_batches": 1},
        {"logger": False},
        {"val_check_interval": 1},
        {"precision": "bf16-mixed"},
        {"reload_dataloaders_every_n_epochs": 1},
        {"deterministic": True},
        {"gradient_clip_val": 0.1, "detect_anomaly": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [InTrainingQuantization, PostTrainingQuantization])
def test_with_the_flags_of_the_trainer(tmp_path: Path, arguments: Any, kind: type) -> None:
    before = flags()
    try:
        callback, fitted = kind(PLAN), module()
        stock = trainer(tmp_path, callback, **arguments)
        simple_fit(stock, fitted)
        expected = flags()[0] == arguments.get("deterministic", False)
    finally:
        torch.use_deterministic_algorithms(before[0])
    assert expected
    quantized = fitted if kind is InTrainingQuantization else callback.quantized_module
    assert is_attached(quantized)
    assert callback.footprint.reduction == pytest.approx(4.0)
    validates = kind is PostTrainingQuantization and arguments.get("limit_val_batches") != 0
    if kind is PostTrainingQuantization:
        assert bool(callback.metrics) == validates


@pytest.mark.parametrize("kind", [Resetting, TrainingOnly, ManualWithValidation])
def test_with_modules_of_other_kinds(tmp_path: Path, kind: type[Stranger]) -> None:
    fitted, callback = module(kind=kind), itq()
    stock = trainer(tmp_path, callback)
    simple_fit(stock, fitted)
    assert is_attached(fitted)
    assert stock.global_step == 6
    assert callback.footprint.reduction == pytest.approx(4.0)


def test_a_module_that_can_only_train_by_itself_needs_forward(tmp_path: Path) -> None:
    for kind in (InTrainingQuantization, PostTrainingQuantization):
        stock = trainer(tmp_path, kind(PLAN))
        with pytest.raises(ValueError, match="forward=lambda module, batch: module"):
            simple_fit(stock, module(kind=Manual))
        assert stock.global_step == 0
    fitted = module(kind=Manual)
    callback = itq(forward=lambda one, batch: one(batch[0]))
    stock = trainer(tmp_path, callback)
    simple_fit(stock, fitted)
    assert is_attached(fitted)
    assert stock.global_step == 6


def test_forward_is_given_a_copy_and_the_batch(tmp_path: Path) -> None:
    seen = []

    def forward(one: Stranger, batch: Any) -> None:
        assert not torch.is_grad_enabled()
        assert not one.training
        seen.append((one is fitted, type(one), [tuple(part.shape) for part in batch]))
        one(batch[0])

    fitted = module()
    simple_fit(trainer(tmp_path, itq(forward=forward)), fitted)
    assert set(map(str, seen)) == {str((False, Stranger, [(4, 1, 8, 8), (4,)]))}


def test_batches_may_be_dictionaries(tmp_path: Path) -> None:
    fitted = module(kind=Dictionaries)
    stock = trainer(tmp_path, itq())
    data = [
        torch.utils.data.DataLoader(AsDictionary(dataset(NAME, size, seed=1)), batch_size=4)
        for size in (12, 4)
    ]
    stock.fit(fitted, *data)
    assert is_attached(fitted)
    # The calibration runs the step on a copy, whose logger logs nothing.
    assert logged(tmp_path, "own_entry") == [0.0, 0.0, 0.0]  # sanity check and two epochs


def test_several_validation_loaders(tmp_path: Path) -> None:
    fitted = module(kind=ManyValidations)
    stock = trainer(tmp_path, itq())
    stock.fit(fitted, loader(NAME), [loader(NAME, 6, seed=1), loader(NAME, 6, seed=2)])
    assert is_attached(fitted)
    assert "val_loss/dataloader_idx_1" in stock.callback_metrics


def test_a_datamodule_and_its_batch_hooks(tmp_path: Path) -> None:
    seen = []
    callback = itq(forward=lambda one, batch: (seen.append(batch[0].min()), one(batch[0])))
    fitted, data = module(), Halves()
    stock = trainer(tmp_path, callback)
    stock.fit(fitted, datamodule=data)
    assert data.setups == ["fit"]
    assert min(seen) < -0.9  # scaled to -1
    stock.test(fitted, datamodule=data, verbose=False)
    assert is_attached(fitted)


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
