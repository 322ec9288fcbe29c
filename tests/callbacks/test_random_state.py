"""Random states in checkpoints."""

import random

import lightning
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from qspinn.callbacks.random_state import (
    RandomState,
    capture_random_states,
    restore_random_states,
)


def draw() -> list[float]:
    """Draw from every global generator."""
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),  # noqa: NPY002  (the global generator is what is tested)
        float(np.random.randn()),  # noqa: NPY002
        float(torch.rand(())),
    ]


def test_restoring_repeats_the_numbers_of_every_generator():
    draw()  # the normal distributions keep a second number back: part of the state
    states = capture_random_states()
    first = draw()
    assert draw() != first
    restore_random_states(states)
    assert draw() == first


def test_states_survive_a_file_that_loads_with_weights_only(tmp_path):
    torch.save(capture_random_states(), tmp_path / "states.pt")
    first = draw()
    restore_random_states(torch.load(tmp_path / "states.pt", weights_only=True))
    assert draw() == first


class Noisy(lightning.LightningModule):
    """Draws in training and notes what it drew, with or without a look at the data before."""

    def __init__(self, looks_at_data: bool) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.looks_at_data = looks_at_data
        self.drawn: list[tuple[float, ...]] = []

    def training_step(self, batch, batch_idx):
        self.drawn.append((float(batch[0, 0]), *draw()))
        return self.layer(batch).sum()

    def validation_step(self, batch, batch_idx):
        draw()

    def configure_optimizers(self):
        if self.looks_at_data:
            assert self.trainer.estimated_stepping_batches
        return torch.optim.SGD(self.parameters(), lr=0.0)

    def train_dataloader(self):
        return DataLoader(torch.arange(8.0)[:, None], batch_size=2, shuffle=True)

    def val_dataloader(self):
        return DataLoader(torch.arange(4.0)[:, None])


class DrawsWhenFitStarts(lightning.Callback):
    def on_fit_start(self, trainer, pl_module):
        draw()


class DrawsWhenFitEnds(lightning.Callback):
    def __init__(self) -> None:
        self.drawn: list[float] = []

    def on_fit_end(self, trainer, pl_module):
        self.drawn = draw()


def fit(folder, module, epochs, callbacks, checkpoint=None):
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=callbacks,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=any(isinstance(callback, SaveEachEpoch) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, ckpt_path=checkpoint, weights_only=True)
    return trainer


class SaveEachEpoch(lightning.pytorch.callbacks.ModelCheckpoint):
    def __init__(self, folder) -> None:
        super().__init__(folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("looks_at_data", [False, True])
@pytest.mark.parametrize("epochs_done", [1, 2, 3])
def test_a_resumed_fit_draws_what_the_unbroken_one_drew(tmp_path, looks_at_data, epochs_done):
    lightning.seed_everything(5, verbose=False)
    unbroken, end = Noisy(looks_at_data), DrawsWhenFitEnds()
    fit(tmp_path, unbroken, 3, [RandomState(), end, SaveEachEpoch(tmp_path)])
    lightning.seed_everything(77, verbose=False)
    resumed, other_end = Noisy(looks_at_data), DrawsWhenFitEnds()
    callbacks = [RandomState(), other_end]
    if not looks_at_data:
        callbacks.insert(0, DrawsWhenFitStarts())
    fit(tmp_path, resumed, 3, callbacks, tmp_path / f"epoch={epochs_done - 1}.ckpt")
    assert len(unbroken.drawn) == 12
    assert resumed.drawn == unbroken.drawn[4 * epochs_done :]
    assert other_end.drawn == end.drawn


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_validating_a_checkpoint_leaves_the_random_states_alone(tmp_path):
    module = Noisy(False)
    fit(tmp_path, module, 1, [RandomState(), SaveEachEpoch(tmp_path)])
    trainer = lightning.Trainer(
        accelerator="cpu",
        callbacks=[RandomState()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    saved = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)
    saved_state = next(v for k, v in saved["callbacks"].items() if "RandomState" in k)
    trainer.validate(module, ckpt_path=tmp_path / "epoch=0.ckpt", verbose=False)
    assert not torch.equal(torch.get_rng_state(), saved_state["torch"])
