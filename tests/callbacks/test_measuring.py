"""The work of a network, measured when a fit has ended, and nobody notices."""

from pathlib import Path

import pytest
import torch

from qspinn.callbacks import MeasuresWork, ResetStates
from qspinn.callbacks.measuring import SAMPLES
from tests.callbacks.harness import (
    NAME,
    assert_same,
    itq,
    logged,
    module,
    ptq,
    simple_fit,
    traces,
    trainer,
)
from tests.callbacks.strangers import Stranger, loader


def test_nobody_notices(tmp_path: Path) -> None:
    found = []
    for folder, callback in ((tmp_path / "a", MeasuresWork()), (tmp_path / "b", ResetStates())):
        fitted = module()
        stock = trainer(folder, ResetStates(), callback)
        simple_fit(stock, fitted)
        found.append(traces(stock, fitted))
    assert_same(*found)


@pytest.mark.parametrize(("make", "prefix"), [(ptq, "ptq/"), (itq, ""), (MeasuresWork, "")])
def test_each_callback_measures_and_logs(tmp_path: Path, make, prefix: str) -> None:
    callback = make()
    simple_fit(trainer(tmp_path, ResetStates(), callback), module())
    assert callback.work is not None
    assert callback.work.samples == 6  # of validation
    energy = callback.work.energy_nj
    assert logged(tmp_path, f"{prefix}work/energy_nj") == pytest.approx([energy])


def test_training_data_take_the_place_of_validation_data(tmp_path: Path) -> None:
    callback = MeasuresWork()
    stock = trainer(tmp_path, ResetStates(), callback, limit_val_batches=0)
    simple_fit(stock, module())
    assert callback.work is not None
    assert callback.work.samples == 12


def test_of_many_samples_the_first_are_taken(tmp_path: Path) -> None:
    callback = MeasuresWork()
    stock = trainer(tmp_path, ResetStates(), callback, max_epochs=1)
    stock.fit(module(), loader(NAME, 8), loader(NAME, 90, seed=1))
    assert callback.work is not None
    assert callback.work.samples == SAMPLES


def test_what_is_not_known_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Scaled(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner
            self.matrix = torch.eye(8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x @ self.matrix)

    torch.manual_seed(1)
    fitted = Stranger(Scaled(module().network))
    callback = MeasuresWork()
    simple_fit(trainer(tmp_path, ResetStates(), callback), fitted)
    assert callback.work is None
    assert "the work and energy of Stranger are not known: it multiplies tensors" in caplog.text


def test_a_failure_costs_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def forward(one: Stranger, batch: object) -> None:
        raise RuntimeError("not today")

    callback = MeasuresWork(forward)
    simple_fit(trainer(tmp_path, ResetStates(), callback), module())
    assert callback.work is None
    assert "not today" in caplog.text


@pytest.mark.slow
def test_compiled_steps_are_measured_as_others(tmp_path: Path) -> None:
    found = []
    for compiled in (False, True):
        callback = ptq(compile_steps=compiled)
        simple_fit(trainer(tmp_path / str(compiled), callback), module())
        found.append(callback.work.to_dict())
    assert found[0] == found[1]
