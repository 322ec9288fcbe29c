"""Runs that learn layer by layer, as train.py does them."""

import csv
from pathlib import Path

import pytest
import torch

from qspinn.app.errors import ConfigurationError
from qspinn.app.run.train import train
from qspinn.records import comparable, read_record

QUICK = "experiment=decolle_mnist_quick"
# The tiny network: 28x28 -> 3 channels 14x14, kernel 3, pooled to 7x7 -> 8 neurons, 10 classes.
WEIGHTS = 3 * 9 + 8 * 147
TRACES = 2 * (784 + 147)
NEURONS = 3 * 196 + 8
LAST_READOUT, FIRST_READOUT = 10 * 8, 10 * 147


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.few(0.2)
@pytest.mark.parametrize("scheme", ["none", "ptq", "itq"])
def test_a_run_leaves_what_is_promised(composed, tmp_path, scheme):
    record = train(composed(QUICK, f"quantization.scheme={scheme}"), tmp_path)

    assert read_record(tmp_path / "record.json") == record
    assert (record.network, record.data) == ("decolle", "mnist_subset")
    prefixes = ("", "ptq/") if scheme == "ptq" else ("",)
    for prefix in prefixes:
        for name in ("accuracy", "accuracy_layer_0", "activity_layer_0", "activity_layer_1"):
            assert 0 <= record.metrics[f"{prefix}val/{name}"] <= 1
            assert 0 <= record.metrics[f"{prefix}test/{name}"] <= 1
    assert record.accuracy == pytest.approx(record.metrics[f"{prefixes[-1]}test/accuracy"])
    rows = rows_of(tmp_path)
    assert all(row["train/loss"] and row["val/accuracy_layer_0"] for row in rows[:2])
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2 * 4 * 3  # epochs, batches, steps after the burn-in
    if scheme == "none":
        return
    formats = {path: one["format"] for path, one in record.formats.items()}
    assert formats["network.layers.0.input"] == "UQ0.8"
    states = {f"network.layers.{i}.{name}" for i in (0, 1) for name in "qpru"}
    assert states < formats.keys()
    assert record.accumulator_word_lengths["network.layers.1.readout"] > 8


def test_the_footprint_is_that_of_the_network(composed, tmp_path):
    words = (
        "quantization.word_length=4",
        "quantization.roles.trace.word_length=7",
        "quantization.roles.membrane.word_length=6",
        "quantization.roles.decay.word_length=9",
    )
    record = train(composed(QUICK, "quantization.scheme=ptq", *words), tmp_path)
    assert record.footprint_bits_by_role == {
        "weight": 4 * (WEIGHTS + LAST_READOUT),
        "bias": 4 * (3 + 8),
        "trace": 7 * TRACES,
        "membrane": 6 * (NEURONS + 2),
        "threshold": 4 * 2,
        "decay": 9 * 6,
        "other": 32 * 10,
    }
    more = record.training_footprint_bits - record.footprint_bits
    assert more == 4 * FIRST_READOUT + 6 * NEURONS


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["none", "itq"])
def test_the_same_command_gives_the_same_record(composed, tmp_path, scheme):
    overrides = (
        QUICK, f"quantization.scheme={scheme}", "quantization.rounding=stochastic",
        "network.coding=bernoulli",
    )  # fmt: skip
    first = train(composed(*overrides), tmp_path / "first")
    torch.rand(7)  # what ran before in the process must not matter
    second = train(composed(*overrides), tmp_path / "second")
    assert comparable(first) == comparable(second)
    assert rows_of(tmp_path / "first") == rows_of(tmp_path / "second")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["ptq", "itq"])
def test_a_broken_run_goes_on(composed, tmp_path, launch_killed, scheme):
    overrides = (
        QUICK, f"quantization.scheme={scheme}", "quantization.rounding=stochastic",
        "learning.update_every=2",
    )  # fmt: skip
    whole = train(composed(*overrides), tmp_path / "whole")
    where = "qspinn.learning.local:LocalLearning:training_step"
    broken = launch_killed(where, 7, f"hydra.run.dir={tmp_path / 'broken'}", *overrides)
    assert broken.returncode != 0
    assert not (tmp_path / "broken" / "record.json").exists()
    assert (tmp_path / "broken" / "checkpoints" / "last.ckpt").exists()
    gone_on = train(composed(*overrides), tmp_path / "broken")
    assert comparable(gone_on) == comparable(whole)
    assert rows_of(tmp_path / "broken") == rows_of(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(
    "rounding", ["truncate", "nearest", "toward_zero", "nearest_even", "nearest_away"]
)
@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
def test_every_rounding_and_overflow_trains(composed, tmp_path, rounding, overflow):
    config = composed(
        QUICK, "quantization.scheme=itq", "quantization.word_length=6", "trainer.max_epochs=1",
        f"quantization.rounding={rounding}", f"quantization.overflow={overflow}",
    )  # fmt: skip
    record = train(config, tmp_path)
    assert 0 <= record.accuracy <= 1
    assert record.footprint_bits < record.baseline_footprint_bits / 5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["learning.loss=hinge"], "learning: loss='hinge'; write one of smooth_l1, mse"),
        (["learning.update_every=0"], "learning: update_every=0; write 1 or more, or null"),
        (["learning.update_every=x"], r"learning\.update_every='x'; write a whole number or null"),
        (["learning.silence=-1"], "learning: silence=-1; write 0 or more"),
        (["network.burn_in=6"], "network: .*time_steps=6[:;] write more than burn_in=6"),
        (["network.coding=rate"], "network: .*coding='rate'[:;] write one of direct, bernoulli"),
        (["network.settings.tau_synapse=0"], "network.*tau_synapse=0"),
        (["+network.settings.tau=1"], r"network\.settings\.tau: .*no such argument"),
        (["trainer.gradient_clip_val=1"], "LocalLearning makes its updates by itself"),
        (["network=conv_snn"], "ConvSNN has no readout at each layer; take network=decolle"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_bad_values_are_reported_before_training(composed, tmp_path, overrides, message):
    tiny = overrides != ["network=conv_snn"]
    config = composed(QUICK, *overrides, tiny=tiny)
    with pytest.raises(ConfigurationError, match=f"(?s){message}"):
        train(config, tmp_path)
    assert not list(tmp_path.iterdir())  # the folder stays free for the corrected command
