"""Both callbacks on networks and modules that this repository does not contain."""

import copy
import pickle
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from spikingjelly.activation_based import base

from qspinn.callbacks import PostTrainingQuantization, ResetStates
from qspinn.fixed_point import to_integers
from qspinn.plan import reset_states
from qspinn.quantizers import detach, is_attached, quantized_parameters
from tests.callbacks.harness import (
    PLAN,
    assert_same,
    fit,
    itq,
    logged,
    measured_on_test,
    module,
    traces,
    trainer,
)
from tests.callbacks.strangers import SAMPLE_SHAPES, Stranger, dataset, loader

NETWORKS = ("dvs_gesture", "resnet", "step_loop")
# The size of the training set, and of the neurons: slow ones are kept small.
SIZES = {"dvs_gesture": 8, "resnet": 8, "step_loop": 12}


@pytest.fixture(scope="module", params=NETWORKS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def itq_run(name: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """An unbroken fit: its folder, trainer, module and callback; nobody may change them."""
    folder = tmp_path_factory.mktemp(name)
    callback = itq()
    stock, fitted = fit(folder, name, callback, size=SIZES[name])
    return folder, stock, fitted, callback


@pytest.fixture(scope="module")
def ptq_run(name: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """The same with post-training quantisation."""
    folder = tmp_path_factory.mktemp(name)
    callback = PostTrainingQuantization(PLAN)
    stock, fitted = fit(folder, name, callback, size=SIZES[name])
    return folder, stock, fitted, callback


def assert_on_grid(quantized: torch.nn.Module, resolved: Any) -> None:
    """``to_integers`` refuses a value that is off its grid."""
    formats = {tensor.path: tensor.format for tensor in resolved.tensors}
    stored = dict(quantized_parameters(quantized))
    weights = [path for path in stored if path.endswith(".weight")]
    assert len(weights) == sum(t.role == "weight" for t in resolved.tensors) > 0
    for path, value in stored.items():
        to_integers(value, formats[path])


def states_at_every_step(quantized: Stranger, x: torch.Tensor) -> dict[str, list[torch.Tensor]]:
    """Every membrane potential at every time step, whatever the step mode."""
    seen: dict[str, list[torch.Tensor]] = {}
    undo = []
    for path, child in quantized.named_modules():
        if not isinstance(child, base.MemoryModule) or "v" not in child._memories:
            continue
        step = child.single_step_functional_forward

        def spy(inputs: Any, states: Any, step: Any = step, path: str = path, **rest: Any) -> Any:
            outputs, states = step(inputs, states, **rest)
            seen.setdefault(path, []).append(states[0].detach().clone())
            return outputs, states

        child.single_step_functional_forward = spy
        undo.append(child)
    reset_states(quantized)
    quantized.eval()
    with torch.no_grad():
        quantized(x)
    reset_states(quantized)
    for child in undo:
        del child.single_step_functional_forward
    return seen


def test_itq_fits_validates_and_logs(itq_run: Any) -> None:
    folder, stock, fitted, callback = itq_run
    assert is_attached(fitted)
    assert stock.current_epoch == 2
    assert len(logged(folder, "val_accuracy")) == 2
    assert all(map(torch.isfinite, stock.callback_metrics.values()))
    assert callback.footprint.reduction == pytest.approx(4.0, rel=0.05)
    assert stock._results is None or not stock.training


def test_itq_weights_move_and_are_on_their_grid(itq_run: Any, name: str) -> None:
    _, _, fitted, callback = itq_run
    before, after = module(name).state_dict(), fitted.state_dict()
    assert list(before) == list(after)
    moved = [key for key in before if not torch.equal(before[key], after[key])]
    assert len(moved) > len(before) // 2
    assert_on_grid(copy.deepcopy(fitted), callback.resolved_plan)


def test_itq_states_are_on_their_grid_at_every_time_step(itq_run: Any, name: str) -> None:
    _, _, fitted, callback = itq_run
    copied = copy.deepcopy(fitted)
    x = torch.stack([dataset(name, 2, seed=4)[index][0] for index in range(2)])
    seen = states_at_every_step(copied, x)
    formats = {t.path: t.format for t in callback.resolved_plan.tensors if t.role == "membrane"}
    assert {f"{path}.v" for path in seen} == set(formats)
    for path, values in seen.items():
        assert len(values) >= 2
        for value in values:
            to_integers(value, formats[f"{path}.v"])
    assert any(value.any() for values in seen.values() for value in values)


def test_itq_checkpoint_tests_the_same_in_a_fresh_process(
    itq_run: Any, name: str, tmp_path: Path
) -> None:
    folder, _, fitted, callback = itq_run
    expected = measured_on_test(trainer(tmp_path / "a"), copy.deepcopy(fitted), name)
    fresh, fresh_callback = module(name, seed=9), itq()
    other = trainer(tmp_path / "b", fresh_callback)
    found = measured_on_test(other, fresh, name, ckpt_path=folder / "epoch=1.ckpt")
    assert found == expected
    assert is_attached(fresh)
    assert fresh_callback.resolved_plan.to_dict() == callback.resolved_plan.to_dict()
    validated = other.validate(
        fresh, loader(name, 6, seed=1), ckpt_path=folder / "epoch=1.ckpt", verbose=False
    )
    assert validated[0]["val_loss"] == logged(folder, "val_loss")[-1]
    predicted = other.predict(fresh, loader(name, 6, seed=3), ckpt_path=folder / "epoch=1.ckpt")
    assert_same(
        predicted, trainer(tmp_path).predict(copy.deepcopy(fitted), loader(name, 6, seed=3))
    )


@pytest.mark.few(0.2)
def test_itq_resumed_is_the_unbroken_run(itq_run: Any, name: str, tmp_path: Path) -> None:
    folder, stock, fitted, callback = itq_run
    again = itq()
    resumed_stock, resumed = fit(
        tmp_path, name, again, ckpt_path=folder / "epoch=0.ckpt", size=SIZES[name]
    )
    assert_same(dict(resumed.state_dict()), dict(fitted.state_dict()))
    assert_same(dict(resumed_stock.callback_metrics), dict(stock.callback_metrics))
    assert again.resolved_plan.to_dict() == callback.resolved_plan.to_dict()


def test_itq_detach_gives_the_float_network(itq_run: Any, name: str) -> None:
    _, _, fitted, _ = itq_run
    detached = detach(copy.deepcopy(fitted))
    plain = module(name, seed=9)
    plain.load_state_dict(fitted.state_dict())
    assert [type(child) for child in detached.modules()] == [type(c) for c in plain.modules()]
    x = torch.stack([dataset(name, 2, seed=4)[index][0] for index in range(2)])
    detached.eval()
    plain.eval()
    with torch.no_grad():
        assert torch.equal(detached(x), plain(x))
    assert is_attached(fitted)


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_itq_copies_compute_the_same(itq_run: Any, name: str, how: str) -> None:
    _, _, fitted, _ = itq_run
    copies = {
        "deepcopy": copy.deepcopy,
        "pickle": lambda one: pickle.loads(pickle.dumps(one)),
    }
    copied = copies[how](fitted)
    x = dataset(name, 1, seed=4)[0][0][None]
    with torch.no_grad():
        expected, found = [
            (reset_states(m), m.eval(), m(x), reset_states(m))[2] for m in (fitted, copied)
        ]
    assert torch.equal(expected, found)


def test_ptq_disturbs_nothing(ptq_run: Any, name: str, tmp_path: Path) -> None:
    _, stock, fitted, _ = ptq_run
    alone_stock, alone = fit(tmp_path, name, ResetStates(), size=SIZES[name])
    with_hook, without = traces(stock, fitted), traces(alone_stock, alone)
    # The generators have moved on since the fit of the fixture.
    for one in (with_hook, without):
        del one["random"]
    assert_same(with_hook, without)
    assert not is_attached(fitted)


def test_ptq_hands_over_the_quantised_network(ptq_run: Any, name: str, tmp_path: Path) -> None:
    folder, _, fitted, callback = ptq_run
    quantized = callback.quantized_module
    assert is_attached(quantized)
    assert_on_grid(quantized, callback.resolved_plan)
    assert_same(dict(quantized.state_dict()), dict(fitted.state_dict()))
    validated = trainer(tmp_path).validate(quantized, loader(name, 6, seed=1), verbose=False)[0]
    assert {f"ptq/{key}": value for key, value in validated.items()} == callback.metrics
    assert logged(folder, "ptq/val_loss") == [callback.metrics["ptq/val_loss"]]
    assert logged(folder, "ptq/footprint_bits") == [float(callback.footprint.inference_bits)]
    assert callback.footprint.reduction == pytest.approx(4.0, rel=0.05)


def test_ptq_copies_and_detaches(ptq_run: Any, name: str) -> None:
    _, _, fitted, callback = ptq_run
    x = dataset(name, 1, seed=4)[0][0][None]

    def scores(one: lightning.LightningModule) -> torch.Tensor:
        one.eval()
        reset_states(one)
        with torch.no_grad():
            result = one(x)
        reset_states(one)
        return result

    quantized = pickle.loads(pickle.dumps(copy.deepcopy(callback.quantized_module)))
    assert torch.equal(scores(quantized), scores(callback.quantized_module))
    assert torch.equal(scores(detach(quantized)), scores(copy.deepcopy(fitted)))


@pytest.mark.few(0.2)
def test_ptq_resumed_is_the_unbroken_run(ptq_run: Any, name: str, tmp_path: Path) -> None:
    folder, stock, fitted, callback = ptq_run
    again = PostTrainingQuantization(PLAN)
    resumed_stock, resumed = fit(
        tmp_path, name, again, ckpt_path=folder / "epoch=0.ckpt", size=SIZES[name]
    )
    assert_same(dict(resumed.state_dict()), dict(fitted.state_dict()))
    assert_same(dict(resumed_stock.callback_metrics), dict(stock.callback_metrics))
    assert again.metrics == callback.metrics
    assert again.resolved_plan.to_dict() == callback.resolved_plan.to_dict()


@pytest.mark.few(0.2)
def test_ptq_after_a_complete_training_gives_the_same(
    ptq_run: Any, name: str, tmp_path: Path
) -> None:
    folder, _, _, callback = ptq_run
    again = PostTrainingQuantization(PLAN)
    fit(tmp_path, name, again, ckpt_path=folder / "epoch=1.ckpt", size=SIZES[name])
    assert again.metrics == callback.metrics


def test_the_networks_are_the_strangers_own(name: str) -> None:
    made = module(name)
    assert not any(type(child).__module__.startswith("qspinn") for child in made.modules())
    x = torch.zeros(1, *SAMPLE_SHAPES[name])
    assert made(x).shape == (1, 3)
