"""Learning without labels: steps, logging, and that labels come from training responses only."""

import logging
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from qspinn.learning import UnsupervisedLearning
from qspinn.networks import MaximumResponse, Proportion, Ridge
from tests.learning.plastic import CLASSES, Plastic, bars

READOUTS = {"maximum": MaximumResponse, "proportion": Proportion, "ridge": Ridge}


def module(neurons: int = 8, **settings: Any) -> UnsupervisedLearning:
    defaults: dict[str, Any] = {"num_classes": CLASSES, "labelling_images": 64}
    return UnsupervisedLearning(Plastic(neurons), **{**defaults, **settings})


def network_of(learning: UnsupervisedLearning) -> Plastic:
    assert isinstance(learning.network, Plastic)
    return learning.network


def trainer(folder: Path, **settings: Any) -> lightning.Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
        "deterministic": True,
        "max_epochs": 2,
        "num_sanity_val_steps": 0,
    }
    return lightning.Trainer(**{**defaults, **settings})


def loader(data: TensorDataset | None = None, batch_size: int = 20) -> DataLoader[Any]:
    return DataLoader(data or bars(), batch_size=batch_size)


def labelled_with(learning: UnsupervisedLearning) -> list[Tensor]:
    """The images of each fit of the readouts, from what the network was shown."""
    fits: list[list[Tensor]] = [[]]
    for images, learns in network_of(learning).shown:
        if learns and fits[-1]:
            fits.append([])
        elif not learns:
            fits[-1].append(images)
    return [torch.cat(fit) for fit in fits if fit]


def test_it_learns(tmp_path: Path) -> None:
    learning = module()
    run = trainer(tmp_path)

    run.fit(learning, loader(), loader(bars(30, seed=1)))
    fitted = {name: float(value) for name, value in run.callback_metrics.items()}
    tested = run.test(learning, loader(bars(60, seed=2)), verbose=False)[0]

    names = {"accuracy", "accuracy_maximum", "accuracy_proportion", "accuracy_ridge"}
    names |= {"silent_neurons"}
    assert {name for name in fitted if name.startswith("val/")} == {f"val/{n}" for n in names}
    assert set(tested) == {f"test/{name}" for name in names}
    for name in ("accuracy", "accuracy_maximum", "accuracy_proportion", "accuracy_ridge"):
        assert fitted[f"val/{name}"] == tested[f"test/{name}"] == 1.0


def test_accuracies_are_those_of_readouts_fitted_by_hand(tmp_path: Path) -> None:
    # Labels that the images do not tell: readouts then differ.
    images, _ = bars(90, seed=1).tensors
    labels = torch.randint(0, CLASSES, (90,), generator=torch.Generator().manual_seed(0))
    learning = module(readout="ridge")
    run = trainer(tmp_path, max_epochs=1)
    train_images, train_labels = bars().tensors

    run.fit(learning, loader())
    tested = run.test(learning, loader(TensorDataset(images, labels), 40), verbose=False)[0]

    network = network_of(learning)
    counts = network.present(images).spike_counts
    for name, kind in READOUTS.items():
        readout = kind(8, CLASSES)
        readout.fit(network.present(train_images[:64]).spike_counts, train_labels[:64])
        right = (readout(counts).argmax(1) == labels).double().mean()
        assert tested[f"test/accuracy_{name}"] == pytest.approx(float(right))
    assert tested["test/accuracy"] == tested["test/accuracy_ridge"]
    assert tested["test/silent_neurons"] == float((counts.sum(0) == 0).double().mean())


def test_silent_neurons_are_counted_over_all_images(tmp_path: Path) -> None:
    learning = module(neurons=4)
    network = network_of(learning)
    network.weight.zero_()
    network.weight[:27, 0] = 1.0  # answers to bars of class 0 alone
    network.weight[54:, 1] = 1.0
    learning.labelling.add(*bars().tensors)
    noiseless = torch.zeros(3, 1, 9, 9)
    for label in range(3):
        noiseless[label, 0, 3 * label : 3 * label + 3] = 0.5

    def silent(*labels: int) -> float:
        data = TensorDataset(noiseless[list(labels)], torch.tensor(labels))
        tested = trainer(tmp_path).test(learning, loader(data, 1), verbose=False)[0]
        return tested["test/silent_neurons"]

    assert silent(0, 1, 2) == 0.5
    assert silent(0) == 0.75  # of this test alone
    assert silent(1) == 1.0


def test_training_is_logged_per_image_and_epoch(tmp_path: Path) -> None:
    learning = module()
    run = trainer(tmp_path, max_epochs=1)

    run.fit(learning, loader(batch_size=36))  # 36, 36 and 24 images

    logged = {name: float(value) for name, value in run.callback_metrics.items()}
    assert set(logged) == {"train/output_spikes", "train/input_spikes", "train/update_underflow"}
    assert logged["train/update_underflow"] == 0.125
    presented = [images for images, learns in network_of(learning).shown if learns]
    assert [len(images) for images in presented] == [36, 36, 24]
    expected = sum(int(images.sum()) for images in presented) / 96
    assert logged["train/input_spikes"] == pytest.approx(expected)
    replayed = Plastic()
    spikes = sum(int(replayed.present(images, True).spike_counts.sum()) for images in presented)
    assert logged["train/output_spikes"] == pytest.approx(spikes / 96)


def test_without_updates_there_is_no_underflow_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning = module()
    plain = Plastic.present

    def without_updates(self: Plastic, images: Tensor, learning: bool = False) -> Any:
        shown = plain(self, images, learning)
        shown.updates = shown.underflows = 0
        return shown

    monkeypatch.setattr(Plastic, "present", without_updates)
    run = trainer(tmp_path, max_epochs=1)
    run.fit(learning, loader())
    assert run.callback_metrics["train/update_underflow"].isnan()


def test_batches_count_as_steps_and_nothing_has_a_gradient(tmp_path: Path) -> None:
    learning = module()
    run = trainer(tmp_path, max_epochs=3)

    run.fit(learning, loader())

    assert run.global_step == 3 * 5
    progress = run.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    assert progress.total.ready == progress.total.completed
    assert run.optimizers == []
    assert all(parameter.grad is None for parameter in learning.parameters())


def test_steps_can_be_limited(tmp_path: Path) -> None:
    learning = module()
    trainer(tmp_path, max_epochs=-1, max_steps=7).fit(learning, loader())
    assert sum(learns for _, learns in network_of(learning).shown) == 7


def test_no_warning_is_given(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    run = trainer(tmp_path)
    run.fit(module(), loader(), loader())
    # Lightning's own: of data loaders, of torch, and of a machine where Slurm is installed.
    known = ("does not have many workers", "isinstance(treespec", "`isinstance", "`srun`")
    texts = [str(warning.message) for warning in recwarn]
    assert [text for text in texts if not any(part in text for part in known)] == []


def test_readouts_are_fitted_on_the_first_training_images_of_the_epoch(tmp_path: Path) -> None:
    learning = module(labelling_images=50)
    images, _ = bars().tensors
    validation = bars(30, seed=1)
    both = images, torch.flip(images, [0])

    class Epochs(lightning.LightningDataModule):
        epoch = -1

        def train_dataloader(self) -> DataLoader[Any]:
            self.epoch += 1
            return loader(TensorDataset(both[self.epoch], bars().tensors[1]))

        def val_dataloader(self) -> DataLoader[Any]:
            return loader(validation)

    run = trainer(tmp_path, reload_dataloaders_every_n_epochs=1)
    run.fit(learning, datamodule=Epochs())

    shown = labelled_with(learning)
    assert len(shown) == 2
    for epoch in (0, 1):  # first the labelling images, then those that are validated
        assert torch.equal(shown[epoch], torch.cat([both[epoch][:50], validation.tensors[0]]))


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_no_label_or_image_of_an_evaluation_reaches_the_readouts(
    tmp_path: Path, stage: str
) -> None:
    states = []
    for evaluated in (
        bars(30, seed=1),
        TensorDataset(torch.rand(40, 1, 9, 9), torch.ones(40).long()),
    ):
        learning = module()
        run = trainer(tmp_path)
        run.fit(learning, loader(), loader(evaluated))
        getattr(run, stage)(learning, loader(evaluated))
        states.append(learning.state_dict())

    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_labels_of_training_change_no_synapse(tmp_path: Path) -> None:
    images, labels = bars().tensors
    weights = []
    for given in (labels, labels.flip(0)):
        learning = module()
        trainer(tmp_path).fit(learning, loader(TensorDataset(images, given)))
        weights.append(network_of(learning).weight)

    assert torch.equal(*weights)


def fits_of(learning: UnsupervisedLearning, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by the network's revision whenever the readouts are fitted."""
    fits: list[int] = []
    plain = type(learning.readout).fit

    def counted(self: Any, responses: Tensor, labels: Tensor) -> None:
        fits.append(network_of(learning).revision)
        plain(self, responses, labels)

    monkeypatch.setattr(type(learning.readout), "fit", counted)
    return fits


def test_readouts_are_fitted_only_when_the_network_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning = module()
    fits = fits_of(learning, monkeypatch)
    run = trainer(tmp_path)

    run.fit(learning, loader(), loader(bars(30)))
    assert fits == [5, 10]  # after each epoch's 5 batches
    run.test(learning, loader(), verbose=False)
    run.validate(learning, loader(), verbose=False)
    run.predict(learning, loader())
    assert fits == [5, 10]
    network_of(learning).use_fixed_point(None)
    run.predict(learning, loader())
    run.test(learning, loader(), verbose=False)
    assert fits == [5, 10, 11]


def test_a_fit_without_validation_leaves_fitted_readouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning = module()
    fits = fits_of(learning, monkeypatch)
    trainer(tmp_path).fit(learning, loader())
    assert fits == [10]


def test_predictions_are_classes(tmp_path: Path) -> None:
    learning = module()
    run = trainer(tmp_path)
    run.fit(learning, loader())

    images, labels = bars(60, seed=2).tensors
    predicted = run.predict(learning, loader(bars(60, seed=2)))

    assert torch.equal(torch.cat(list(predicted or [])), labels)  # type: ignore[arg-type]
    assert torch.equal(learning(images).argmax(1), labels)


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_without_a_fit_there_is_nothing_to_read_out(tmp_path: Path, stage: str) -> None:
    with pytest.raises(RuntimeError, match=r"readouts are not fitted; fit the module first"):
        getattr(trainer(tmp_path), stage)(module(), loader())
    loaded = module()
    loaded.load_state_dict(module().state_dict())
    with pytest.raises(RuntimeError, match=r"readouts are not fitted; fit the module first"):
        getattr(trainer(tmp_path), stage)(loaded, loader())


def test_sanity_checking_comes_before_all_learning(tmp_path: Path) -> None:
    trainer(tmp_path, num_sanity_val_steps=1, max_epochs=1).fit(module(), loader(), loader())


def test_readouts_of_another_network_are_kept_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learning, other = module(), module()
    trainer(tmp_path).fit(learning, loader())
    other.load_state_dict(learning.state_dict())
    shares = other.readout["proportion"].shares.clone()
    with caplog.at_level(logging.WARNING):
        trainer(tmp_path).test(other, loader(), verbose=False)
    assert "no labelling images" not in caplog.text

    network_of(other).use_fixed_point(None)
    with caplog.at_level(logging.WARNING):
        trainer(tmp_path).test(other, loader(), verbose=False)

    assert "no labelling images to fit them anew" in caplog.text
    assert torch.equal(other.readout["proportion"].shares, shares)


def test_the_confusion_matrix_is_of_the_last_test(tmp_path: Path) -> None:
    learning = module()
    run = trainer(tmp_path)
    run.fit(learning, loader(), loader())
    images, labels = bars(30, seed=1).tensors
    wrong = labels.clone()
    wrong[labels == 2] = 0  # a third class that is called the first

    for given in (labels, wrong):
        run.test(learning, loader(TensorDataset(images, given)), verbose=False)

    assert learning.confusion.compute().tolist() == [[10, 0, 10], [0, 10, 0], [0, 0, 0]]


def test_wrong_settings() -> None:
    with pytest.raises(TypeError, match=r"Linear does not learn by itself .*network=diehl_cook"):
        UnsupervisedLearning(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"readout='vote'[:;] write one of maximum"):
        module(readout="vote")
    with pytest.raises(ValueError, match="labelling_images=0; write 1 or more"):
        module(labelling_images=0)
    with pytest.raises(ValueError, match=r"num_classes=1[:;] write 2 or more"):
        module(num_classes=1)


def test_more_classes_than_stated_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="labels from 0 to 2: expected 0 to 1; num_classes must"):
        trainer(tmp_path).fit(module(num_classes=2), loader())


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer(tmp_path)
    monkeypatch.setattr(type(run), "world_size", 2)
    with pytest.raises(ValueError, match=r"2 processes.*write Trainer\(devices=1\)"):
        run.fit(module(), loader())


def test_checkpoints_restore_without_fitting_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning = module(readout="maximum")
    checkpoint = ModelCheckpoint(tmp_path)
    run = trainer(tmp_path, enable_checkpointing=True, callbacks=[checkpoint])
    run.fit(learning, loader())
    tested = run.test(learning, loader(bars(60, seed=2)), verbose=False)

    content = torch.load(checkpoint.best_model_path, weights_only=True)
    assert content["hyper_parameters"] == {
        "num_classes": CLASSES,
        "readout": "maximum",
        "labelling_images": 64,
    }
    assert content["global_step"] == 10
    restored = UnsupervisedLearning.load_from_checkpoint(
        checkpoint.best_model_path, network=Plastic(seed=5), weights_only=True
    )
    fits = fits_of(restored, monkeypatch)
    assert trainer(tmp_path).test(restored, loader(bars(60, seed=2)), verbose=False) == tested
    fresh = module(readout="maximum")
    again = trainer(tmp_path).test(
        fresh, loader(bars(60, seed=2)), verbose=False, ckpt_path=checkpoint.best_model_path
    )
    assert again == tested
    assert fits == []


def test_a_checkpoint_in_the_middle_of_an_epoch_has_readouts_that_fit(tmp_path: Path) -> None:
    learning = module()
    checkpoint = ModelCheckpoint(tmp_path, every_n_train_steps=3, save_top_k=1)
    run = trainer(tmp_path, enable_checkpointing=True, callbacks=[checkpoint], max_steps=3)
    run.fit(learning, loader())

    state = torch.load(checkpoint.best_model_path, weights_only=True)["state_dict"]

    images, labels = bars().tensors
    network = Plastic()
    network.weight.copy_(state["network.weight"])
    readout = Proportion(8, CLASSES)
    readout.fit(network.present(images[:60]).spike_counts, labels[:60])
    assert torch.equal(state["readout.each.proportion.shares"], readout.shares)
    assert state["readout.is_fitted"]


def test_a_resumed_training_is_the_unbroken_one(tmp_path: Path) -> None:
    def fitted(epochs: int, ckpt_path: str | None) -> tuple[UnsupervisedLearning, str]:
        learning = module()
        checkpoint = ModelCheckpoint(tmp_path, filename=f"{epochs}")
        run = trainer(
            tmp_path, enable_checkpointing=True, callbacks=[checkpoint], max_epochs=epochs
        )
        run.fit(learning, loader(), ckpt_path=ckpt_path)
        assert run.global_step == 5 * epochs
        return learning, checkpoint.best_model_path

    _, path = fitted(1, None)
    resumed, unbroken = fitted(2, path)[0].state_dict(), fitted(2, None)[0].state_dict()

    assert all(torch.equal(resumed[name], unbroken[name]) for name in unbroken)
    assert resumed["readout.each.ridge.weight"].abs().max() == 1.0


def test_a_checkpoint_whose_tensors_are_copies_gets_the_new_readouts(tmp_path: Path) -> None:
    learning = module()
    learning.labelling.add(*bars().tensors)
    checkpoint = {"state_dict": {k: v.clone() for k, v in learning.state_dict().items()}}

    learning.on_save_checkpoint(checkpoint)

    state = learning.state_dict()
    assert state["readout.is_fitted"]
    assert all(torch.equal(checkpoint["state_dict"][name], state[name]) for name in state)
