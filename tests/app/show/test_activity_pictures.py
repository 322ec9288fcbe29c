"""The callback that draws what goes on inside a network, before and after quantisation."""

from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from qspinn.app.show.activity_pictures import ActivityPictures, activity_of
from qspinn.callbacks import InTrainingQuantization, PostTrainingQuantization
from qspinn.learning import SupervisedLearning
from qspinn.networks import ConvSNN, NeuronSettings
from qspinn.plan import QuantizationPlan
from qspinn.report import activity

STEPS, CLASSES = 3, 3
LAYERS = ["network.blocks.0.neuron", "network.output.neuron"]


class Flashes(lightning.LightningDataModule):
    """Event frames: class c has many events in row c."""

    def __init__(self, still: bool = False) -> None:
        super().__init__()
        self.still = still

    def loader(self, seed: int) -> DataLoader[Any]:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(48) % CLASSES
        x = torch.randint(0, 2, (48, STEPS, 2, 9, 9), generator=generator).float()
        x[torch.arange(48), :, :, labels * 3] += 3
        return DataLoader(TensorDataset(x[:, 0] if self.still else x, labels), batch_size=16)

    def train_dataloader(self) -> DataLoader[Any]:
        return self.loader(0)

    def test_dataloader(self) -> DataLoader[Any]:
        return self.loader(1)


class Gallery(DummyLogger):
    """A logger that takes images."""

    log_video = None  # DummyLogger has every method

    def __init__(self) -> None:
        super().__init__()
        self.shown: dict[str, list[Any]] = {}

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        assert step
        self.shown[key] = images


class Cinema(Gallery):
    """A logger that takes clips as well."""

    def log_video(self, key: str, videos: list[Any], step: int | None = None) -> None:
        assert step
        self.shown[f"clip {key}"] = videos


def learning(**changes: Any) -> SupervisedLearning:
    torch.manual_seed(0)
    network = ConvSNN(
        (2, 9, 9),
        CLASSES,
        channels=(4,),
        kernel_sizes=3,
        population=2,
        time_steps=STEPS,
        neuron=NeuronSettings(v_threshold=0.5),
        **changes,
    )
    return SupervisedLearning(
        network, lambda parameters: torch.optim.SGD(parameters, lr=0.1), num_classes=CLASSES
    )


def trained(folder: Path, *callbacks: Any, data: Any = None, loggers: Any = False) -> Any:
    module = learning()
    run = lightning.Trainer(
        accelerator="cpu",
        logger=loggers,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        max_epochs=1,
        callbacks=[*callbacks, ActivityPictures(samples=5)],
    )
    run.fit(module, datamodule=data or Flashes())
    run.test(module, datamodule=data or Flashes(), verbose=False)
    return module


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is handed to the drawing of figures."""
    kept: list[Any] = []
    original = activity.draw_potentials

    def keep(runs: Any, title: str) -> Any:
        kept.append((runs, title))
        return original(runs, title)

    monkeypatch.setattr(activity, "draw_potentials", keep)
    return kept


def test_the_float_network_alone(tmp_path: Path, drawn: list[Any]) -> None:
    gallery, cinema, blind = Gallery(), Cinema(), DummyLogger()
    module = trained(tmp_path, loggers=[gallery, cinema, blind])

    names = ["events.gif", "membranes.png", "spikes.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    paths = {name.split(".")[0]: [str(tmp_path / name)] for name in names}
    assert gallery.shown == paths
    assert cinema.shown == {
        **{k: v for k, v in paths.items() if k != "events"},
        "clip events": paths["events"],
    }
    ((runs, title),) = drawn
    assert title == "Membrane potentials, 5 test samples"
    assert list(runs) == ["32-bit"]
    assert list(runs["32-bit"]) == LAYERS
    x = next(iter(Flashes().test_dataloader()))[0][:5]
    again = activity_of(module, x)
    for layer in LAYERS:
        np.testing.assert_array_equal(runs["32-bit"][layer].spikes, again[layer].spikes)
        assert 0 < again[layer].spikes.mean() < 1
    with Image.open(tmp_path / "events.gif") as clip:
        assert clip.n_frames == STEPS


@pytest.mark.parametrize("scheme", [PostTrainingQuantization, InTrainingQuantization])
def test_the_quantised_network_beside_it(tmp_path: Path, drawn: list[Any], scheme: Any) -> None:
    callback = scheme(QuantizationPlan.uniform(4))
    module = trained(tmp_path, callback)

    ((runs, _),) = drawn
    assert list(runs) == ["32-bit", "quantised"]
    for path in LAYERS:
        step = callback.resolved_plan.of_layer(path)["v"].format.step
        on_grid = {
            name: np.array_equal(run[path].potentials / step, np.rint(run[path].potentials / step))
            for name, run in runs.items()
        }
        assert on_grid == {"32-bit": False, "quantised": True}
    twin = callback.quantized_module if scheme is PostTrainingQuantization else module
    x = next(iter(Flashes().test_dataloader()))[0][:5]
    np.testing.assert_array_equal(
        runs["quantised"][LAYERS[0]].spikes, activity_of(twin, x)[LAYERS[0]].spikes
    )


def test_still_images_have_no_clip(tmp_path: Path) -> None:
    trained(tmp_path, data=Flashes(still=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["membranes.png", "spikes.png"]


def test_it_changes_nothing(tmp_path: Path) -> None:
    """Neither random numbers nor the module that is handed over."""
    states = []
    for callbacks in ([], [ActivityPictures()]):
        module = learning()
        plan = QuantizationPlan.uniform(4, rounding="stochastic")
        run = lightning.Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            max_epochs=1,
            callbacks=[InTrainingQuantization(plan), *callbacks],
        )
        torch.manual_seed(3)
        run.fit(module, datamodule=Flashes())
        run.test(module, datamodule=Flashes(), verbose=False)
        states.append((torch.rand(4), module.network(next(iter(Flashes().loader(2)))[0])))
    for one, other in zip(*states, strict=True):
        assert torch.equal(one, other)


class Silent(lightning.LightningModule):
    """Has no neuron, and is not to be called."""

    def test_step(self, batch: Any, index: int) -> None: ...

    def forward(self, x: Any) -> None:
        raise AssertionError("called")


@pytest.mark.parametrize("data", [TensorDataset(torch.rand(4, 3)), torch.rand(4, 3), ["a", "b"]])
def test_modules_without_neurons_are_left_alone(tmp_path: Path, data: Any) -> None:
    run = lightning.Trainer(
        logger=False,
        default_root_dir=tmp_path,
        callbacks=[ActivityPictures()],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    run.test(Silent(), dataloaders=DataLoader(data, batch_size=2), verbose=False)
    assert list(tmp_path.iterdir()) == []


def test_wrong_numbers_of_samples() -> None:
    with pytest.raises(ValueError, match="samples=0; write 1 or more"):
        ActivityPictures(0)
