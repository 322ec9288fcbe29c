"""Post-training quantisation on the data that a trainer has, whoever holds it."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch import nn

from qspinn.callbacks import ResetStates
from qspinn.quantizers import is_attached
from tests.callbacks.harness import (
    NAME,
    assert_same,
    logged,
    module,
    ptq,
    simple_fit,
    trainer,
)
from tests.callbacks.strangers import (
    MAKERS,
    AsDictionary,
    Dictionaries,
    Halves,
    Manual,
    ManyValidations,
    Stranger,
    TrainingOnly,
    dataset,
    loader,
)


def test_calibrates_on_as_many_batches_as_are_trained_on(tmp_path: Path) -> None:
    for limit, expected in ((1.0, 2), (1, 1)):
        seen: set[float] = set()

        def forward(one: Stranger, batch: Any, seen: set[float] = seen) -> None:
            seen.add(float(batch[0].sum()))
            one(batch[0])

        fitted = module()
        callback = ptq(calibration_batches=2, forward=forward, fidelity_samples=0)
        stock = trainer(tmp_path, callback, limit_train_batches=limit)
        stock.fit(fitted, loader(NAME), loader(NAME, 6, seed=1))
        # At the end the validation data show how much the network computes.
        validation = {float(batch[0].sum()) for batch in loader(NAME, 6, seed=1)}
        assert len(seen - validation) == expected


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
    assert data.setups == ["fit", "test"]
    # Validation of the fit, the dry runs before, and at last that of the quantised copy, and what
    # shows its behaviour and work.
    validation = [float((batch[0] * 2.0 - 1.0).sum()) for batch in data.val_dataloader()]
    assert seen[-3:] == pytest.approx(validation)
    assert len(set(seen[-3:])) == 3
    training = [float((batch[0] * 2.0 - 1.0).sum()) for batch in data.train_dataloader()]
    sums = [sum(seen[i : i + 3]) for i in range(3, len(seen) - 5)]
    assert pytest.approx(sum(training), rel=1e-4) in sums  # the calibration
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


def test_without_training_data_it_is_refused(tmp_path: Path) -> None:
    stock = trainer(tmp_path, ptq(), limit_train_batches=0)
    with pytest.raises(ValueError, match="leaves no data to calibrate on"):
        simple_fit(stock, module())
