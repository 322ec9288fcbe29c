"""Flags of the trainer, kinds of modules and of batches, and errors before anything is trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging

from qspinn.callbacks import InTrainingQuantization, PostTrainingQuantization
from qspinn.plan import QuantizationPlan, reset_states
from qspinn.quantizers import is_attached
from tests.callbacks.harness import (
    NAME,
    PLAN,
    assert_same,
    flags,
    itq,
    logged,
    module,
    ptq,
    simple_fit,
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
)


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


def test_early_stopping_and_accumulation(tmp_path: Path) -> None:
    stopping = EarlyStopping("val_loss", patience=0, min_delta=100.0)
    callback, fitted = itq(), module()
    stock = trainer(tmp_path, callback, stopping, max_epochs=9, accumulate_grad_batches=2)
    simple_fit(stock, fitted)
    assert stock.current_epoch == 2
    assert stock.global_step == 4
    assert is_attached(fitted)


@pytest.mark.few(0.1)
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
    # At the end the validation data, six samples, show how much the network computes, and whether
    # it behaves as its twin.
    shapes = {size: [(size, 1, 8, 8), (size,)] for size in (4, 2)}
    assert set(map(str, seen)) == {str((False, Stranger, one)) for one in shapes.values()}


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


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("kind", [InTrainingQuantization, PostTrainingQuantization])
def test_a_compiled_module_is_refused(tmp_path: Path, kind: type, whole: bool) -> None:
    fitted: Any = module()
    if whole:
        fitted = torch.compile(fitted, backend="eager")
    else:
        fitted.network = torch.compile(fitted.network, backend="eager")
    stock = trainer(tmp_path, kind(PLAN))
    with pytest.raises(ValueError, match="Stranger is compiled"):
        simple_fit(stock, fitted)
    assert stock.global_step == 0


@pytest.mark.parametrize("kind", [InTrainingQuantization, PostTrainingQuantization])
def test_several_processes_are_refused(kind: type) -> None:
    class TwoProcesses:
        world_size = 2

    with pytest.raises(ValueError, match="2 processes, of which each would choose formats"):
        kind(PLAN).on_fit_start(TwoProcesses(), module())


@pytest.mark.parametrize("first", [True, False])
def test_averaged_weights_are_validated_quantised(tmp_path: Path, first: bool) -> None:
    averaging = EMAWeightAveraging(decay=0.5)
    callback, fitted = itq(), module()
    callbacks = [callback, averaging] if first else [averaging, callback]
    simple_fit(trainer(tmp_path, *callbacks), fitted)
    assert is_attached(fitted)
    assert callback.footprint.reduction == pytest.approx(4.0)


@pytest.mark.parametrize("make", [itq, ptq])
def test_predictions_begin_every_batch_afresh(tmp_path: Path, make: Any) -> None:
    fitted = module(seed=3)
    data = loader("sequential", 8)
    found = trainer(tmp_path, make()).predict(fitted, data)
    fitted.eval()
    for scores, (images, _) in zip(found, data, strict=True):
        reset_states(fitted)
        with torch.no_grad():
            assert torch.equal(scores, fitted(images))
