"""What a run prints while it goes on."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from qspinn.app.errors import ConfigurationError
from qspinn.app.show import progress
from qspinn.app.show.progress import EpochLines, TrainingBar, progress_bar
from qspinn.learning import UnsupervisedLearning
from tests.learning.plastic import CLASSES, Plastic, bars


class Clock:
    """A clock that a training sets forward, two seconds per batch."""

    now = 100.0

    @classmethod
    def monotonic(cls) -> float:
        return cls.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    monkeypatch.setattr(progress, "time", Clock)
    plain = Plastic.present

    def slow(self: Plastic, images: torch.Tensor, learning: bool = False) -> Any:
        Clock.now += 2.0
        return plain(self, images, learning)

    monkeypatch.setattr(Plastic, "present", slow)
    return Clock


def run(callback: lightning.Callback, folder: Path) -> None:
    module = UnsupervisedLearning(Plastic(), CLASSES, labelling_images=20)
    loader = DataLoader(bars(), batch_size=24)
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        max_epochs=2,
        callbacks=[callback],
    )
    trainer.fit(module, loader, loader)
    trainer.test(module, loader, verbose=False)


def test_lines_say_what_matters_and_the_speed_of_training_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], clock: type[Clock]
) -> None:
    run(EpochLines(), tmp_path)

    lines = capsys.readouterr().out.splitlines()
    # 4 batches of 24 images at 2 s; with 1 call for the labels and 4 for the validation 18 s.
    assert len(lines) == 3
    for epoch, line in enumerate(lines[:2], start=1):
        assert re.fullmatch(
            rf"epoch {epoch}/2  train/output_spikes [\d.]+  train/update_underflow 0\.1250  "
            r"val/accuracy 1\.0000  18\.0 s  12 images/s",
            line,
        )
    assert re.fullmatch(
        r"test  test/accuracy 1\.0000  .*test/accuracy_ridge 1\.0000  .*8\.0 s", lines[2]
    )


def test_the_bar_shows_the_speed_and_the_accuracy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], clock: type[Clock]
) -> None:
    run(TrainingBar(), tmp_path)

    printed = capsys.readouterr()
    last = printed.err.replace("\r", "\n").strip().splitlines()[-1]
    assert "epoch 2/2: 100%" in last
    assert "8/8" in last
    assert "12 images/s  val/accuracy 1.0000" in last
    assert printed.out.startswith("test  test/accuracy 1.0000")


@pytest.mark.parametrize("kind", [EpochLines, TrainingBar])
def test_a_disabled_bar_is_silent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: Any
) -> None:
    callback = kind()
    callback.disable()
    run(callback, tmp_path)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "images/s" not in printed.err
    callback.enable()
    run(callback, tmp_path)
    assert "test/accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("batch", "count"),
    [
        (torch.zeros(5, 2), 5),
        ((torch.zeros(4), torch.zeros(4)), 4),
        ([torch.zeros(4)], 4),
        ({"x": torch.zeros(3, 1)}, 3),
        ([{"x": (torch.zeros(2),)}], 2),
        (torch.zeros(()), 1),
        ([], 1),
        ("text", 1),
    ],
)
def test_images_are_counted_in_any_batch(
    batch: Any,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(progress, "time", Clock)
    callback = EpochLines()
    trainer: Any = SimpleNamespace(max_epochs=1, current_epoch=0, callback_metrics={})
    module: Any = None
    callback.on_train_epoch_start(trainer, module)
    Clock.now += 1.0
    callback.on_train_batch_end(trainer, module, None, batch, 0)
    callback.on_train_epoch_end(trainer, module)
    assert capsys.readouterr().out.endswith(f"  {count} images/s\n")


def test_styles() -> None:
    assert isinstance(progress_bar("bar"), TrainingBar)
    assert isinstance(progress_bar("lines"), EpochLines)
    assert progress_bar("none") is None
    with pytest.raises(ConfigurationError, match="progress='loud'; write one of auto, bar, lines"):
        progress_bar("loud")
