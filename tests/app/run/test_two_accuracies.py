"""What a run measures to be chosen by, and what it reports: on data of their own."""

import pytest
import torch

from qspinn.app import launch
from qspinn.app.compose.completing import to_plain
from qspinn.app.errors import ConfigurationError, RunError
from qspinn.app.run.building import build_parts
from qspinn.app.run.train import train
from qspinn.app.tracking.summary import summary_of
from qspinn.records import read_record
from qspinn.selection import LinearReward

ONE = "trainer.max_epochs=1"


def counted(config, folder, which):
    """Right answers and samples of the 32-bit network in a checkpoint, counted here."""
    parts = build_parts(to_plain(config))
    loaded = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    parts.module.load_state_dict(loaded["state_dict"])
    parts.module.eval()
    loader = getattr(parts.data, f"{which}_dataloader")()
    right = samples = 0
    with torch.no_grad():
        for x, labels in loader:
            right += int((parts.module(x).argmax(1) == labels).sum())
            samples += len(labels)
    return right, samples


@pytest.mark.few(0.5)
@pytest.mark.parametrize("store", [False, True])
def test_both_are_shares_of_samples_of_their_own(composed, tmp_path, store):
    more = [f"baselines.dir={tmp_path / 'store'}"] if store else []
    config = composed(ONE, *more)
    record = train(config, tmp_path / "run")
    for which, prefix in (("test", ""), ("val", "validation_")):
        right, samples = counted(config, tmp_path / "run", which)
        assert getattr(record, f"{prefix}samples") == samples
        baseline = getattr(record, f"{prefix}baseline_accuracy")
        assert baseline == pytest.approx(right / samples, abs=1e-6)
    assert record.validation_samples == 500
    assert record.validation_accuracy == pytest.approx(record.metrics["ptq/val/accuracy"], abs=1e-6)
    assert read_record(tmp_path / "run" / "record.json") == record


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["none", "ptq", "itq"])
def test_a_network_that_learns_by_itself_has_both(composed, tmp_path, scheme):
    config = composed(
        "experiment=unsupervised_quick", ONE, f"quantization.scheme={scheme}", "baselines.dir=null"
    )
    record = train(config, tmp_path)
    assert (record.samples, record.validation_samples) == (500, 500)  # one batch of each
    assert 0 < record.validation_accuracy < 1
    assert (record.validation_baseline_accuracy is None) == (scheme == "itq")


@pytest.mark.slow
def test_an_itq_run_takes_both_of_its_twin(composed, tmp_path):
    store = f"baselines.dir={tmp_path / 'store'}"
    twin = train(composed(ONE, store, "quantization.scheme=ptq"), tmp_path / "ptq")
    record = train(composed(ONE, store, "quantization.scheme=itq"), tmp_path / "itq")
    assert record.baseline_accuracy == twin.baseline_accuracy
    assert record.validation_baseline_accuracy == twin.validation_baseline_accuracy


def test_nothing_is_measured_where_nothing_is_held_out(composed, tmp_path):
    record = train(composed(ONE, "trainer.limit_val_batches=0"), tmp_path)
    assert record.validation_accuracy is record.validation_samples is None
    assert record.measured_on("validation") is None
    assert record.samples == 1000


def test_a_sweeper_gets_the_accuracy_that_chooses(composed, make_record, tmp_path, monkeypatch):
    given = make_record(accuracy=0.9, validation_accuracy=0.7)
    monkeypatch.setattr(launch, "train", lambda config, output: given)
    assert launch.run(composed(), tmp_path) == 0.7 - 0.1 * 800 / 3200
    assert launch.run(composed("objective=accuracy"), tmp_path) == 0.7
    monkeypatch.setattr(launch, "train", lambda config, output: make_record(accuracy=0.9))
    assert launch.run(composed("objective=accuracy"), tmp_path) == 0.9


def test_a_sweeper_gets_what_the_objective_names(composed, make_record, tmp_path, monkeypatch):
    given = make_record(
        accuracy=0.9,
        validation_accuracy=0.7,
        flash_bits=700,
        ram_bits=100,
        work={"energy_nj": 12.5},
        fidelity={"agreement": 0.8},
        metrics={"val/loss": 0.25, "test/loss": None},
    )
    monkeypatch.setattr(launch, "train", lambda config, output: given)

    def returned(objective):
        return launch.run(composed(f"objective={objective}"), tmp_path)

    assert returned("[accuracy,footprint_bits]") == (0.7, 800.0)
    assert returned("[accuracy]") == (0.7,)
    assert returned("share") == 0.25
    assert returned("[flash_bits,ram_bits,energy_nj,agreement,val/loss]") == (
        *(700.0, 100.0, 12.5, 0.8, 0.25),
    )
    for objective, says in (
        ("drop", "this run has not measured it; the record is kept"),
        ("val/los", "the metrics of this run are test/loss, val/loss"),
        ("test/loss", "it is not a finite number"),
    ):
        with pytest.raises(RunError, match=says):
            returned(objective)


@pytest.mark.parametrize("objective", ["acuracy", "null", "3", "[]", "[reward,1]"])
def test_an_objective_that_cannot_be_ends_before_training(
    composed, tmp_path, monkeypatch, objective
):
    monkeypatch.setattr(launch, "train", lambda config, output: pytest.fail("trained"))
    with pytest.raises(ConfigurationError, match="objective="):
        launch.run(composed(f"objective={objective}"), tmp_path)


def test_the_objective_is_no_part_of_what_a_run_is(composed, tmp_path):
    record = train(composed(ONE, "objective=accuracy"), tmp_path)
    again = train(composed(ONE, "objective=[accuracy,share]"), tmp_path)
    assert again == record


def test_wandb_gets_a_reward_to_choose_by(make_record):
    chance = [make_record(accuracy=a, validation_accuracy=0.7) for a in (0.1, 0.9)]
    rewards = {summary_of(record)["reward"] for record in chance}
    assert rewards == {LinearReward()(chance[0].measured_on("validation"))}
    assert summary_of(chance[0])["chosen_by"] == "validation"
    assert summary_of(make_record(accuracy=0.9))["chosen_by"] == "test"
