"""Steps that the optimizer of somebody's project learns, without the project doing anything."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor, nn
from torch.optim import lr_scheduler

from qspinn.callbacks import InTrainingQuantization
from qspinn.export import verify
from qspinn.plan import QuantizationPlan
from tests.callbacks.harness import (
    NAME,
    assert_same,
    fit,
    growing,
    measured_on_test,
    module,
    plain_types,
    simple_fit,
    trainer,
)
from tests.callbacks.strangers import MAKERS, Stranger, dataset

PLANS = {
    "free": QuantizationPlan.uniform(4, scale="free", granularity="channel"),
    "power_of_two": QuantizationPlan.uniform(4),
}
BOTH = "weight+membrane"


def learning(scale: str = "free", learned_steps: str = BOTH, **arguments: Any) -> Any:
    return InTrainingQuantization(PLANS[scale], learned_steps=learned_steps, **arguments)


def steps_of(callback: InTrainingQuantization) -> dict[str, list[float]]:
    return callback.state_dict()["learned_steps"]["steps"]["log2"]


class Scheduled(Stranger):
    """With weight decay, two groups of parameters, and a scheduler."""

    def __init__(self, make: Callable[[Any], Any] | None = None) -> None:
        super().__init__(MAKERS[NAME]())
        self.make = make

    def configure_optimizers(self) -> Any:
        weights = [one for one in self.parameters() if one.dim() > 1]
        others = [one for one in self.parameters() if one.dim() <= 1]
        groups: list[Any] = [{"params": others, "lr": 0.5}, {"params": weights, "lr": 0.01}]
        optimizer = torch.optim.AdamW(groups, weight_decay=0.1)
        if self.make is None:
            return optimizer
        return [optimizer], [{"scheduler": self.make(optimizer), "interval": "step"}]


class Rates(Callback):
    """Notes the settings of all groups, whenever the optimizer is about to step."""

    def __init__(self) -> None:
        self.groups: list[list[dict[str, Any]]] = []

    def on_before_optimizer_step(self, stock: Any, pl_module: Any, optimizer: Any) -> None:
        kept = [{k: v for k, v in one.items() if k != "params"} for one in optimizer.param_groups]
        self.groups.append(copy.deepcopy(kept))


def chained(optimizer: Any) -> Any:
    first = lr_scheduler.LinearLR(optimizer, 0.5, total_iters=2)
    return lr_scheduler.SequentialLR(
        optimizer, [first, lr_scheduler.CosineAnnealingLR(optimizer, 4)], [2]
    )


SCHEDULERS: dict[str, Callable[[Any], Any] | None] = {
    "none": None,
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, [0.5, 0.01], total_steps=6),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, [lambda n: 0.9**n, lambda n: 0.8**n]),
    "sequence": chained,
}


@pytest.mark.few(0.5)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_steps_learn_at_the_rate_of_the_weights(tmp_path: Path, name: str) -> None:
    """Whatever the scheduler does with it; without decay, and nothing else changes."""
    rates = {}
    for learned in ("none", BOTH):
        torch.manual_seed(1)
        fitted, watch = Scheduled(SCHEDULERS[name]), Rates()
        callback = learning(learned_steps=learned, step_rate=0.25)
        simple_fit(trainer(tmp_path / learned, callback, watch), fitted)
        rates[learned] = watch.groups
    assert len(rates[BOTH]) == 6
    for with_steps, without in zip(rates[BOTH], rates["none"], strict=True):
        assert with_steps[:2] == without
        assert with_steps[2]["lr"] == with_steps[1]["lr"] * 0.25
        assert with_steps[2]["weight_decay"] == 0.0
    moved = steps_of(callback)
    assert set(moved) == {"network.network.0.weight", "network.network.6.weight"}


@pytest.mark.parametrize("scale", ["free", "power_of_two"])
def test_what_was_learned_is_what_a_device_computes(tmp_path: Path, scale: str) -> None:
    callback = learning(scale, step_rate=10.0)
    fitted = module()
    keys = list(fitted.state_dict())
    before: dict[str, list[float]] = {}

    class First(Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            before.setdefault("log2", copy.deepcopy(steps_of(callback)))  # type: ignore[arg-type]

    simple_fit(trainer(tmp_path, callback, First()), fitted)
    assert steps_of(callback) != before["log2"]
    assert list(fitted.state_dict()) == keys
    assert len(list(fitted.parameters())) == len(list(module().parameters()))
    images = torch.stack([one[0] for one in dataset(NAME, 6, seed=4)])
    fitted.eval()
    assert verify(callback.device_model(), fitted, images).equal


@pytest.mark.parametrize("scale", ["free", "power_of_two"])
def test_resuming_is_the_unbroken_run(tmp_path: Path, scale: str) -> None:
    arguments: dict[str, Any] = {"step_rate": 10.0}
    first = learning(scale, **arguments)
    stock, unbroken = fit(tmp_path, NAME, first)
    second, start = learning(scale, **arguments), tmp_path / "epoch=0.ckpt"
    again, resumed = fit(tmp_path / "b", NAME, second, ckpt_path=start)
    assert second.resolved_plan == first.resolved_plan
    assert second.state_dict() == first.state_dict()
    assert_same(dict(resumed.state_dict()), dict(unbroken.state_dict()))
    assert_same(
        [one.state_dict() for one in again.optimizers],
        [one.state_dict() for one in stock.optimizers],
    )
    checkpoint = torch.load(start, weights_only=True)
    assert plain_types(checkpoint["callbacks"]["InTrainingQuantization"])
    other = trainer(tmp_path / "c", learning(scale, **arguments))
    path = tmp_path / "epoch=1.ckpt"
    assert measured_on_test(other, module(), NAME, ckpt_path=path) == measured_on_test(
        stock, unbroken, NAME
    )


@pytest.mark.parametrize("freeze_epoch", [None, 1])
def test_resuming_in_the_middle_of_an_epoch(tmp_path: Path, freeze_epoch: int | None) -> None:
    same = torch.utils.data.ConcatDataset([dataset(NAME, 4, seed=0)] * 3)
    data = torch.utils.data.DataLoader(same, batch_size=4)

    def run(folder: Path, **arguments: Any) -> tuple[Stranger, Any]:
        each = ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=2)
        callback, fitted = learning(freeze_epoch=freeze_epoch), growing(dropout=0.0)
        trainer(folder, callback, each, max_epochs=3).fit(fitted, data, data, **arguments)
        return fitted, callback

    unbroken, callback = run(tmp_path / "a")
    resumed, again = run(tmp_path / "b", ckpt_path=tmp_path / "a" / "step=4.ckpt")
    assert again.state_dict() == callback.state_dict()
    assert_same(dict(resumed.state_dict()), dict(unbroken.state_dict()))


def test_frozen_formats_stay(tmp_path: Path) -> None:
    """And so do the steps, whose learning has ended."""
    callback, seen = learning(freeze_epoch=1, step_rate=10.0), []

    class Watch(Callback):
        def on_train_epoch_end(self, *args: Any) -> None:
            seen.append((callback.resolved_plan, steps_of(callback)))

    simple_fit(trainer(tmp_path, callback, Watch(), max_epochs=3), module())
    assert seen[0] == seen[1] == seen[2]


def test_a_second_fit_goes_on(tmp_path: Path) -> None:
    callback, fitted = learning(step_rate=10.0), module()
    simple_fit(trainer(tmp_path, callback, max_epochs=1), fitted)
    before = steps_of(callback)
    watch = Rates()
    simple_fit(trainer(tmp_path / "b", callback, watch, max_epochs=1), fitted)
    assert steps_of(callback) != before
    assert {len(groups) for groups in watch.groups} == {2}


def test_steps_begin_with_quantisation(tmp_path: Path) -> None:
    callback, watch = learning(start_epoch=1), Rates()
    simple_fit(trainer(tmp_path, callback, watch), module())
    assert [len(groups) for groups in watch.groups] == [1, 1, 1, 2, 2, 2]


class Several(Stranger):
    """Two optimizers, by hand."""

    def __init__(self) -> None:
        super().__init__(MAKERS[NAME]())
        self.automatic_optimization = False

    def configure_optimizers(self) -> Any:
        layers: Any = self.network.network
        return [
            torch.optim.SGD(layers[1].parameters(), lr=0.1),
            torch.optim.Adam([*layers[0].parameters(), *layers[6].parameters()], lr=0.01),
        ]

    def training_step(self, batch: Any, index: int) -> None:
        loss: Tensor = nn.functional.cross_entropy(self(batch[0]), batch[1])
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()


def test_the_optimizer_of_the_weights_learns_their_steps(tmp_path: Path) -> None:
    callback = learning(step_rate=10.0)
    torch.manual_seed(1)
    stock = trainer(tmp_path, callback, max_epochs=1)
    simple_fit(stock, Several())
    assert [len(one.param_groups) for one in stock.optimizers] == [1, 2]


class Lbfgs(Stranger):
    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters())


class NoOptimizer(Stranger):
    def configure_optimizers(self) -> Any:
        return None


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Lbfgs, "LBFGS takes one group of parameters.*take another optimizer"),
        (NoOptimizer, "the module configures no optimizer that could learn them"),
    ],
)
def test_what_cannot_learn_steps(tmp_path: Path, kind: type[Stranger], message: str) -> None:
    fitted = module(kind=kind)
    with pytest.raises(ValueError, match=message):
        simple_fit(trainer(tmp_path, learning(), max_epochs=1), fitted)


def test_another_choice_than_that_of_the_checkpoint_is_refused(tmp_path: Path) -> None:
    fit(tmp_path, NAME, learning(), max_epochs=1)
    start = tmp_path / "epoch=0.ckpt"
    for choice in ("none", "weight"):
        with pytest.raises(
            ValueError, match=rf"learned_steps=weight\+membrane, not {choice}; give"
        ):
            fit(tmp_path / choice, NAME, learning(learned_steps=choice), ckpt_path=start)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learned_steps": "bias"}, "learned_steps='bias'; write none, weight, membrane or"),
        ({"step_rate": 0.0}, "step_rate=0.0; write a positive number"),
        ({"step_rate": True}, "step_rate=True; write a positive number"),
        ({"saturated": "cut"}, "saturated='cut'; write one of returning, clip, pass"),
        ({"compile_steps": True}, r"compile_steps=True .*write compile_steps=False, or learned"),
    ],
)
def test_invalid_choices(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"InTrainingQuantization: {message}"):
        InTrainingQuantization(PLANS["free"], **{"learned_steps": BOTH, **arguments})


def test_gradients_of_saturated_weights(tmp_path: Path) -> None:
    """Of the linear layer; where a batch norm is folded, all of it passes unless it is clipped."""
    plan = QuantizationPlan.uniform(6, roles={"weight": {"format": "Q-6.11"}})
    blocked: dict[str, list[float]] = {}

    class Watch(Callback):
        def on_after_backward(self, stock: Any, pl_module: Any) -> None:
            layers = pl_module.network.network
            found = [layers[place].weight.grad == 0 for place in (0, 6)]
            blocked.setdefault(saturated, [float(one.float().mean()) for one in found])

    for saturated in ("returning", "clip", "pass"):
        callback = InTrainingQuantization(plan, saturated=saturated)
        simple_fit(trainer(tmp_path, callback, Watch(), max_epochs=1), module())
    conv, linear = ({name: one[place] for name, one in blocked.items()} for place in (0, 1))
    assert conv["returning"] == conv["pass"] == 0.0 < 0.5 < conv["clip"]
    assert linear["pass"] + 0.1 < linear["returning"] < linear["clip"] - 0.1
