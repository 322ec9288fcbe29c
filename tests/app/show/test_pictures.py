"""The callback that writes pictures, and hands them to loggers."""

from pathlib import Path
from typing import Any

import lightning
import matplotlib.image
import numpy as np
import pytest
from lightning.pytorch.loggers.logger import DummyLogger
from matplotlib.figure import Figure
from torch.utils.data import DataLoader

from qspinn.app.folder.files import PICTURES
from qspinn.app.folder.folder import RunFolder
from qspinn.app.show.pictures import Pictures
from qspinn.callbacks import PostTrainingQuantization
from qspinn.learning import UnsupervisedLearning
from qspinn.plan import QuantizationPlan
from qspinn.report.clips import save_clip
from qspinn.report.pictures import draw_confusion, draw_weights, save_png
from tests.learning.plastic import CLASSES, Plastic, bars

# Those of PICTURES that this callback draws.
LEARNED = {name for name in PICTURES if "weights" in name or "confusion" in name}


class Gallery(DummyLogger):
    """A logger that takes images, as W&B's does."""

    def __init__(self) -> None:
        super().__init__()
        self.images: dict[str, list[Any]] = {}

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        assert step is not None
        assert step > 0
        self.images[key] = images


class Bars(lightning.LightningDataModule):
    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(bars(), batch_size=20)

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(bars(60, seed=2), batch_size=20)


def trained(folder: Path, *callbacks: Any, loggers: Any = False) -> UnsupervisedLearning:
    module = UnsupervisedLearning(Plastic(), CLASSES)
    run = lightning.Trainer(
        accelerator="cpu",
        logger=loggers,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        max_epochs=1,
        callbacks=[*callbacks, Pictures()],
    )
    run.fit(module, datamodule=Bars())
    run.test(module, datamodule=Bars(), verbose=False)
    return module


def pixels_of(path: Path) -> np.ndarray:
    return matplotlib.image.imread(path)


def test_the_files_show_what_was_learned_and_mistaken(tmp_path: Path) -> None:
    module = trained(tmp_path / "run")

    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"weights.png", "confusion_matrix.png"}
    weights = module.network.weight.numpy()  # type: ignore[union-attr, operator]
    expected = draw_weights(weights, (1, 9, 9), "Weights of 8 neurons")
    save_png(expected, tmp_path / "weights.png")
    matrix = np.diag([20, 20, 20])
    save_png(draw_confusion(matrix, "Test images"), tmp_path / "confusion_matrix.png")
    for name in names:
        np.testing.assert_array_equal(
            pixels_of(tmp_path / name), pixels_of(tmp_path / "run" / name)
        )


def test_a_quantised_copy_has_pictures_of_its_own_and_loggers_get_all(tmp_path: Path) -> None:
    gallery, blind = Gallery(), DummyLogger()
    plan = QuantizationPlan.uniform(2)
    callback = PostTrainingQuantization(plan, stages=("test",))

    trained(tmp_path, callback, loggers=[gallery, blind])

    assert {path.name for path in tmp_path.iterdir()} == LEARNED
    assert gallery.images == {
        "weights": [str(tmp_path / "weights.png")],
        "ptq/weights": [str(tmp_path / "ptq_weights.png")],
        "confusion_matrix": [str(tmp_path / "confusion_matrix.png")],
        "ptq/confusion_matrix": [str(tmp_path / "ptq_confusion_matrix.png")],
    }
    shown = pixels_of(tmp_path / "ptq_weights.png")[60:1200, 60:1200]
    shades = {tuple(pixel) for pixel in shown.reshape(-1, 4).tolist()}
    assert len(shades) <= 4 + 1  # four values, and the lines
    assert len({tuple(p) for p in pixels_of(tmp_path / "weights.png").reshape(-1, 4).tolist()}) > 50


def test_what_was_not_tested_has_no_confusion_matrix(tmp_path: Path) -> None:
    plan = QuantizationPlan.uniform(2)
    trained(tmp_path, PostTrainingQuantization(plan, stages=()))
    assert {path.name for path in tmp_path.iterdir()} == LEARNED - {"ptq_confusion_matrix.png"}


class Plain(lightning.LightningModule):
    """A module with none of what is drawn."""

    def training_step(self, batch: Any, index: int) -> None: ...

    def test_step(self, batch: Any, index: int) -> None: ...

    def configure_optimizers(self) -> Any:
        return []


@pytest.mark.parametrize("network", [None, Plastic()])
def test_modules_without_pictures_are_left_alone(tmp_path: Path, network: Any) -> None:
    module = Plain()
    module.automatic_optimization = False
    if network is not None:
        network.input_shape = None
        module.network = network
    run = lightning.Trainer(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        max_epochs=1,
        callbacks=[Pictures()],
    )
    run.fit(module, datamodule=Bars())
    run.test(module, datamodule=Bars(), verbose=False)
    assert list(tmp_path.iterdir()) == []


def test_a_fresh_run_deletes_the_pictures_of_the_last(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for name in PICTURES:
        if name.endswith(".gif"):
            save_clip([np.zeros((2, 2, 4, 4), np.float32)], tmp_path / name)
        else:
            save_png(Figure(), tmp_path / name)
    (tmp_path / "mine.png").touch()
    folder.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]
