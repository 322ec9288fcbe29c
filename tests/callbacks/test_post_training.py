"""Post-training quantisation: what it measures, and that nobody else notices."""

import logging
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import CombinedLoader
from torch import nn

from qspinn.callbacks import PostTrainingQuantization, ResetStates
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, is_attached
from tests.callbacks.harness import (
    PLAN,
    assert_same,
    flags,
    itq,
    logged,
    logged_rows,
    measured_on_test,
    module,
    traces,
    trainer,
)
from tests.callbacks.strangers import (
    MAKERS,
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

NAME = "sequential"


def ptq(**arguments: Any) -> PostTrainingQuantization:
    return PostTrainingQuantization(PLAN, **arguments)


def simple_fit(stock: lightning.Trainer, fitted: Stranger, **arguments: Any) -> None:
    torch.manual_seed(2)
    stock.fit(fitted, loader(NAME, shuffle=True), loader(NAME, 6, seed=1), **arguments)


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


def test_calibrates_on_as_many_batches_as_are_trained_on(tmp_path: Path) -> None:
    for limit, expected in ((1.0, 2), (1, 1)):
        seen: set[float] = set()

        def forward(one: Stranger, batch: Any, seen: set[float] = seen) -> None:
            seen.add(float(batch[0].sum()))
            one(batch[0])

        fitted = module()
        callback = ptq(calibration_batches=2, forward=forward)
        stock = trainer(tmp_path, callback, limit_train_batches=limit)
        stock.fit(fitted, loader(NAME), loader(NAME, 6, seed=1))
        assert len(seen) == expected


def test_counts_that_look_binary_in_one_batch_only(tmp_path: Path) -> None:
    images, labels = dataset(NAME, 12, seed=0).tensors
    counts = images.round().clamp(max=1.0)
    counts[8:] *= 3.0
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(counts, labels), batch_size=4)
    callback = ptq(calibration_batches=3)
    trainer(tmp_path, callback).fit(module(), data, data)
    assert "network.network.0.input" in callback.resolved_plan.formats()


def test_a_datamodule_keeps_its_split_its_hooks_and_its_data(tmp_path: Path) -> None:
    seen = []

    class Spy(Stranger):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            seen.append(float(batch[0].sum()))
            super().validation_step(batch, batch_idx)

    class Kept(Halves):
        def teardown(self, stage: str) -> None:
            """Keeps the data for the checks below."""

    fitted, data, callback = module(kind=Spy), Kept(), ptq(stages=("validate", "test"))
    stock = trainer(tmp_path, callback, num_sanity_val_steps=0, max_epochs=1)
    stock.fit(fitted, datamodule=data)
    # Validation of the fit, the dry runs before, and at last that of the quantised copy.
    validation = [float((batch[0] * 2.0 - 1.0).sum()) for batch in data.val_dataloader()]
    assert seen[-3:] == pytest.approx(validation)
    assert len(set(seen[-3:])) == 3
    training = [float((batch[0] * 2.0 - 1.0).sum()) for batch in data.train_dataloader()]
    assert sum(seen[-6:-3]) == pytest.approx(sum(training), rel=1e-4)  # the calibration
    assert data.trainer is stock
    expected = trainer(tmp_path / "x", ResetStates()).test(
        callback.quantized_module, datamodule=data, verbose=False
    )
    assert callback.metrics["ptq/test_loss"] == expected[0]["test_loss"]
    assert {"ptq/val_loss", "ptq/val_accuracy", "ptq/test_loss"} <= set(callback.metrics)


def test_a_datamodule_that_throws_its_data_away(tmp_path: Path) -> None:
    data, callback = Halves(), ptq(stages=("validate", "test"))
    trainer(tmp_path, callback).fit(module(), datamodule=data)
    assert "ptq/test_accuracy" in callback.metrics
    assert not hasattr(data, "train")


class OwnData(Stranger):
    """Holds its data itself, and says what happens to it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.events: list[str] = []

    def setup(self, stage: Any) -> None:
        self.events.append(f"setup {stage.value}")

    def teardown(self, stage: Any) -> None:
        self.events.append(f"teardown {stage.value}")

    def train_dataloader(self) -> Any:
        return loader(NAME)

    def val_dataloader(self) -> Any:
        return loader(NAME, 6, seed=1)

    def test_dataloader(self) -> Any:
        return loader(NAME, 6, seed=3)


def test_a_module_with_data_of_its_own(tmp_path: Path) -> None:
    fitted, callback = module(kind=OwnData), ptq(stages=("validate", "test"))
    stock = trainer(tmp_path, callback)
    stock.fit(fitted)
    assert fitted.events == ["setup fit", "teardown fit"]
    assert set(callback.metrics) == {
        "ptq/val_loss",
        "ptq/val_accuracy",
        "ptq/test_loss",
        "ptq/test_accuracy",
    }
    expected = trainer(tmp_path / "x").test(callback.quantized_module, verbose=False)[0]
    assert callback.metrics["ptq/test_loss"] == expected["test_loss"]


def test_a_module_whose_setup_builds_the_network(tmp_path: Path) -> None:
    class Building(Stranger):
        def setup(self, stage: str) -> None:
            self.network = MAKERS[NAME]()

    fitted, callback = module(kind=Building), ptq()
    stock = trainer(tmp_path, callback)
    simple_fit(stock, fitted)
    assert is_attached(callback.quantized_module)
    assert_same(dict(callback.quantized_module.state_dict()), dict(fitted.state_dict()))
    assert callback.metrics["ptq/val_loss"] == pytest.approx(
        float(stock.callback_metrics["val_loss"]), rel=0.1
    )


@pytest.mark.parametrize("kind", [Stranger, TrainingOnly])
def test_testing_without_data_or_step_is_refused_before_training(
    tmp_path: Path, kind: type[Stranger]
) -> None:
    stock = trainer(tmp_path, ptq(stages=("test",)))
    with pytest.raises(ValueError, match="testing needs a test_step and a test_dataloader"):
        simple_fit(stock, module(kind=kind))
    assert stock.global_step == 0


def test_without_a_validation_step_nothing_is_evaluated_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = ptq()
    with caplog.at_level(logging.WARNING, "qspinn"):
        simple_fit(trainer(tmp_path, callback), module(kind=TrainingOnly))
    assert callback.metrics == {}
    assert "is not validated either" in caplog.text
    assert is_attached(callback.quantized_module)
    assert logged(tmp_path, "ptq/reduction") == [4.0]


def test_a_module_that_optimises_by_itself(tmp_path: Path) -> None:
    callback = ptq(forward=lambda one, batch: one(batch[0]))
    stock = trainer(tmp_path, callback)
    simple_fit(stock, module(kind=Manual))
    assert stock.global_step == 6
    assert is_attached(callback.quantized_module)


def test_several_validation_loaders(tmp_path: Path) -> None:
    callback = ptq()
    stock = trainer(tmp_path, callback)
    data = [loader(NAME, 6, seed=1), loader(NAME, 6, seed=2)]
    stock.fit(module(kind=ManyValidations), loader(NAME), data)
    assert set(callback.metrics) == {
        "ptq/val_loss/dataloader_idx_0",
        "ptq/val_loss/dataloader_idx_1",
    }
    assert len(set(callback.metrics.values())) == 2


def test_batches_that_are_dictionaries_and_a_module_that_keeps_its_loss(tmp_path: Path) -> None:
    data = [
        torch.utils.data.DataLoader(AsDictionary(dataset(NAME, size, seed=1)), batch_size=4)
        for size in (12, 4)
    ]
    callback, fitted = ptq(), module(kind=Dictionaries)
    trainer(tmp_path, callback).fit(fitted, *data)
    assert "ptq/val_loss" in callback.metrics
    assert fitted.kept["losses"][0].grad_fn is not None
    # The module writes to its logger at each validation; the quantised copy to none.
    assert logged(tmp_path, "own_entry") == [0.0, 0.0, 0.0]


def test_training_loaders_may_be_combined(tmp_path: Path) -> None:
    class Pairs(Stranger):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return super().training_step(batch["a"], batch_idx)

    seen = []

    def forward(one: Stranger, batch: Any) -> None:
        seen.append(sorted(batch))
        one(batch["a"][0])

    for data in (
        {"a": loader(NAME), "b": loader(NAME, 4)},
        CombinedLoader({"a": loader(NAME), "b": loader(NAME, 4)}, "min_size"),
    ):
        callback = ptq(forward=forward)
        trainer(tmp_path, callback).fit(module(kind=Pairs), data, loader(NAME, 6, seed=1))
        assert is_attached(callback.quantized_module)
    assert all(keys == ["a", "b"] for keys in seen)


def test_generators_of_the_users_loaders_stay(tmp_path: Path) -> None:
    generators = []
    for folder, callback in ((tmp_path / "a", ptq()), (tmp_path / "b", ResetStates())):
        generator = torch.Generator().manual_seed(8)
        data = loader(NAME, shuffle=True, generator=generator)
        trainer(folder, callback).fit(module(), data, loader(NAME, 6, seed=1))
        generators.append(generator.get_state())
    assert torch.equal(*generators)


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


def test_without_training_data_it_is_refused(tmp_path: Path) -> None:
    stock = trainer(tmp_path, ptq(), limit_train_batches=0)
    with pytest.raises(ValueError, match="leaves no data to calibrate on"):
        simple_fit(stock, module())


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
