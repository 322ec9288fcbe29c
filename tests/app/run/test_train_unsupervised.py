"""Runs that learn without labels, as train.py does them."""

import csv
import re
from pathlib import Path

import matplotlib.image
import pytest
import torch

from qspinn.app.errors import ConfigurationError
from qspinn.app.folder.files import PICTURES
from qspinn.app.run.train import train
from qspinn.records import comparable, read_record

QUICK = "experiment=unsupervised_quick"
NEURONS, INPUTS = 9, 784
# Of each phase.
MEASURED = ("accuracy", "accuracy_maximum", "accuracy_proportion", "accuracy_ridge")


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.few(0.2)
@pytest.mark.parametrize("scheme", ["none", "ptq", "itq"])
def test_a_run_leaves_what_is_promised(composed, tmp_path, capsys, scheme):
    config = composed(
        QUICK, f"quantization.scheme={scheme}", "quantization.word_length=4", "callbacks=default"
    )
    record = train(config, tmp_path)

    assert read_record(tmp_path / "record.json") == record
    assert (record.network, record.data) == ("diehl_cook", "mnist_subset")
    prefixes = ("", "ptq/") if scheme == "ptq" else ("",)
    for prefix in prefixes:
        for name in (*MEASURED, "silent_neurons"):
            assert 0 <= record.metrics[f"{prefix}val/{name}"] <= 1
            assert 0 <= record.metrics[f"{prefix}test/{name}"] <= 1
    assert record.accuracy == pytest.approx(record.metrics[f"{prefixes[-1]}test/accuracy"])
    underflow = record.metrics["train/update_underflow"]
    # No update reaches half a step of 4 bits, so rounding to nearest swallows every one of them.
    assert underflow == 1 if scheme == "itq" else underflow < 1e-4
    rows = rows_of(tmp_path)
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert all(row["train/update_underflow"] and row["val/accuracy_ridge"] for row in rows[:2])
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert pictures == set(PICTURES[:4] if scheme == "ptq" else PICTURES[:2])
    assert matplotlib.image.imread(tmp_path / "weights.png").std() > 0
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"epoch 2/2  .*train/update_underflow .*val/accuracy .* images/s$", lines[1])
    assert sum(line.startswith("test  test/accuracy ") for line in lines) == 1


def test_the_footprint_is_that_of_the_network_and_of_the_chosen_readout(composed, tmp_path):
    config = composed(QUICK, "quantization.scheme=ptq", "quantization.word_length=4")
    record = train(config, tmp_path)

    synapses, shares = INPUTS * NEURONS, 10 * NEURONS
    assert record.footprint_bits_by_role["weight"] == 4 * synapses + 8 * shares
    assert record.baseline_footprint_bits_by_role["weight"] == 32 * (synapses + shares)
    assert record.footprint_bits_by_role["theta"] == 16 * NEURONS
    assert record.word_lengths["weight"] == [4, 8]
    assert record.formats["network.weight"]["role"] == "weight"
    assert record.training_footprint_bits > record.footprint_bits
    assert "trace" not in record.footprint_bits_by_role


@pytest.mark.few(0.5)
@pytest.mark.parametrize("scheme", ["none", "itq"])
def test_the_same_command_gives_the_same_record(composed, tmp_path, scheme):
    overrides = (QUICK, f"quantization.scheme={scheme}", "quantization.rounding=stochastic")
    first = train(composed(*overrides), tmp_path / "first")
    torch.rand(7)  # what ran before in the process must not matter
    second = train(composed(*overrides), tmp_path / "second")
    assert comparable(first) == comparable(second)
    assert rows_of(tmp_path / "first") == rows_of(tmp_path / "second")
    other = train(composed(*overrides, "seed=1"), tmp_path / "other")
    assert other.metrics["train/output_spikes"] != first.metrics["train/output_spikes"]


def test_the_checkpoint_loads_with_weights_only_and_is_small(composed, tmp_path):
    train(composed(QUICK, "quantization.scheme=none"), tmp_path)
    path = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["state_dict"]["network.weight"].shape == (INPUTS, NEURONS)
    assert bool(checkpoint["state_dict"]["readout.is_fitted"])
    assert checkpoint["global_step"] == 8
    assert path.stat().st_size < 150 * INPUTS + 4 * INPUTS * NEURONS + 50_000


def test_nothing_is_held_out_when_nothing_should_be(composed, tmp_path, shared_data, recwarn):
    config = composed(
        "experiment=unsupervised_mnist",
        f"data.root={shared_data}",
        "data.val_size=0",
        "quantization.scheme=none",
    )
    record = train(config, tmp_path)
    assert record.data == "mnist"
    assert not any(name.startswith("val/") for name in record.metrics)
    assert record.metrics.keys() >= {f"test/{name}" for name in MEASURED}
    shown = [str(warning.message) for warning in recwarn]
    assert not any("val_dataloader" in text or "is zero" in text for text in shown)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["learning.readout=vote"],
            "learning: readout='vote'[:;] write one of maximum",
        ),
        (["learning.labelling_images=0"], "learning: labelling_images=0; write 1 or more"),
        (["learning.labelling_images=x"], r"learning\.labelling_images='x'; write a whole number"),
        (["network.neurons=0"], "network: .*neurons=0"),
        (["network.backend=abacus"], "network: .*backend='abacus'"),
        (["network.stdp.rate_post=-1"], "network.*rate_post=-1"),
        (
            ["network.stdp.update=later"],
            "network.*update='later'[:;] write one of online",
        ),
        (["network.settings.tau=0"], "network.*tau=0"),
        (["+network.stdp.rate=1"], r"network\.stdp\.rate: .*no such argument; did you mean rate_"),
        (["learning.readout=maximum"], r"layers='\*readout\*'.*matches no layer"),
        (["trainer.gradient_clip_val=1"], "gradient"),
        (["trainer.accumulate_grad_batches=2"], "accumulate"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_bad_values_are_reported_before_training(composed, tmp_path, overrides, message):
    config = composed(QUICK, *overrides)
    with pytest.raises(ConfigurationError, match=f"(?s){message}"):
        train(config, tmp_path)
    assert not list(tmp_path.iterdir())  # the folder stays free for the corrected command


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("learning=stdp",), "ConvSNN does not learn by itself .*network=diehl_cook"),
        ((QUICK, "learning=supervised"), "DiehlCook has no parameter that a gradient can train"),
    ],
)
def test_networks_and_rules_that_do_not_fit_say_so(composed, tmp_path, overrides, message):
    with pytest.raises(ConfigurationError, match=f"learning: {message}"):
        train(composed(*overrides, tiny=False), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("readout", ["maximum", "ridge"])
def test_each_readout_can_be_the_one_of_the_device(composed, tmp_path, readout):
    rules = ("quantization.rules=[]",) if readout == "maximum" else ()
    record = train(composed(QUICK, f"learning.readout={readout}", *rules), tmp_path)
    assert record.metrics["test/accuracy"] == record.metrics[f"test/accuracy_{readout}"]
    assert record.accuracy == pytest.approx(record.metrics["ptq/test/accuracy"])
    bits = record.footprint_bits_by_role
    if readout == "maximum":
        assert bits["other"] >= 4 * NEURONS  # a label takes 4 bits
        assert bits["weight"] == 8 * INPUTS * NEURONS
    else:
        assert bits["weight"] == 8 * (INPUTS + 10) * NEURONS
        assert bits["bias"] == 8 * 10
