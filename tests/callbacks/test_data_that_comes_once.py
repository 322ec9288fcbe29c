"""Training and validation data that can be iterated only once, or not again in the same way."""

import gc
import logging
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, IterableDataset

from qspinn.callbacks import PostTrainingQuantization, ResetStates
from qspinn.callbacks.trainer_data import kept_on_cpu
from qspinn.quantizers import is_attached
from tests.callbacks.harness import NAME, PLAN, module, ptq, trainer
from tests.callbacks.strangers import Stranger, dataset, loader, sequential

SAMPLES = list(dataset(NAME, 12, seed=0))


class Camera(IterableDataset):
    """Its iterator is used up once and for all."""

    def __init__(self) -> None:
        self.samples = iter(SAMPLES)

    def __iter__(self) -> Iterator[Any]:
        return self.samples


class Socket(Camera):
    """The same, but nobody can tell from its iterators."""

    def __iter__(self) -> Iterator[Any]:
        yield from self.samples


class Again(IterableDataset):
    """Begins again each time."""

    def __iter__(self) -> Iterator[Any]:
        return iter(SAMPLES)


ONCE: dict[str, Any] = {
    "camera": lambda: DataLoader(Camera(), batch_size=4),
    "socket": lambda: DataLoader(Socket(), batch_size=4),
    "generator": lambda: (batch for batch in list(loader(NAME))),
}


def fitted_with(folder: Path, train: Any, validation: Any = None, **arguments: Any) -> Any:
    callback = ptq(calibration_batches=2, **arguments)
    stock = trainer(folder, callback, max_epochs=1)
    torch.manual_seed(1)
    # Without dropout, whose random numbers depend on how data is loaded.
    fitted = Stranger(sequential(0.0))
    stock.fit(fitted, train, loader(NAME, 6, seed=1) if validation is None else validation)
    return callback


@pytest.mark.few(0.2)
@pytest.mark.parametrize("name", list(ONCE))
def test_formats_are_chosen_on_the_batches_that_came(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []

    def keeping(batch: Any) -> Any:
        copied = kept_on_cpu(batch)
        kept.append(weakref.ref(copied[0]))
        return copied

    monkeypatch.setattr("qspinn.callbacks.post_training.kept_on_cpu", keeping)
    found = fitted_with(tmp_path / "a", ONCE[name]())
    expected = fitted_with(tmp_path / "b", loader(NAME))  # the same batches, in the same order
    assert found.failure is None
    assert found.resolved_plan.formats() == expected.resolved_plan.formats()
    assert found.metrics == expected.metrics
    gc.collect()
    assert [batch() for batch in kept] == [None, None]  # they are not held any longer


def test_batches_are_kept_as_they_came(tmp_path: Path) -> None:
    class Changing(Stranger):
        """Scales its batch in place, and takes it apart."""

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            batch[0].mul_(100.0)
            labels, images = batch.pop(), batch.pop()
            return torch.nn.functional.cross_entropy(self(images / 100.0), labels)

    found = []
    for folder, data in ((tmp_path / "a", ONCE["socket"]()), (tmp_path / "b", loader(NAME))):
        callback = ptq(calibration_batches=2)
        stock = trainer(folder, callback, max_epochs=1)
        stock.fit(module(kind=Changing), data, loader(NAME, 6, seed=1))
        found.append(callback.resolved_plan.formats())
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["camera", "generator"])
def test_validation_data_that_comes_once_is_said_before_training(tmp_path: Path, name: str) -> None:
    stock = trainer(tmp_path, ptq())
    with pytest.raises(ValueError, match=r"can be iterated only once.*or write stages="):
        stock.fit(module(), loader(NAME), ONCE[name]())
    assert stock.global_step == 0
    # Where nothing is to be validated, nothing is in the way.
    callback = fitted_with(tmp_path / "b", loader(NAME), ONCE[name](), stages=())
    assert is_attached(callback.quantized_module)


def test_a_stream_that_ends_unexpectedly_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "qspinn"):
        callback = fitted_with(tmp_path, loader(NAME), ONCE["socket"]())
    assert is_attached(callback.quantized_module)
    assert callback.metrics == {}
    assert "gave no batch after the training (can it be iterated once only?)" in caplog.text


def test_nothing_is_taken_from_a_stream(tmp_path: Path) -> None:
    """The sanity check and the epochs get the samples that they get without the callback."""
    sizes = []
    for folder, callback in ((tmp_path / "a", ptq()), (tmp_path / "b", ResetStates())):
        seen: list[float] = []

        class Spy(Stranger):
            def on_validation_batch_start(self, batch: Any, *args: Any, seen: Any = seen) -> None:
                seen.append(float(batch[0].sum()))

        stock = trainer(folder, callback, max_epochs=1, num_sanity_val_steps=1)
        stock.fit(module(kind=Spy), loader(NAME), DataLoader(Socket(), batch_size=4))
        sizes.append(seen)
    assert sizes[0] == sizes[1]


def test_data_that_begins_again_is_validated_on(tmp_path: Path) -> None:
    found = fitted_with(tmp_path / "a", loader(NAME), DataLoader(Again(), batch_size=4))
    expected = fitted_with(tmp_path / "b", loader(NAME), loader(NAME))
    assert found.metrics == expected.metrics != {}


def test_calibration_data_takes_the_place_of_the_training_data(tmp_path: Path) -> None:
    batches = [[images * 8.0, labels] for images, labels in loader(NAME, 8)]
    expected = None
    for data in (batches, loader(NAME, 8), DataLoader(Again(), batch_size=4)):
        seen: list[float] = []

        def forward(one: Stranger, batch: Any, seen: list[float] = seen) -> None:
            seen.append(float(batch[0].max()))
            one(batch[0])

        callback = PostTrainingQuantization(
            PLAN, calibration_batches=2, forward=forward, calibration_data=data, fidelity_samples=0
        )
        stock = trainer(tmp_path, callback, max_epochs=1)
        stock.fit(module(), DataLoader(Socket(), batch_size=4), loader(NAME, 6, seed=1))
        expected = [float(images.max()) for images, _ in list(data)[:2]]
        # At the end two batches of validation show how much the network computes.
        assert seen[-4:-2] == expected


@pytest.mark.parametrize("given", [torch.rand(2), {"x": torch.rand(2)}, "train", 3, (1, 2)])
def test_calibration_data_of_another_type_is_refused(given: Any) -> None:
    with pytest.raises(TypeError, match="give a list of batches or a DataLoader"):
        ptq(calibration_data=given)


def test_a_failure_at_the_end_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Last(Stranger):
        """Its evaluation fails after the training only."""

        def on_validation_epoch_end(self) -> None:
            if self.trained:
                raise OSError("disk full")

        trained = False

        def on_train_end(self) -> None:
            self.trained = True

    callback = ptq()
    stock = trainer(tmp_path, callback)
    with caplog.at_level(logging.ERROR, "qspinn"):
        stock.fit(module(kind=Last), loader(NAME), loader(NAME, 6, seed=1))
    assert stock.state.finished
    assert is_attached(callback.quantized_module)
    assert callback.resolved_plan.is_calibrated
    assert callback.metrics == {}
    assert isinstance(callback.failure, OSError)
    assert "the training is complete, but evaluating the quantised network" in caplog.text
    assert "disk full" in caplog.text


def test_a_network_that_diverged_at_the_end_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Diverging(Stranger):
        def on_train_end(self) -> None:
            with torch.no_grad():
                next(self.network.parameters()).fill_(float("nan"))

    callback = ptq()
    with caplog.at_level(logging.ERROR, "qspinn"):
        trainer(tmp_path, callback).fit(
            module(kind=Diverging), loader(NAME), loader(NAME, 6, seed=1)
        )
    assert callback.quantized_module is None
    assert "the network has diverged" in str(callback.failure)
    assert "but quantising its network failed" in caplog.text


def test_a_logger_that_fails_at_the_end_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(CSVLogger):
        def log_metrics(self, metrics: Any, step: Any = None) -> None:
            if any(name.startswith("ptq/") for name in metrics):
                raise OSError("disk full")
            super().log_metrics(metrics, step)

    callback = ptq()
    stock = trainer(tmp_path, callback, logger=Full(tmp_path))
    with caplog.at_level(logging.ERROR, "qspinn"):
        stock.fit(module(), loader(NAME), loader(NAME, 6, seed=1))
    assert stock.state.finished
    assert "ptq/val_loss" in callback.metrics
    assert isinstance(callback.failure, OSError)
    assert "a logger failed to take the metrics" in caplog.text
