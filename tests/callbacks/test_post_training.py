"""Post-training quantisation: what it measures, and that nobody else notices."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from qspinn.callbacks import PostTrainingQuantization, ResetStates
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach
from tests.callbacks.harness import (
    NAME,
    assert_same,
    flags,
    itq,
    logged,
    logged_rows,
    measured_on_test,
    module,
    ptq,
    simple_fit,
    traces,
    trainer,
)
from tests.callbacks.strangers import (
    ManualWithValidation,
    Resetting,
    Stranger,
    loader,
)


@pytest.mark.parametrize("kind", [Stranger, Resetting, ManualWithValidation])
def test_nobody_notices(tmp_path: Path, kind: type[Stranger]) -> None:
    found = []
    for folder, callback in ((tmp_path / "a", ptq()), (tmp_path / "b", ResetStates())):
        fitted = module(kind=kind)
        stock = trainer(folder, callback)
        simple_fit(stock, fitted)
        found.append(traces(stock, fitted))
    assert_same(*found)


def test_nobody_notices_even_without_reset_by_us(tmp_path: Path) -> None:
    """A module that resets by itself trains the same as without any callback of ours."""
    found = []
    for folder, callbacks in ((tmp_path / "a", [ptq()]), (tmp_path / "b", [])):
        fitted = module(kind=Resetting)
        stock = trainer(folder, *callbacks)
        simple_fit(stock, fitted)
        found.append(traces(stock, fitted))
    assert_same(*found)


def test_the_log_differs_by_our_rows_only(tmp_path: Path) -> None:
    rows = []
    for folder, callback in ((tmp_path / "a", ptq()), (tmp_path / "b", ResetStates())):
        simple_fit(trainer(folder, callback), module())
        kept = [{k: v for k, v in row.items() if v} for row in logged_rows(folder)]
        rows.append([row for row in kept if not any(key.startswith("ptq/") for key in row)])
    assert rows[0] == rows[1]
    ours = [row for row in logged_rows(tmp_path / "a") if row["ptq/val_loss"]]
    assert len(ours) == 1
    assert ours[0]["step"] == "6"


@pytest.mark.parametrize("flag", [True, "warn", False])
def test_determinism_stays_as_the_trainer_set_it(tmp_path: Path, flag: Any) -> None:
    before = flags()
    seen = []

    class Spy(Stranger):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            seen.append(flags()[:2])
            super().validation_step(batch, batch_idx)

    try:
        simple_fit(trainer(tmp_path, ptq(), deterministic=flag), module(kind=Spy))
        assert flags()[:2] == (bool(flag), flag == "warn")
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
    # In the evaluation of the quantised network too.
    assert set(seen) == {(bool(flag), flag == "warn")}


def test_metrics_are_those_of_the_quantised_network(tmp_path: Path) -> None:
    coarse = PostTrainingQuantization(QuantizationPlan.uniform(word_length=2), prefix="two/")
    fine = PostTrainingQuantization(QuantizationPlan.uniform(word_length=16), prefix="sixteen/")
    stock, fitted = trainer(tmp_path, coarse, fine), module()
    simple_fit(stock, fitted)
    expected = float(stock.callback_metrics["val_loss"])
    assert fine.metrics["sixteen/val_loss"] == pytest.approx(expected, rel=1e-3)
    assert coarse.metrics["two/val_loss"] != pytest.approx(expected, rel=1e-3)
    assert coarse.footprint.reduction == 16.0
    assert logged(tmp_path, "two/reduction") == [16.0]
    assert logged(tmp_path, "sixteen/reduction") == [2.0]
    # An independent evaluation: the float module with the plan attached.
    attach(fitted, coarse.resolved_plan)
    again = trainer(tmp_path / "again").validate(fitted, loader(NAME, 6, seed=1), verbose=False)
    assert {f"two/{name}": value for name, value in again[0].items()} == coarse.metrics


def test_calibration_does_not_count_in_the_metrics(tmp_path: Path) -> None:
    many, one = ptq(calibration_batches=3), ptq(calibration_batches=1, prefix="one/")
    plan = QuantizationPlan.uniform(word_length=24)
    many.plan = one.plan = plan
    stock = trainer(tmp_path, many, one)
    simple_fit(stock, module())
    accuracy = float(stock.callback_metrics["val_accuracy"])
    assert many.metrics["ptq/val_accuracy"] == one.metrics["one/val_accuracy"] == accuracy


def test_callbacks_of_the_module_belong_to_the_training(tmp_path: Path) -> None:
    class Counter(Callback):
        stages: list[str] = []  # noqa: RUF012 - shared on purpose: Lightning copies nothing

        def on_validation_end(self, stock: Any, pl_module: Any) -> None:
            self.stages.append(str(stock.state.fn))

    class Bringing(Stranger):
        def configure_callbacks(self) -> list[Callback]:
            return [Counter()]

    simple_fit(trainer(tmp_path, ptq()), module(kind=Bringing))
    assert set(Counter.stages) == {"TrainerFn.FITTING"}


def test_a_network_that_needs_no_training(tmp_path: Path) -> None:
    callback, fitted = ptq(), module()
    before = {key: value.clone() for key, value in fitted.state_dict().items()}
    simple_fit(trainer(tmp_path, callback, max_epochs=0), fitted)
    assert_same(dict(callback.quantized_module.state_dict()), before)
    assert callback.footprint.reduction == 4.0


def test_two_fits_in_a_row(tmp_path: Path) -> None:
    callback, fitted = ptq(), module()
    stock = trainer(tmp_path, callback, max_epochs=1)
    simple_fit(stock, fitted)
    first, first_metrics = callback.quantized_module, callback.metrics
    stock.fit_loop.max_epochs = 2
    simple_fit(stock, fitted)
    assert callback.quantized_module is not first
    assert callback.metrics != first_metrics
    assert stock.global_step == 6
    other = module("step_loop")
    trainer(tmp_path / "b", callback, max_epochs=1).fit(other, loader(NAME), loader(NAME, 6))
    assert callback.quantized_module.network.plif.v == 0.0


def test_what_a_failed_second_fit_leaves(tmp_path: Path) -> None:
    callback = ptq()
    simple_fit(trainer(tmp_path, callback, max_epochs=1), module())

    class Failing(Stranger):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        simple_fit(trainer(tmp_path / "b", callback), module(kind=Failing))
    # Nothing of the first fit passes for a result of the second.
    assert callback.quantized_module is None
    assert callback.resolved_plan is None
    assert callback.footprint is None
    assert callback.metrics == {}


def test_a_quantised_module_is_refused(tmp_path: Path) -> None:
    fitted = module()
    simple_fit(trainer(tmp_path, itq()), fitted)
    with pytest.raises(ValueError, match="quantizers attached already"):
        simple_fit(trainer(tmp_path / "b", ptq()), fitted)


def test_two_with_one_prefix_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two of them have prefix='ptq/'"):
        simple_fit(trainer(tmp_path, ptq(), ptq()), module())


def test_a_module_that_cannot_be_copied_is_refused_before_training(tmp_path: Path) -> None:
    fitted = module()
    fitted.file = (tmp_path / "open").open("w")
    stock = trainer(tmp_path, ptq())
    with pytest.raises(TypeError, match="Stranger cannot be copied"):
        simple_fit(stock, fitted)
    assert stock.global_step == 0
    fitted.file.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"calibration_batches": 0}, "calibration_batches=0"),
        ({"calibration_batches": True}, "calibration_batches=True"),
        ({"calibration_batches": 1.5}, "calibration_batches=1.5"),
        ({"stages": ("fit",)}, "unknown stage 'fit'; write any of validate, test"),
        ({"stages": "validate"}, "stages='validate'; write a list"),
    ],
)
def test_impossible_arguments_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ptq(**arguments)


def test_the_quantised_module_tests_on_other_data(tmp_path: Path) -> None:
    callback, fitted = ptq(), module()
    stock = trainer(tmp_path, callback)
    simple_fit(stock, fitted)
    plain = measured_on_test(stock, fitted, NAME)
    quantized = measured_on_test(stock, callback.quantized_module, NAME)
    assert set(plain) == set(quantized) == {"test_loss", "test_accuracy"}
    assert quantized["test_loss"] != plain["test_loss"]
    assert quantized["test_loss"] == pytest.approx(plain["test_loss"], rel=0.1)
