"""The work and energy that runs of train.py record and log."""

import csv
import json

import pytest

from qspinn.app.compose.completing import complete, to_plain
from qspinn.app.errors import ConfigurationError
from qspinn.app.folder.identity import identity
from qspinn.app.run import quantization
from qspinn.app.run.train import train
from qspinn.app.tracking.summary import summary_of
from qspinn.plan import EnergyModel
from qspinn.records import baseline_key, comparable, read_record
from qspinn.records.unread import Unread
from qspinn.selection import EnergyReward
from tests.app.run.test_train import NEURONS

QUICK = ("trainer.max_epochs=1", "trainer.limit_train_batches=2")
NUMBERS = {
    *("energy_nj", "energy_compute_nj", "energy_memory_nj", "float_energy_nj", "ann_energy_nj"),
    *("ann_float_energy_nj", "synaptic_operations", "dense_synaptic_operations"),
    *("multiplications", "additions", "state_updates", "bits_moved", "time_steps", "samples"),
}


@pytest.mark.few(0.2)
@pytest.mark.parametrize("scheme", ["none", "ptq", "itq"])
def test_every_scheme_records_and_logs_it(composed, tmp_path, scheme):
    record = train(composed(*QUICK, f"quantization.scheme={scheme}"), tmp_path)
    work = record.work
    assert work.keys() == NUMBERS | {"layers", "lines", "energy_model"}
    assert (work["time_steps"], work["samples"]) == (2, 64)
    assert work["state_updates"] == 2 * NEURONS
    assert 0 < work["synaptic_operations"] < work["dense_synaptic_operations"]
    assert record.energy_nj == work["energy_nj"]
    if scheme == "none":
        assert work["energy_nj"] == work["float_energy_nj"]
        assert work["ann_energy_nj"] == work["ann_float_energy_nj"]
    else:
        assert work["energy_nj"] < work["float_energy_nj"]
    assert work["layers"]["network.blocks.0.neuron"]["state_updates"] == 2 * 4 * 14 * 14
    read = read_record(tmp_path / "record.json")
    assert isinstance(vars(read)["work"], Unread)
    assert isinstance(vars(read)["fidelity"], Unread) is (scheme != "none")
    assert read.work == work
    with open(tmp_path / "metrics.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["work/energy_nj"]) == pytest.approx(work["energy_nj"])
    prefix = "ptq/" if scheme == "ptq" else ""
    assert record.metrics[f"{prefix}work/energy_nj"] == pytest.approx(work["energy_nj"])
    # Nothing of it says that the run was another one.
    assert "energy" not in record.config
    shown = summary_of(record)
    assert shown["work/ann_energy_nj"] == work["ann_energy_nj"]
    assert shown["work"] == "\n".join(work["lines"])
    assert json.dumps(work)
    assert EnergyReward()(record) < record.accuracy


@pytest.mark.parametrize("experiment", ["unsupervised_quick", "decolle_mnist_quick"])
def test_networks_that_compute_by_themselves(composed, tmp_path, experiment):
    record = train(composed(f"experiment={experiment}", "trainer.max_epochs=1"), tmp_path)
    assert record.work["time_steps"] == {"unsupervised_quick": 30}.get(experiment, 6)
    assert record.work["samples"] == 64
    assert 0 < record.energy_nj < record.work["float_energy_nj"]


@pytest.mark.slow
def test_another_measurement_changes_nothing_else(composed, tmp_path, monkeypatch):
    """The same run with and without the measurement, stochastic rounding included."""
    config = composed(*QUICK, "quantization.rounding=stochastic", "quantization.word_length=4")
    whole = train(config, tmp_path / "a")
    monkeypatch.setattr("qspinn.callbacks.quantization.measured_work", lambda *_: None)
    without = train(config, tmp_path / "b")
    assert without.work is None
    kept = {name: v for name, v in whole.metrics.items() if "work/" not in name}
    assert kept == without.metrics
    assert whole.accuracy == without.accuracy
    assert whole.config_hash == without.config_hash


@pytest.mark.slow
def test_what_operations_cost_can_be_replaced(composed, tmp_path):
    usual = train(composed(*QUICK), tmp_path / "a")
    named = train(composed(*QUICK, "energy=horowitz"), tmp_path / "b")
    assert named.work == usual.work
    dear = ("energy=horowitz", "energy.memories=[[1,10]]", "energy.dram=6400", "energy.name=mine")
    other = train(composed(*QUICK, *dear), tmp_path / "c")
    assert other.work["energy_memory_nj"] == pytest.approx(usual.work["bits_moved"] * 0.1)
    assert other.work["energy_compute_nj"] == usual.work["energy_compute_nj"]
    assert other.work["energy_model"] == "mine"
    # It is another run of the same training.
    assert other.config_hash != usual.config_hash
    assert other.baseline_key == usual.baseline_key == baseline_key(other.config)


@pytest.mark.parametrize(
    ("energy", "told"),
    [
        ({"_target_": "qspinn.plan.EnergyModel", "dram": -1}, "energy.*dram=-1"),
        ({"_target_": "qspinn.plan.EnergyModel", "drum": 1}, "energy.*drum"),
        ({"_target_": "builtins.dict"}, r"energy\._target_ makes a dict"),
    ],
)
def test_costs_that_cannot_be_are_refused(energy, told):
    with pytest.raises(ConfigurationError, match=told):
        quantization.energy_from_config(energy)


def test_no_energy_is_the_configuration_that_there_was_before(composed):
    values = to_plain(complete(composed()))
    assert values["energy"] is None
    assert "energy" not in identity(values)
    assert quantization.energy_from_config(None) is None
    assert isinstance(
        quantization.energy_from_config(to_plain(composed("energy=horowitz"))["energy"]),
        EnergyModel,
    )


@pytest.mark.slow
def test_a_run_broken_off_after_its_last_epoch_measures_the_same(composed, tmp_path):
    """What was drawn in the training before has no part in it."""
    config = composed(
        "quantization.scheme=itq",
        "quantization.rounding=stochastic",
        "quantization.word_length=4",
        "trainer.max_epochs=1",
        "baselines.dir=null",
    )
    first = train(config, tmp_path)
    (tmp_path / "record.json").unlink()
    assert comparable(train(config, tmp_path)) == comparable(first)
    assert first.work is not None
    assert first.fidelity is not None
