"""Both callbacks on somebody's modules that learn by themselves and declare their tensors."""

import copy
import pickle
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from qspinn.callbacks import InTrainingQuantization, PostTrainingQuantization, ResetStates
from qspinn.callbacks.random_state import RandomState
from qspinn.fixed_point import to_integers
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import detach, is_attached, quantized_parameters
from tests.callbacks.harness import assert_same, logged, traces, trainer
from tests.callbacks.plastic_strangers import (
    DeclaresItself,
    Plastic,
    PlasticProject,
    Validated,
    WithLayers,
    WithLayersUnvalidated,
)
from tests.callbacks.strangers import loader

STOCHASTIC = {"rounding": "stochastic"}
PLAN = QuantizationPlan.uniform(
    6,
    roles={
        "weight": {"word_length": 4, **STOCHASTIC},
        "theta": STOCHASTIC,
        "membrane": {"word_length": 12},
    },
)


class Keeper(lightning.Callback):
    """Lightning's own ModelCheckpoint saves nothing where no optimizer ever steps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, stock: Any, pl_module: Any) -> None:
        stock.save_checkpoint(self.folder / f"epoch={stock.current_epoch}.ckpt")


def made(kind: type[PlasticProject] = Validated, seed: int = 1) -> Any:
    torch.manual_seed(seed)
    return kind()


def fit(
    folder: Path, project: Any, *callbacks: Any, validated: bool = True, **arguments: Any
) -> lightning.Trainer:
    stock = trainer(folder, RandomState(), *callbacks, Keeper(folder))
    torch.manual_seed(2)
    val = loader("sequential", 9, seed=1) if validated else None
    stock.fit(project, loader("sequential", 24, shuffle=True), val, **arguments)
    return stock


def measured(stock: lightning.Trainer, project: Any, **arguments: Any) -> Any:
    return stock.test(project, loader("sequential", 12, seed=3), verbose=False, **arguments)[0]


def assert_learned_on_grids(project: Any, before: Any, resolved: Any) -> None:
    formats = {tensor.path: tensor.format for tensor in resolved.tensors}
    assert not torch.equal(project.network.weight, before.network.weight)
    assert project.network.theta.any()
    for name in ("weight", "theta"):
        to_integers(getattr(project.network, name).data, formats[f"network.{name}"])


@pytest.fixture(scope="module")
def itq_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    folder, callback, project = tmp_path_factory.mktemp("itq"), InTrainingQuantization(PLAN), made()
    return folder, fit(folder, project, callback), project, callback


@pytest.fixture(scope="module")
def ptq_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    folder, project = tmp_path_factory.mktemp("ptq"), made()
    callback = PostTrainingQuantization(PLAN)
    return folder, fit(folder, project, callback), project, callback


def test_itq_learns_on_the_grids(itq_run: Any) -> None:
    folder, stock, project, callback = itq_run
    assert is_attached(project)
    assert stock.current_epoch == 2
    assert_learned_on_grids(project, made(), callback.resolved_plan)
    assert logged(folder, "val_accuracy")[-1] == 1.0
    assert [tensor.path for tensor in callback.resolved_plan.tensors] == [
        f"network.{name}" for name in ("weight", "theta", "v", "threshold", "trace")
    ]


def test_itq_formats_cover_the_bounds(itq_run: Any) -> None:
    formats = {t.info.name: str(t.format) for t in itq_run[3].resolved_plan.tensors}
    assert formats == {
        "weight": "UQ0.4",
        "theta": "UQ5.1",
        "v": "UQ6.6",
        "threshold": "UQ3.3",
        "trace": "UQ1.5",
    }


def test_itq_footprint_by_hand(itq_run: Any) -> None:
    """64*6 weights, 6 thetas, 6 membranes, 1 threshold, 6 labels; 64 traces, 18 counts to learn."""
    footprint = itq_run[3].footprint
    assert footprint.inference_bits == 384 * 4 + 6 * 6 + 6 * 12 + 6 + 6 * 2
    assert footprint.training_bits == footprint.inference_bits + 64 * 6 + 18 * 32
    assert footprint.baseline_inference_bits == 32 * (384 + 6 + 6 + 1) + 6 * 2
    assert footprint.baseline_training_bits == footprint.baseline_inference_bits + 32 * (64 + 18)


def test_the_callbacks_run_nothing_to_choose_formats(itq_run: Any, ptq_run: Any) -> None:
    # The sanity check, and three batches of validation after each of two epochs.
    assert itq_run[2].validated == ptq_run[2].validated == 2 + 2 * 3
    assert ptq_run[3].quantized_module.validated == ptq_run[2].validated + 3
    # Nor do they load batches for it: six batches of training in each epoch are all, but for three
    # on which the quantised network is compared with its twin.
    assert itq_run[2].transferred == ptq_run[2].transferred == 2 + 2 * (6 + 3) + 3


def test_itq_checkpoint_tests_the_same_in_a_fresh_process(itq_run: Any, tmp_path: Path) -> None:
    folder, _, project, callback = itq_run
    expected = measured(trainer(tmp_path / "a"), copy.deepcopy(project))
    fresh, again = made(seed=9), InTrainingQuantization(PLAN)
    assert measured(trainer(tmp_path / "b", again), fresh, ckpt_path=folder / "epoch=1.ckpt") == (
        expected
    )
    assert is_attached(fresh)
    assert again.resolved_plan.to_dict() == callback.resolved_plan.to_dict()


def test_itq_an_earlier_checkpoint_is_loaded_over_a_quantised_module(
    itq_run: Any, tmp_path: Path
) -> None:
    earlier, project = itq_run[0] / "epoch=0.ckpt", copy.deepcopy(itq_run[2])
    stock = trainer(tmp_path / "a", InTrainingQuantization(PLAN))
    expected = measured(stock, made(seed=9), ckpt_path=earlier)
    callback = InTrainingQuantization(PLAN)
    callback.resolved_plan = itq_run[3].resolved_plan
    assert measured(trainer(tmp_path / "b", callback), project, ckpt_path=earlier) == expected
    assert expected != measured(trainer(tmp_path / "c"), copy.deepcopy(itq_run[2]))


def test_itq_resumed_is_the_unbroken_run(itq_run: Any, tmp_path: Path) -> None:
    folder, stock, project, callback = itq_run
    again, resumed = InTrainingQuantization(PLAN), made()
    other = fit(tmp_path, resumed, again, ckpt_path=folder / "epoch=0.ckpt")
    assert_same(dict(resumed.state_dict()), dict(project.state_dict()))
    assert_same(dict(other.callback_metrics), dict(stock.callback_metrics))
    assert again.resolved_plan.to_dict() == callback.resolved_plan.to_dict()


@pytest.mark.parametrize("how", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_itq_copies_compute_the_same_and_detach(itq_run: Any, how: Any) -> None:
    _, _, project, _ = itq_run
    copied = how(project)
    images = torch.rand(3, 64, generator=torch.Generator().manual_seed(4))
    assert torch.equal(copied.network.present(images), project.network.present(images))
    assert copied.network.quantizers.keys() == project.network.quantizers.keys()
    detach(copied)
    assert type(copied.network) is Plastic
    assert copied.network.quantizers == {}
    assert is_attached(project)
    assert project.network.quantizers


@pytest.mark.parametrize("callback", [InTrainingQuantization, PostTrainingQuantization])
@pytest.mark.parametrize("kind", [PlasticProject, DeclaresItself])
def test_a_module_with_a_training_step_only(callback: Any, kind: Any, tmp_path: Path) -> None:
    project, hook = made(kind), callback(PLAN)
    fit(tmp_path, project, hook, validated=False)
    quantized = project if callback is InTrainingQuantization else hook.quantized_module
    prefix = "" if kind is DeclaresItself else "network."
    stored = dict(quantized_parameters(quantized))
    assert stored.keys() == {f"{prefix}weight", f"{prefix}theta"}
    formats = {tensor.path: tensor.format for tensor in hook.resolved_plan.tensors}
    for path, value in stored.items():
        assert torch.equal(quantized.network.get_buffer("theta"), value) or path.endswith("weight")
        to_integers(value, formats[path])
    assert is_attached(project) == (callback is InTrainingQuantization)


def test_itq_from_a_later_epoch_on(tmp_path: Path) -> None:
    project, callback = made(), InTrainingQuantization(PLAN, start_epoch=1)
    alone = made()
    stock = trainer(tmp_path / "alone", RandomState(), ResetStates(), max_epochs=1)
    torch.manual_seed(2)
    stock.fit(alone, loader("sequential", 24, shuffle=True), loader("sequential", 9, seed=1))
    fit(tmp_path, project, callback)
    kept = torch.load(tmp_path / "epoch=0.ckpt")["state_dict"]
    assert_same(dict(kept), dict(alone.state_dict()))
    assert_learned_on_grids(project, alone, callback.resolved_plan)


def test_ptq_disturbs_nothing(ptq_run: Any, tmp_path: Path) -> None:
    _, stock, project, _ = ptq_run
    alone = made()
    found = [traces(stock, project), traces(fit(tmp_path, alone, ResetStates()), alone)]
    for one in found:
        del one["random"]  # they have moved on since the fit of the fixture
    assert_same(*found)
    assert not is_attached(project)


def test_ptq_hands_over_the_quantised_network(ptq_run: Any, tmp_path: Path) -> None:
    folder, _, project, callback = ptq_run
    assert_learned_on_grids(callback.quantized_module, made(), callback.resolved_plan)
    assert logged(folder, "ptq/val_accuracy") == [1.0]
    validated = trainer(tmp_path).validate(
        copy.deepcopy(callback.quantized_module), loader("sequential", 9, seed=1), verbose=False
    )
    assert validated[0]["val_accuracy"] == callback.metrics["ptq/val_accuracy"]
    steps = (callback.quantized_module.network.weight - project.network.weight).abs() * 2**4
    assert 0 < float(steps.max()) <= 1.0


def test_ptq_formats_suit_the_values(ptq_run: Any) -> None:
    project, resolved = ptq_run[2], ptq_run[3].resolved_plan
    formats = {tensor.info.name: tensor.format for tensor in resolved.tensors}
    # The thetas that there are, not those that there might be.
    assert formats["theta"].max >= float(project.network.theta.max()) - formats["theta"].step
    assert 0 < formats["theta"].integer_bits < 5
    assert str(formats["trace"]) == "UQ1.5"


@pytest.mark.parametrize("start_epoch", [0, 1])
def test_formats_that_the_module_refuses_end_the_fit_before_it_learns(
    start_epoch: int, tmp_path: Path
) -> None:
    plan = QuantizationPlan.uniform(8, overflow="wrap")
    for callback in (
        InTrainingQuantization(plan, start_epoch=start_epoch),
        PostTrainingQuantization(plan),
    ):
        project = made()
        with pytest.raises(ValueError, match=r"^network \(Plastic\): overflow='wrap'; this"):
            fit(tmp_path, project, callback)
        assert_same(dict(project.state_dict()), dict(made().state_dict()))
        assert not is_attached(project)


@pytest.mark.parametrize("callback", [InTrainingQuantization, PostTrainingQuantization])
def test_with_layers_of_the_ordinary_kind_besides(callback: Any, tmp_path: Path) -> None:
    project, hook = made(WithLayers), callback(PLAN)
    fit(tmp_path, project, hook)
    formats = {tensor.path: tensor.role for tensor in hook.resolved_plan.tensors}
    assert formats["readout.weight"] == "weight"
    assert formats["readout.input"] == "input"
    assert formats["network.v"] == "membrane"
    assert "network.unused.weight" not in formats


@pytest.mark.parametrize("callback", [InTrainingQuantization, PostTrainingQuantization])
def test_layers_that_no_step_shows_are_refused(callback: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no validation_step"):
        fit(tmp_path, made(WithLayersUnvalidated), callback(PLAN), validated=False)


def test_the_modules_are_the_strangers_own() -> None:
    import tests.callbacks.plastic_strangers as module

    assert "qspinn" not in Path(module.__file__).read_text().replace("knows of qspinn", "")
