"""A network that diverges is no result: one sentence, a failure.json, no record, no baseline."""

import functools
import json

import pytest
import torch

from qspinn.app.errors import RunError
from qspinn.app.launch import short
from qspinn.app.run.train import train
from qspinn.learning import SupervisedLearning
from qspinn.networks import ConvSNN

SENTENCE = r"the network has diverged in epoch \d+: network\.\S+ holds values that are not finite"


@pytest.fixture
def diverging(monkeypatch):
    """Weights that are not finite, from the second epoch on."""
    original = SupervisedLearning.training_step

    def step(self, batch, batch_idx):
        loss = original(self, batch, batch_idx)
        return loss * float("nan") if self.current_epoch == 1 else loss

    monkeypatch.setattr(SupervisedLearning, "training_step", step)


@pytest.mark.parametrize("scheme", ["none", "ptq", "itq"])
def test_it_is_said_and_not_recorded(composed, tmp_path, diverging, scheme):
    store = tmp_path / "store"
    config = composed(f"quantization.scheme={scheme}", f"baselines.dir={store}")
    with pytest.raises(RunError, match=SENTENCE) as raised:
        train(config, tmp_path / "run")
    message = str(raised.value)
    assert "learning.optimizer.lr" in message
    assert ("start_epoch" in message) == (scheme == "itq")
    assert short(raised.value) is raised.value  # one sentence, no traceback
    assert not list(tmp_path.rglob("record.json"))
    assert not list(tmp_path.rglob("baseline.json"))
    for checkpoint in tmp_path.rglob("last.ckpt"):  # of the epoch before
        state = torch.load(checkpoint, weights_only=True)["state_dict"]
        assert all(bool(torch.isfinite(value).all()) for value in state.values())


def test_a_buffer_counts_as_well(composed, tmp_path, monkeypatch):
    def end(self):
        self.register_buffer("running", torch.tensor([0.0, float("inf")]))

    monkeypatch.setattr(SupervisedLearning, "on_train_epoch_start", end)
    with pytest.raises(RunError, match=r"in epoch 1: running holds values that are not finite"):
        train(composed("quantization.scheme=none"), tmp_path / "run")


def test_what_was_not_finite_before_is_meant_to_be_so(composed, tmp_path, monkeypatch):
    original = SupervisedLearning.__init__

    @functools.wraps(original)
    def init(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.register_buffer("mask", torch.tensor([0.0, -float("inf")]))

    monkeypatch.setattr(SupervisedLearning, "__init__", init)
    # The caller's frame holds the hyper-parameters that are saved, and has no name of them here.
    monkeypatch.setattr(SupervisedLearning, "save_hyperparameters", lambda self, *names: None)
    record = train(composed("quantization.scheme=none", "trainer.max_epochs=1"), tmp_path / "run")
    assert record.accuracy == record.baseline_accuracy


@pytest.mark.parametrize("scheme", ["none", "itq"])
def test_results_that_are_no_numbers_are_no_record(composed, tmp_path, monkeypatch, scheme):
    """Also where every weight is finite, and whatever the class of the learning logs."""
    original = ConvSNN.forward

    def forward(self, x):
        scores = original(self, x)
        return scores if torch.is_grad_enabled() else scores * float("nan")

    monkeypatch.setattr(ConvSNN, "forward", forward)
    config = composed(f"quantization.scheme={scheme}", "trainer.max_epochs=1")
    with pytest.raises(RunError, match=r"training: its output for the test data is NaN"):
        train(config, tmp_path / "run")
    assert not list(tmp_path.rglob("record.json"))


def test_a_metric_that_nobody_logs_is_one_sentence(composed, tmp_path):
    stop = "+callbacks.s={_target_:lightning.pytorch.callbacks.EarlyStopping,monitor:val/x}"
    with pytest.raises(RunError, match=r"trainer: Early stopping conditioned on metric `val/x`"):
        train(composed("quantization.scheme=none", stop), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["none", "ptq"])
def test_a_training_in_64_bits_ends_with_a_record(composed, tmp_path, scheme):
    settings = ("trainer.precision=64-true", "trainer.max_epochs=1")
    config = composed(f"quantization.scheme={scheme}", *settings)
    assert train(config, tmp_path / "run").scheme == scheme


@pytest.mark.slow
def test_the_program_says_it_in_one_line(launch, tmp_path):
    run = ("quantization.scheme=itq", "learning.optimizer.lr=1e30", f"hydra.run.dir={tmp_path}")
    done = launch(*run)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "diverged" in line
    failure = json.loads((tmp_path / "failure.json").read_text())
    assert failure["message"] == line.removeprefix("error: ")
