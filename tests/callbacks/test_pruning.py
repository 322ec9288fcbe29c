"""Trainings that are stopped, in projects that know nothing of qspinn."""

from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from qspinn.callbacks import Pruning, ResetStates, optuna_judge
from tests.callbacks.harness import NAME, assert_same, itq, module, ptq, simple_fit, traces, trainer
from tests.callbacks.strangers import Stranger, loader


class Asked:
    """A judge that notes what it was asked, and stops at a point."""

    def __init__(self, stops_at: float = 2.0) -> None:
        self.asked: list[tuple[float, float]] = []
        self.stops_at = stops_at

    def __call__(self, progress: float, value: float) -> str | None:
        self.asked.append((progress, value))
        return "seen enough" if progress >= self.stops_at else None


class Values(Callback):
    """Notes what each validation of the trainer measured."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self.seen.append(float(trainer.callback_metrics["val_accuracy"]))


def test_it_is_asked_after_each_validation(tmp_path: Path) -> None:
    judge, values = Asked(), Values()
    callback = Pruning(judge)
    simple_fit(trainer(tmp_path, ResetStates(), callback, values, max_epochs=4), module())
    # After the last epoch there is nothing left to stop.
    assert judge.asked == list(zip((0.25, 0.5, 0.75), values.seen[:3], strict=True))
    assert list(callback.curve) == [0.25, 0.5, 0.75, 1.0]
    assert callback.stopped is None


def test_it_stops_a_training(tmp_path: Path) -> None:
    callback = Pruning(Asked(0.5))
    stock = trainer(tmp_path, ResetStates(), callback, max_epochs=4)
    simple_fit(stock, module())
    assert stock.current_epoch == 2
    assert callback.stopped == "seen enough"
    assert list(callback.curve) == [0.25, 0.5]


def test_it_stops_within_an_epoch(tmp_path: Path) -> None:
    judge = Asked(0.3)
    stock = trainer(tmp_path, ResetStates(), Pruning(judge, fractions=[0.4, 0.1]), max_epochs=2)
    simple_fit(stock, module())  # three batches an epoch
    assert [progress for progress, _ in judge.asked] == [0.1, 0.4]
    assert stock.global_step == 3


@pytest.mark.parametrize("quantizes", [itq, ptq, ResetStates])
def test_nobody_notices_that_a_copy_is_validated(tmp_path: Path, quantizes: Any) -> None:
    found, judge = [], Asked()
    for folder, more in ((tmp_path / "a", [Pruning(judge, fractions=[0.2, 0.6])]), (tmp_path, [])):
        fitted = module()
        stock = trainer(folder, quantizes(), *more)
        simple_fit(stock, fitted)
        found.append(traces(stock, fitted))
    assert [progress for progress, _ in judge.asked] == [0.2, 0.5, 0.6]
    assert_same(*found)


def test_a_copy_gives_what_the_module_would(tmp_path: Path) -> None:
    class Beside(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            if trainer.global_step == 2:
                self.state = {k: v.clone() for k, v in pl_module.state_dict().items()}

    beside, judge = Beside(), Asked()
    simple_fit(trainer(tmp_path, ResetStates(), beside, Pruning(judge, fractions=[0.3])), module())
    expected = module()
    expected.load_state_dict(beside.state)
    stock = trainer(tmp_path, ResetStates())
    (measured,) = stock.validate(expected, loader(NAME, 6, seed=1), verbose=False)
    assert judge.asked[0] == (0.3, pytest.approx(measured["val_accuracy"]))


def test_few_samples_are_drawn_from_all(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []

    class Spy(Stranger):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            seen.append(batch[1])
            super().validation_step(batch, batch_idx)

    judge = Asked(0.1)
    stock = trainer(
        tmp_path, ResetStates(), Pruning(judge, fractions=[0.1], samples=30), num_sanity_val_steps=0
    )
    data = loader(NAME, 90, seed=1)
    data.dataset.tensors[1].copy_(torch.arange(90) // 30)  # sorted by class, as data may be
    stock.fit(module(kind=Spy), loader(NAME), data)
    assert [len(labels) for labels in seen[:8]] == [4] * 7 + [2]  # and then the trainer's own
    assert set(torch.cat(seen[:8]).tolist()) == {0, 1, 2}


def test_a_metric_that_nobody_logs(tmp_path: Path) -> None:
    for fractions in ([], [0.1]):
        stock = trainer(tmp_path, ResetStates(), Pruning(Asked(), "val/acc", fractions))
        with pytest.raises(ValueError, match=r"monitor='val/acc' .*logged: .*val_accuracy"):
            simple_fit(stock, module())


def test_a_training_without_an_end(tmp_path: Path) -> None:
    stock = trainer(tmp_path, ResetStates(), Pruning(Asked()), max_epochs=-1, max_steps=4)
    with pytest.raises(ValueError, match=r"max_epochs=-1 .*write Trainer\(max_epochs=\.\.\.\)"):
        simple_fit(stock, module())


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"judge": 3}, TypeError, "judge is a int"),
        ({"fractions": [0.0]}, ValueError, r"fractions=\[0.0\]; write numbers between 0 and 1"),
        ({"fractions": [1]}, ValueError, "between 0 and 1"),
        ({"fractions": "0.5"}, ValueError, "between 0 and 1"),
        ({"fractions": 0.5}, ValueError, "between 0 and 1"),
        ({"samples": 0}, ValueError, "samples=0; write 1 or more"),
        ({"samples": True}, ValueError, "samples=True"),
    ],
)
def test_arguments_that_cannot_be(arguments: Any, error: Any, said: str) -> None:
    with pytest.raises(error, match=said):
        Pruning(**{"judge": Asked(), **arguments})


@pytest.mark.parametrize(
    "pruner",
    [
        optuna.pruners.MedianPruner(n_startup_trials=1),
        optuna.pruners.SuccessiveHalvingPruner(min_resource=25, reduction_factor=2),
    ],
)
def test_the_pruners_of_optuna(tmp_path: Path, pruner: Any) -> None:
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for constant in (0.9, 0.95):
        trial = study.ask()
        for step in (25, 50, 75, 100):
            trial.report(constant, step)
            assert not trial.should_prune() or constant == 0.9
        study.tell(trial, constant)
    callback = Pruning(optuna_judge(study.ask()))
    stock = trainer(tmp_path, ResetStates(), callback, max_epochs=4)
    fitted = module()
    fitted.lr = 0.0  # it learns nothing
    simple_fit(stock, fitted)
    assert stock.current_epoch == 1
    value = callback.curve[0.25]
    assert callback.stopped == f"Optuna's {type(pruner).__name__} prunes it at {value:.4f}"
    assert study.trials[-1].intermediate_values == {25: callback.curve[0.25]}


def test_something_else_than_a_trial() -> None:
    with pytest.raises(TypeError, match=r"trial is a Study; give the trial"):
        optuna_judge(optuna.create_study())


def test_stages_that_are_left_out(tmp_path: Path) -> None:
    asked: list[tuple[str, dict[str, float]]] = []

    def after_stage(stage: str, metrics: Any) -> bool:
        asked.append((stage, dict(metrics)))
        return stage != stops

    class Tested(Stranger):
        def test_dataloader(self) -> Any:
            return loader(NAME, 6, seed=2)

    found = {}
    for stops in ("none", "validate", "samples", "drift"):
        asked.clear()
        some = {"samples": 4, "fidelity_samples": 5}
        callback = ptq(stages=("validate", "test"), after_stage=after_stage, **some)
        simple_fit(trainer(tmp_path, callback), module(kind=Tested))
        assert callback.failure is None
        found[stops] = [stage for stage, _ in asked], callback.metrics
    assert found["none"][0] == ["drift", "samples", "validate", "test"]
    assert found["validate"][0] == ["drift", "samples", "validate"]
    assert found["samples"] == (["drift", "samples"], {})
    assert found["drift"] == (["drift"], {})
    assert asked[0][1]["agreement"] == callback.fidelity.agreement
    assert callback.fidelity.samples == 5
    everything, validated = found["none"][1], found["validate"][1]
    assert {name: everything[name] for name in validated} == validated
    assert set(everything) - set(validated) == {"ptq/test_accuracy", "ptq/test_loss"}
