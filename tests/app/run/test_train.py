"""Runs of train.py's application, small enough to be quick."""

import csv
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from qspinn.app.errors import ConfigurationError
from qspinn.app.folder.identity import LAUNCH_KEYS, identity
from qspinn.app.run.train import train
from qspinn.records import comparable, config_hash, read_record

# The tiny network by hand: 1x28x28 -> 4x14x14 -> 4x7x7 -> 4x4x4 -> 20.
WEIGHTS = 4 * 1 * 25 + 4 * 4 * 9 + 4 * 4 * 9 + 20 * 64
BIASES = 4 + 4 + 4 + 20
NEURONS = 4 * 14 * 14 + 4 * 7 * 7 + 4 * 4 * 4 + 20


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_ptq_run_leaves_what_the_readme_promises(composed, tmp_path, capsys):
    config = composed("callbacks=default")
    record = train(config, tmp_path)
    assert read_record(tmp_path / "record.json") == record
    assert record.scheme == "ptq"
    assert (record.network, record.data, record.seed) == ("ConvSNN", "mnist_subset", 0)
    assert record.word_lengths["membrane"] == [8]
    assert record.footprint_bits_by_role["weight"] == 8 * WEIGHTS
    assert record.footprint_bits_by_role["bias"] == 8 * BIASES
    assert record.footprint_bits_by_role["membrane"] == 8 * NEURONS
    assert record.baseline_footprint_bits_by_role["membrane"] == 32 * NEURONS
    assert record.reduction == 4.0
    assert {entry["role"] for entry in record.formats.values()} >= {
        "weight",
        "bias",
        "membrane",
        "threshold",
        "decay",
    }
    assert record.accumulator_word_lengths.keys() >= {"network.output.linear"}
    assert record.accuracy == pytest.approx(record.metrics["ptq/test/accuracy"], abs=1e-6)
    assert record.baseline_accuracy == pytest.approx(record.metrics["test/accuracy"], abs=1e-6)
    assert record.accuracy * 1000 == int(record.accuracy * 1000 + 0.5)  # of 1,000 test images
    assert record.seconds.keys() == {"setup", "fit", "test", "validation", "device_model"}
    assert record.versions["torch"] == torch.__version__.split("+")[0]
    assert (tmp_path / record.checkpoint).is_file()
    assert (tmp_path / record.device_model["file"]).is_file()
    saved = OmegaConf.to_container(OmegaConf.load(tmp_path / "config.yaml"))
    assert saved["trainer"]["max_epochs"] == 3
    assert record.config == identity(saved)
    assert not record.config.keys() & set(LAUNCH_KEYS)
    assert record.config_hash == config_hash(record.config)
    assert [row["epoch"] for row in rows_of(tmp_path)] == ["0", "1", "2", "3"]
    assert all(row["train/loss"] and row["val/accuracy"] for row in rows_of(tmp_path)[:3])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert printed.count("epoch ") == 3
    assert "membrane (bits)" in printed


def test_the_checkpoint_holds_the_float_network_and_loads_with_weights_only(composed, tmp_path):
    train(composed("trainer.max_epochs=1"), tmp_path)
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["epoch"] == 0
    weight = checkpoint["state_dict"]["network.blocks.0.conv.weight"]
    assert weight.shape == (4, 1, 5, 5)


@pytest.mark.slow
def test_the_baseline_is_the_32_bit_run_itself(composed, tmp_path):
    none = train(composed("quantization.scheme=none"), tmp_path / "none")
    ptq = train(composed("quantization.scheme=ptq"), tmp_path / "ptq")
    assert none.baseline_accuracy == none.accuracy == ptq.baseline_accuracy
    assert none.footprint_bits == none.baseline_footprint_bits == ptq.baseline_footprint_bits
    assert none.rounding is None
    assert none.formats == {}


def test_an_itq_run_assumes_no_baseline(composed, tmp_path):
    record = train(
        composed(
            "quantization.scheme=itq",
            "quantization.word_length=6",
            "quantization.roles.membrane.word_length=10",
        ),
        tmp_path,
    )
    assert record.baseline_accuracy is None
    assert record.word_lengths["membrane"] == [10]
    assert record.word_lengths["weight"] == [6]
    assert record.footprint_bits_by_role["membrane"] == 10 * NEURONS
    assert record.accuracy == pytest.approx(record.metrics["test/accuracy"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["none", "ptq", "itq"])
def test_the_same_command_gives_the_same_record(composed, tmp_path, scheme):
    overrides = (f"quantization.scheme={scheme}", "quantization.rounding=stochastic")
    first = train(composed(*overrides), tmp_path / "first")
    torch.rand(7)  # what ran before in the process must not matter
    second = train(composed(*overrides), tmp_path / "second")
    assert comparable(first) == comparable(second)
    assert rows_of(tmp_path / "first") == rows_of(tmp_path / "second")
    other = train(composed(*overrides, "seed=1"), tmp_path / "other")
    assert other.metrics["train/loss"] != first.metrics["train/loss"]


def test_a_finished_run_is_not_run_again(composed, tmp_path, capsys):
    first = train(composed(), tmp_path)
    time = (tmp_path / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    capsys.readouterr()
    again = train(composed("progress=none"), tmp_path)  # how it is shown does not matter
    assert again == first
    assert (tmp_path / "checkpoints" / "last.ckpt").stat().st_mtime_ns == time
    assert "already" in capsys.readouterr().out


@pytest.mark.slow
def test_fresh_runs_it_again(composed, tmp_path, capsys):
    first = train(composed("trainer.max_epochs=1"), tmp_path)
    second = train(composed("trainer.max_epochs=2", "fresh=true"), tmp_path)
    assert first.config_hash != second.config_hash
    assert "resuming" not in capsys.readouterr().out
    assert len(rows_of(tmp_path)) == 3


def test_the_folder_of_another_run_is_refused(composed, tmp_path):
    train(composed("trainer.max_epochs=1"), tmp_path)
    with pytest.raises(ConfigurationError, match=r"seed: 0 there, 5 now.*fresh=true"):
        train(composed("trainer.max_epochs=1", "seed=5"), tmp_path)
    (tmp_path / "record.json").unlink()
    with pytest.raises(ConfigurationError, match=r"seed: 0 there, 5 now.*fresh=true"):
        train(composed("trainer.max_epochs=1", "seed=5"), tmp_path)
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(ConfigurationError, match=r"holds a checkpoint but no config\.yaml"):
        train(composed("trainer.max_epochs=1"), tmp_path)


def test_a_broken_record_is_no_record(composed, tmp_path):
    train(composed("trainer.max_epochs=1"), tmp_path)
    (tmp_path / "record.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"record\.json.*delete the file.*fresh=true"):
        train(composed("trainer.max_epochs=1"), tmp_path)


BAD_VALUES = [
    (["quantization.word_length=0"], "word_length=0; write 1 to 24"),
    (["quantization.rounding=foo"], "rounding='foo'; write one of truncate, nearest"),
    (["quantization.overflow=foo"], "overflow='foo'; write one of saturate, wrap"),
    (["quantization.scheme=foo"], r"quantization\.scheme='foo'; write one of none, ptq, itq"),
    (["quantization.roles.theta.word_length=4"], "role='theta'.*no layer.*has the role"),
    (["quantization.roles.weight.format=Q1"], "Q1"),
    (["quantization.rules=[{layers:no,role:weight,word_length:4}]"], "'no'.*matches no layer"),
    (["quantization.rules=[{layer:no}]"], "unknown key 'layer'; write one of layers, role"),
    (["quantization.allow_no_neurons=no"], "allow_no_neurons='no'; write true or false"),
    (["fresh=no"], "fresh='no'; write true"),
    (["quantization.calibration_batches=x"], "calibration_batches='x'; write a whole number"),
    (["quantization.calibration_batches=0"], "calibration_batches=0; write"),
    (
        ["quantization.scheme=itq", "quantization.start_epoch=3"],
        r"quantization\.start_epoch=3.*write 0 to 2",
    ),
    (["network.time_steps=abc"], r"network\.time_steps='abc'; write a whole number"),
    (["network.time_steps=0"], "network: time_steps=0[:;] write 1 or more"),
    (["network.channels=4"], r"network\.channels=4; write a list of a whole number"),
    (["network.neuron.kind=foo"], "network: neuron kind='foo'[:;] write one of lif"),
    (["+network.time_stepz=3"], r"network\.time_stepz.*no such argument; did you mean time_steps"),
    (["network._target_=qspinn.networks.Nothing"], r"network\._target_.*dotted name"),
    (["trainer.max_epochs=two"], r"trainer\.max_epochs='two'; write a whole number or null"),
    (["trainer.max_epochs=0"], r"trainer\.max_epochs=0 trains nothing"),
    (["trainer.accelerator=abacus"], "trainer: .*accelerator='abacus'.*cpu"),
    (["trainer.limit_val_batches=2.5"], r"trainer\.limit_val_batches=2\.5; write 0"),
    (["learning.optimizer.lr=-1"], r"learning\.optimizer\.lr=-1; write a learning rate above 0"),
    (["learning.optimizer.lr=nan"], r"configuration: .*optimizer\.lr.*nan.*finite"),
    (["learning.scheduler.pct_start=3"], r"learning\.scheduler: .*pct_start.*3"),
    (["learning.loss=foo"], "learning: loss='foo'; write one of mse, cross_entropy"),
    (["data.batch_size=0"], "data: batch_size=0; write"),
    (["data=mnist", "data.root=nowhere"], r"data: .*data\.root=FOLDER"),
    (["seed=-1"], "seed=-1; write a whole number from 0"),
    (["seed=1.5"], r"seed=1\.5; write a whole number from 0"),
    (["threads=0"], "threads=0; write 1 or more, or null"),
    (["progress=no"], "progress='no'; write one of auto, bar, lines, none"),
]


@pytest.mark.few(0.3)
@pytest.mark.parametrize(("overrides", "message"), BAD_VALUES, ids=lambda v: str(v)[:60])
def test_bad_values_are_reported_before_training(composed, tmp_path, overrides, message):
    with pytest.raises(ConfigurationError, match=f"(?s){message}"):
        train(composed(*overrides), tmp_path)
    assert not list(tmp_path.iterdir())  # the folder stays free for the corrected command


def test_a_module_without_test_accuracy_is_told_so(composed, tmp_path, monkeypatch):
    from qspinn.learning import SupervisedLearning

    monkeypatch.setattr(SupervisedLearning, "test_step", lambda self, batch, index: None)
    with pytest.raises(ConfigurationError, match="logs no test/accuracy"):
        train(composed("quantization.scheme=none", "trainer.max_epochs=1"), tmp_path)
