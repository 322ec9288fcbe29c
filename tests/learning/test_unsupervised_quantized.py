"""Learning without labels under the callbacks that quantise."""

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from qspinn.callbacks import InTrainingQuantization, PostTrainingQuantization
from qspinn.learning import UnsupervisedLearning
from qspinn.plan import QuantizationPlan, footprint
from qspinn.quantizers import is_attached
from tests.learning.plastic import CLASSES, Plastic, bars

NEURONS, INPUTS = 8, 81
# As conf/quantization/stdp.yaml has it: weights by themselves, and the readout's with 8 bits.
PLAN = QuantizationPlan.from_rules(
    [
        {"role": "weight", "word_length": 3},
        {"role": "membrane", "word_length": 16},
        {"role": "trace", "word_length": 12},
        {"layers": "*readout*", "role": "weight", "word_length": 8},
    ]
)


class Bars(lightning.LightningDataModule):
    """Training, validation and test data that are all different."""

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(bars(), batch_size=20)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(bars(30, seed=1), batch_size=20)

    def test_dataloader(self) -> DataLoader[Any]:
        return DataLoader(bars(60, seed=2), batch_size=20)


def module(readout: str = "proportion") -> UnsupervisedLearning:
    return UnsupervisedLearning(Plastic(NEURONS), CLASSES, readout, labelling_images=64)


def fitted(
    folder: Path, callback: lightning.Callback, readout: str = "proportion", **settings: Any
) -> tuple[lightning.Trainer, UnsupervisedLearning]:
    learning = module(readout)
    defaults: dict[str, Any] = {"max_epochs": 2, "enable_checkpointing": False}
    run = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        deterministic=True,
        callbacks=[callback, *settings.pop("callbacks", [])],
        **{**defaults, **settings.pop("trainer", {})},
    )
    run.fit(learning, datamodule=Bars(), **settings)
    return run, learning


def on_grid(values: Tensor, bits: int) -> bool:
    return torch.equal(values * 2**bits, (values * 2**bits).round())


def test_the_copy_that_is_quantised_after_training_is_read_out_anew(tmp_path: Path) -> None:
    callback = PostTrainingQuantization(PLAN, stages=("validate", "test"))

    run, learning = fitted(tmp_path, callback)

    quantized = callback.quantized_module
    assert isinstance(quantized, UnsupervisedLearning)
    assert is_attached(quantized)
    assert not is_attached(learning)
    network = quantized.network
    assert isinstance(network, Plastic)
    assert len(network.weight.unique()) <= 8
    assert len(learning.network.weight.unique()) > 100  # type: ignore[union-attr, arg-type]
    images, labels = bars().tensors
    by_hand = type(quantized.readout)("proportion", NEURONS, CLASSES)
    by_hand.fit(network.present(images[:64]).spike_counts, labels[:64])
    for name, value in by_hand.state_dict().items():
        assert torch.equal(value, quantized.readout.state_dict()[name])
    shares = quantized.readout["proportion"].shares
    assert not torch.equal(shares, learning.readout["proportion"].shares)
    assert callback.metrics["ptq/test/accuracy"] > 0.8
    assert callback.metrics.keys() >= {"ptq/val/accuracy", "ptq/test/accuracy_ridge"}
    assert run.test(learning, datamodule=Bars(), verbose=False)[0]["test/accuracy"] == 1.0


@pytest.mark.parametrize(
    ("readout", "bits"),
    [("proportion", 8 * CLASSES * NEURONS), ("ridge", 8 * CLASSES * NEURONS)],
)
def test_only_the_chosen_readout_is_counted(tmp_path: Path, readout: str, bits: int) -> None:
    callback = PostTrainingQuantization(PLAN)
    _, learning = fitted(tmp_path, callback, readout)

    found = callback.footprint
    assert found is not None
    biases = {"bias": 32 * CLASSES} if readout == "ridge" else {}
    assert found.by_role == {
        "weight": 3 * INPUTS * NEURONS + bits,
        "membrane": 16 * NEURONS,
        **biases,
    }
    assert found.training_bits == found.inference_bits + 12 * INPUTS
    in_float = footprint(learning)
    assert in_float.inference_bits == found.baseline_inference_bits
    assert in_float.by_role["weight"] == 32 * (INPUTS + CLASSES) * NEURONS


def test_labels_of_neurons_are_counted_in_their_own_bits() -> None:
    found = footprint(module("maximum"))
    assert found.by_tensor["readout.labels"] == 2 * NEURONS  # 3 classes, or none
    assert found.baseline_by_role["other"] == 2 * NEURONS


@pytest.mark.parametrize("readout", ["maximum", "proportion", "ridge"])
def test_learning_on_the_grid(tmp_path: Path, readout: str) -> None:
    plan = PLAN if readout != "maximum" else QuantizationPlan(PLAN.rules[:-1])
    callback = InTrainingQuantization(plan)

    run, learning = fitted(tmp_path, callback, readout)

    assert on_grid(learning.network.weight, 3)  # type: ignore[arg-type]
    assert learning.network.weight.unique().numel() <= 8  # type: ignore[union-attr, operator]
    chosen = learning.readout[readout]
    if readout != "maximum":
        name = {"proportion": "shares", "ridge": "weight"}[readout]
        assert on_grid(chosen.held(name), 8)
        assert chosen.held(name).abs().max() > 0.4
    tested = run.test(learning, datamodule=Bars(), verbose=False)[0]
    assert tested["test/accuracy"] == tested[f"test/accuracy_{readout}"] > 0.8


@pytest.mark.parametrize("kind", ["ptq", "itq"])
def test_a_training_that_was_complete_resumes_with_the_same_results(
    tmp_path: Path, kind: str
) -> None:
    results = []
    path: str | None = None
    for folder in ("unbroken", "resumed"):
        callback: Any = (
            PostTrainingQuantization(PLAN, stages=("test",))
            if kind == "ptq"
            else InTrainingQuantization(PLAN)
        )
        checkpoint = ModelCheckpoint(tmp_path / folder)
        run, learning = fitted(
            tmp_path,
            callback,
            callbacks=[checkpoint],
            trainer={"enable_checkpointing": True},
            ckpt_path=path,
        )
        path = checkpoint.best_model_path or path
        tested = run.test(learning, datamodule=Bars(), verbose=False)[0]
        handed_over = callback.quantized_module if kind == "ptq" else learning
        metrics = callback.metrics if kind == "ptq" else tested
        results.append((tested, metrics, handed_over.state_dict()))

    (first, states), (again, others) = ((one[:2], one[2]) for one in results)
    assert first == again
    assert all(torch.equal(states[name], others[name]) for name in states)
