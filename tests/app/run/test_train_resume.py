"""A run that is killed and started again ends as the unbroken one does."""

import signal

import pytest
import torch

from qspinn.app.run.train import train
from qspinn.records import comparable, read_record

LEARNING = "qspinn.learning.supervised:SupervisedLearning"
UNSUPERVISED = "qspinn.learning.unsupervised:UnsupervisedLearning"
STOCHASTIC = "quantization.rounding=stochastic"
STEP_PER_EPOCH = (
    "~learning.scheduler",
    "+learning.scheduler={_target_:torch.optim.lr_scheduler.StepLR,_partial_:true,"
    "step_size:1,gamma:0.5}",
)


def check_resumes(composed, launch_killed, tmp_path, where, count, epochs_kept, *overrides):
    """Kill a run at a call, start it again, and compare it with an unbroken one."""
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    killed = launch_killed(where, count, f"hydra.run.dir={broken}", *overrides)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (broken / "record.json").exists()
    checkpoint = broken / "checkpoints" / "last.ckpt"
    assert checkpoint.exists() == (epochs_kept > 0)
    if epochs_kept:
        assert torch.load(checkpoint, weights_only=True)["epoch"] == epochs_kept - 1
    config = composed(*overrides)
    train(config, broken)
    train(config, unbroken)
    records = [comparable(read_record(folder / "record.json")) for folder in (broken, unbroken)]
    assert records[0] == records[1]
    assert (broken / "metrics.csv").read_text() == (unbroken / "metrics.csv").read_text()
    states = [
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in (broken, unbroken)
    ]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


@pytest.mark.slow
def test_resumes_ptq_after_a_kill_in_the_middle_of_an_epoch(composed, launch_killed, tmp_path):
    # Epochs have 4 batches: the 6th training step is the second of epoch 2.
    check_resumes(composed, launch_killed, tmp_path, f"{LEARNING}:training_step", 6, 1, STOCHASTIC)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["none", "itq"])
def test_resumes_each_scheme(composed, launch_killed, tmp_path, scheme):
    check_resumes(
        composed,
        launch_killed,
        tmp_path,
        f"{LEARNING}:training_step",
        6,
        1,
        STOCHASTIC,
        f"quantization.scheme={scheme}",
    )


@pytest.mark.slow
def test_resumes_a_schedule_that_steps_per_epoch(composed, launch_killed, tmp_path):
    check_resumes(
        composed,
        launch_killed,
        tmp_path,
        f"{LEARNING}:training_step",
        10,
        2,
        "quantization.scheme=none",
        *STEP_PER_EPOCH,
    )


@pytest.mark.few(0.2, "campaign")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "count", "epochs_kept"),
    [
        (f"{LEARNING}:training_step", 2, 0),  # in the first epoch, before any checkpoint
        ("qspinn.app.run.checkpoints::seal", 2, 1),  # written, not in its place
        ("qspinn.app.show.progress:EpochLines:on_train_epoch_end", 2, 1),  # before its checkpoint
        ("lightning.pytorch.callbacks:ModelCheckpoint:on_train_end", 1, 3),  # trained, not tested
        ("qspinn.callbacks:PostTrainingQuantization:on_fit_end", 1, 3),
        (f"{LEARNING}:test_step", 3, 3),  # 2 batches of the quantised copy, then of the module
    ],
)
def test_resumes_from_any_moment(composed, launch_killed, tmp_path, where, count, epochs_kept):
    check_resumes(composed, launch_killed, tmp_path, where, count, epochs_kept, STOCHASTIC)


@pytest.mark.few(0.34, "campaign")
@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["none", "ptq", "itq"])
@pytest.mark.parametrize(
    ("where", "count", "epochs_kept"),
    [
        ("training_step", 3, 0),
        ("training_step", 6, 1),  # epochs have 4 batches
        ("test_step", 1, 2),
    ],
)
def test_resumes_learning_without_labels(
    composed, launch_killed, tmp_path, scheme, where, count, epochs_kept
):
    check_resumes(
        composed,
        launch_killed,
        tmp_path,
        f"{UNSUPERVISED}:{where}",
        count,
        epochs_kept,
        "experiment=unsupervised_quick",
        STOCHASTIC,
        f"quantization.scheme={scheme}",
    )
