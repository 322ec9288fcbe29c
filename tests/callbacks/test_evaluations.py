"""A trainer that only validates, tests or predicts, with post-training quantisation."""

import copy
import logging
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from qspinn.callbacks import PostTrainingQuantization, ResetStates
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import is_attached, load_quantized
from tests.callbacks.harness import NAME, assert_same, fit, itq, module, trainer
from tests.callbacks.plastic_strangers import Validated
from tests.callbacks.strangers import Stranger, loader

PLAN = QuantizationPlan.uniform(word_length=3)  # so coarse that the metrics show it
HOW = ["validate", "test", "predict"]


class Data(lightning.LightningDataModule):
    """Has training data once it is set up for a fit."""

    def __init__(self) -> None:
        super().__init__()
        self.stages: list[str] = []
        self.is_ready = False

    def setup(self, stage: str) -> None:
        self.stages = [*self.stages, stage]
        self.is_ready = stage == "fit"

    def train_dataloader(self) -> Any:
        assert self.is_ready
        return loader(NAME)

    def val_dataloader(self) -> Any:
        return loader(NAME, 6, seed=1)

    def test_dataloader(self) -> Any:
        return loader(NAME, 6, seed=3)

    def predict_dataloader(self) -> Any:
        return loader(NAME, 6, seed=3)


def ptq(**arguments: Any) -> PostTrainingQuantization:
    return PostTrainingQuantization(PLAN, **arguments)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PostTrainingQuantization]:
    """A fit, its checkpoints of each epoch, and ``after.ckpt`` that is saved after it."""
    folder, callback = tmp_path_factory.mktemp("fit"), ptq()
    torch.manual_seed(1)
    fitted = module()
    checkpoints = lightning.pytorch.callbacks.ModelCheckpoint(folder, "{epoch}", save_top_k=-1)
    stock = trainer(folder, callback, checkpoints)
    stock.fit(fitted, loader(NAME), loader(NAME, 6, seed=1))
    stock.save_checkpoint(folder / "after.ckpt")
    return folder, callback


def evaluate(folder: Path, how: str, one: Any, *callbacks: Any, **arguments: Any) -> Any:
    stock = trainer(folder, *callbacks)
    if how == "predict":
        return stock.predict(one, **arguments)
    return getattr(stock, how)(one, verbose=False, **arguments)


@pytest.mark.parametrize("checkpoint", ["epoch=1.ckpt", "after.ckpt"])
@pytest.mark.parametrize("how", HOW)
def test_a_checkpoint_is_evaluated_quantised(
    tmp_path: Path, trained: Any, how: str, checkpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder, callback = trained
    fresh, again = module(seed=5), ptq()
    with caplog.at_level(logging.WARNING, "qspinn"):
        found = evaluate(
            tmp_path, how, fresh, again, datamodule=Data(), ckpt_path=folder / checkpoint
        )
    expected = evaluate(tmp_path, how, callback.quantized_module, ResetStates(), datamodule=Data())
    assert_same(found, expected)
    assert "evaluates the quantised Stranger, with formats" in caplog.text
    source = "from " if checkpoint == "after.ckpt" else "chosen on the training data"
    assert f"with formats {source}" in caplog.text
    assert again.resolved_plan.formats() == callback.resolved_plan.formats()
    assert again.footprint.inference_bits == callback.footprint.inference_bits


@pytest.mark.parametrize("how", HOW)
def test_the_module_is_afterwards_what_the_checkpoint_says(
    tmp_path: Path, trained: Any, how: str
) -> None:
    folder, _ = trained
    fresh, plain = module(seed=5), module(seed=5)
    arguments = {"datamodule": Data(), "ckpt_path": folder / "epoch=0.ckpt"}
    evaluate(tmp_path, how, fresh, ptq(), **arguments)
    evaluate(tmp_path, how, plain, ResetStates(), **arguments)
    assert not is_attached(fresh)
    assert_same(dict(fresh.state_dict()), dict(plain.state_dict()))
    assert [type(child) for child in fresh.modules()] == [type(child) for child in plain.modules()]
    # And can be trained: nothing of the evaluation's inference mode is left in it.
    trainer(tmp_path, ptq()).fit(fresh, loader(NAME), loader(NAME, 6, seed=1))


@pytest.mark.parametrize("how", ["validate", "test"])
def test_a_module_is_given_back_when_its_evaluation_fails(
    tmp_path: Path, trained: Any, how: str
) -> None:
    class Failing(Stranger):
        def on_validation_batch_end(self, *args: Any) -> None:
            raise OSError("disk full")

        on_test_batch_end = on_validation_batch_end

    fresh = module(kind=Failing)
    with pytest.raises(OSError, match="disk full"):
        evaluate(
            tmp_path, how, fresh, ptq(), datamodule=Data(), ckpt_path=trained[0] / "after.ckpt"
        )
    assert not is_attached(fresh)


def test_the_datamodule_is_set_up_for_its_stage_only(tmp_path: Path, trained: Any) -> None:
    data = Data()
    evaluate(
        tmp_path, "test", module(), ptq(), datamodule=data, ckpt_path=trained[0] / "epoch=0.ckpt"
    )
    assert data.stages == ["test"]


def test_the_training_data_of_the_module(tmp_path: Path, trained: Any) -> None:
    class Holding(Stranger):
        def train_dataloader(self) -> Any:
            return loader(NAME)

    folder, callback = trained
    again = ptq()
    evaluate(
        tmp_path,
        "test",
        module(kind=Holding),
        again,
        dataloaders=loader(NAME, 6, seed=3),
        ckpt_path=folder / "epoch=1.ckpt",
    )
    assert again.resolved_plan.formats() == callback.resolved_plan.formats()


def test_calibration_data(tmp_path: Path, trained: Any) -> None:
    folder, callback = trained
    again = ptq(calibration_data=loader(NAME))
    arguments = {"dataloaders": loader(NAME, 6, seed=3), "ckpt_path": folder / "epoch=1.ckpt"}
    evaluate(tmp_path, "test", module(), again, **arguments)
    assert again.resolved_plan.formats() == callback.resolved_plan.formats()


def test_without_any_data_the_remedy_is_named(tmp_path: Path, trained: Any) -> None:
    arguments = {"dataloaders": loader(NAME, 6), "ckpt_path": trained[0] / "epoch=1.ckpt"}
    with pytest.raises(ValueError, match=r"write PostTrainingQuantization\(plan, calibration_data"):
        evaluate(tmp_path, "test", module(), ptq(), **arguments)


def test_training_data_that_cannot_be_had_is_named(tmp_path: Path, trained: Any) -> None:
    class Elsewhere(Data):
        def train_dataloader(self) -> Any:
            raise FileNotFoundError("/data/train")

    with pytest.raises(RuntimeError, match=r"Elsewhere.*/data/train; give .*calibration_data"):
        evaluate(
            tmp_path, "test", module(), ptq(), datamodule=Elsewhere(),
            ckpt_path=trained[0] / "epoch=1.ckpt",
        )  # fmt: skip


def test_formats_of_another_plan_are_chosen_anew(tmp_path: Path, trained: Any) -> None:
    other = PostTrainingQuantization(QuantizationPlan.uniform(word_length=12))
    evaluate(
        tmp_path, "test", module(), other, datamodule=Data(), ckpt_path=trained[0] / "after.ckpt"
    )
    assert set(other.resolved_plan.word_lengths_by_role()["weight"]) == {12}


def test_a_module_without_a_checkpoint(
    tmp_path: Path, trained: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Of another script, or loaded by ``load_from_checkpoint``."""
    folder, callback = trained
    loaded = module()
    loaded.load_state_dict(torch.load(folder / "epoch=1.ckpt")["state_dict"])
    found = evaluate(tmp_path, "test", loaded, ptq(), datamodule=Data())
    expected = evaluate(
        tmp_path, "test", callback.quantized_module, ResetStates(), datamodule=Data()
    )
    assert found == expected
    # Without anything to choose formats on, it is said that nothing is quantised.
    with caplog.at_level(logging.WARNING, "qspinn"):
        plain = evaluate(tmp_path, "test", loaded, ptq(), dataloaders=loader(NAME, 6, seed=3))
    assert plain == evaluate(tmp_path, "test", loaded, ResetStates(), datamodule=Data()) != found
    assert "evaluates the 32-bit Stranger: there are no formats" in caplog.text


def test_after_a_fit_both_can_be_had(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    callback = ptq()
    with caplog.at_level(logging.WARNING, "qspinn"):
        stock, fitted = fit(tmp_path, NAME, callback)
        plain = stock.test(fitted, datamodule=Data(), verbose=False)
        assert "evaluates the 32-bit Stranger that was trained" in caplog.text
        caplog.clear()
        kept = stock.test(callback.quantized_module, datamodule=Data(), verbose=False)
        assert "evaluates Stranger with the quantizers that it has" in caplog.text
        before = callback.resolved_plan
        last = stock.test(
            fitted, datamodule=Data(), ckpt_path=tmp_path / "epoch=1.ckpt", verbose=False
        )
    assert kept == last != plain
    assert callback.resolved_plan is before
    assert not is_attached(fitted)


def test_several_cannot_quantise_one_module(tmp_path: Path, trained: Any) -> None:
    callbacks = [ptq(), ptq(prefix="other/")]
    with pytest.raises(ValueError, match="several, of which only one can quantise"):
        evaluate(
            tmp_path, "test", module(), *callbacks, datamodule=Data(),
            ckpt_path=trained[0] / "after.ckpt",
        )  # fmt: skip


def test_several_keep_their_formats_apart(tmp_path: Path) -> None:
    fine = PostTrainingQuantization(QuantizationPlan.uniform(word_length=12), prefix="fine/")
    coarse = ptq()
    stock, _ = fit(tmp_path, NAME, fine, coarse)
    stock.save_checkpoint(tmp_path / "both.ckpt")
    for one in (fine, coarse):
        again = PostTrainingQuantization(one.plan, prefix=one.prefix)
        evaluate(
            tmp_path / "x", "test", module(), again, dataloaders=loader(NAME, 6, seed=3),
            ckpt_path=tmp_path / "both.ckpt",
        )  # fmt: skip
        assert again.resolved_plan.formats() == one.resolved_plan.formats()


def test_beside_in_training_quantisation_it_is_refused(tmp_path: Path, trained: Any) -> None:
    with pytest.raises(ValueError, match="use each in a fit of its own"):
        evaluate(
            tmp_path, "test", module(), ptq(), itq(), datamodule=Data(),
            ckpt_path=trained[0] / "epoch=1.ckpt",
        )  # fmt: skip


def test_what_is_saved_can_be_loaded_in_plain_pytorch(tmp_path: Path, trained: Any) -> None:
    _, callback = trained
    callback.save(tmp_path / "quantized.pt")
    loaded = load_quantized(module(seed=9), tmp_path / "quantized.pt")
    found = evaluate(tmp_path, "test", loaded, ResetStates(), datamodule=Data())
    expected = evaluate(
        tmp_path, "test", callback.quantized_module, ResetStates(), datamodule=Data()
    )
    assert found == expected
    with pytest.raises(ValueError, match="no quantised network yet; fit first"):
        ptq().save(tmp_path / "nothing.pt")


def test_a_module_that_rounds_what_it_holds_gets_its_values_back(tmp_path: Path) -> None:
    torch.manual_seed(1)
    project = Validated()
    before = copy.deepcopy(dict(project.state_dict()))
    callback = ptq()
    trainer(tmp_path, callback).validate(project, loader(NAME, 6, seed=1), verbose=False)
    assert callback.resolved_plan is not None  # nothing had to be run for its formats
    assert not is_attached(project)
    assert_same(dict(project.state_dict()), before)
