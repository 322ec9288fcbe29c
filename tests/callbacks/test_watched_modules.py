"""Modules that somebody else watches: monitors, hooks, functions that refer to the module."""

import functools
import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import monitor, neuron
from torch import nn

from qspinn.callbacks import InTrainingQuantization, PostTrainingQuantization, ResetStates
from qspinn.plan import QuantizationPlan
from qspinn.quantizers.copying import independent_module
from tests.callbacks.harness import PLAN, assert_same, module, simple_fit, trainer
from tests.callbacks.strangers import Stranger


def node_of(watched: Stranger) -> nn.Module:
    return next(child for child in watched.modules() if isinstance(child, neuron.LIFNode))


class Own:
    """A recorder that somebody wrote; each instance is a hook."""

    def __init__(self) -> None:
        self.records: list[Any] = []

    def __call__(self, *args: Any) -> None:
        self.records.append(args[-1])

    def hook(self, *args: Any) -> None:
        self.records.append(args[-1])


def closure(watched: Stranger) -> list[Any]:
    records: list[Any] = []

    def hook(node: nn.Module, inputs: Any, output: Any) -> None:
        records.append(output)

    node_of(watched).register_forward_hook(hook)
    return records


def closure_with_a_lock(watched: Stranger) -> list[Any]:
    lock, records = threading.Lock(), []

    def hook(node: nn.Module, inputs: Any, output: Any) -> None:
        with lock:
            records.append(output)

    node_of(watched).register_forward_hook(hook)
    return records


def kept_by_the_module(watched: Stranger) -> list[Any]:
    watched.records = []
    node_of(watched).register_forward_hook(lambda *args: watched.records.append(args[-1].detach()))
    return watched.records


def partial(watched: Stranger) -> list[Any]:
    def note(store: list[Any], *args: Any) -> None:
        store.append(args[-1])

    records: list[Any] = []
    node_of(watched).register_forward_hook(functools.partial(note, records))
    return records


def callable_object(watched: Stranger) -> list[Any]:
    own = Own()
    node_of(watched).register_forward_hook(own)
    return own.records


def bound_method(watched: Stranger) -> list[Any]:
    own = Own()
    node_of(watched).register_forward_hook(own.hook)
    return own.records


def gradients(watched: Stranger) -> list[Any]:
    records: list[Any] = []
    node_of(watched).register_full_backward_hook(lambda node, taken, given: records.append(given))
    return records


def of_spikingjelly(kind: str, inside: bool) -> Callable[[Stranger], list[Any]]:
    def watch(watched: Stranger) -> list[Any]:
        make: Any = getattr(monitor, kind)
        if kind == "AttributeMonitor":
            make = functools.partial(make, "v", False)
        rates = make(watched.network, neuron.LIFNode)
        if inside:
            setattr(watched, f"rates_of_{kind}", rates)
        kept.append(rates)
        return rates.records

    return watch


kept: list[Any] = []  # a monitor that nobody holds takes its hooks with it
KINDS = ["OutputMonitor", "InputMonitor", "AttributeMonitor", "GradInputMonitor"]
KINDS += ["GradOutputMonitor"]
WATCHERS: dict[str, Callable[[Stranger], list[Any]]] = {
    **{f"{kind} on the module": of_spikingjelly(kind, True) for kind in KINDS},
    **{f"{kind} of the script": of_spikingjelly(kind, False) for kind in KINDS},
    "closure": closure,
    "closure with a lock": closure_with_a_lock,
    "kept by the module": kept_by_the_module,
    "partial": partial,
    "callable object": callable_object,
    "bound method": bound_method,
    "gradients": gradients,
}


def watched_fit(folder: Path, callback: Any) -> dict[str, list[Any]]:
    """What each watcher has recorded in a fit that all of them watch."""
    watched = module()
    records = {name: watch(watched) for name, watch in WATCHERS.items()}
    simple_fit(trainer(folder, callback), watched)
    return records


@pytest.fixture(scope="module")
def with_a_copy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    callback = PostTrainingQuantization(PLAN)
    records = watched_fit(tmp_path_factory.mktemp("ptq"), callback)
    assert callback.failure is None
    assert "ptq/val_loss" in callback.metrics
    gc.collect()  # a copied monitor that goes takes no hook of the original with it
    return records


@pytest.fixture(scope="module")
def without_one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    return watched_fit(tmp_path_factory.mktemp("float"), ResetStates())


@pytest.fixture(scope="module")
def learned_quantised(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    return watched_fit(tmp_path_factory.mktemp("itq"), InTrainingQuantization(PLAN))


@pytest.mark.parametrize("name", list(WATCHERS))
def test_the_records_of_a_fit_stay_as_they_are(
    with_a_copy: dict[str, list[Any]], without_one: dict[str, list[Any]], name: str
) -> None:
    assert with_a_copy[name]
    assert_same(with_a_copy[name], without_one[name])


@pytest.mark.parametrize("name", list(WATCHERS))
def test_a_network_that_learns_quantised_is_watched(
    learned_quantised: dict[str, list[Any]], name: str
) -> None:
    # Three training batches in each of two epochs; validation on two, and once before.
    backward = "Grad" in name or name == "gradients"
    assert len(learned_quantised[name]) == (6 if backward else 6 + 3 * 2)


def test_a_module_with_one_watcher_is_copied() -> None:
    """What is copied for one of them helps no other."""
    for name, watch in WATCHERS.items():
        watched = module()
        watch(watched)
        copied = independent_module(watched)
        assert node_of(copied) is not node_of(watched), name
        assert_same(dict(copied.state_dict()), dict(watched.state_dict()))


def test_a_copied_monitor_has_records_of_its_own(tmp_path: Path) -> None:
    watched = module()
    watched.rates = monitor.OutputMonitor(watched.network, neuron.LIFNode)
    callback = PostTrainingQuantization(PLAN)
    simple_fit(trainer(tmp_path, callback), watched)
    before, copied = len(watched.rates.records), callback.quantized_module
    assert copied is not None
    copied.rates.clear_recorded_data()
    copied(torch.rand(2, 1, 8, 8))
    assert len(copied.rates.records) == 1
    assert len(watched.rates.records) == before > 0
    copied.rates.close()
    watched(torch.rand(2, 1, 8, 8))
    assert len(watched.rates.records) == before + 1


def test_functions_of_a_copy_run_the_copy() -> None:
    original = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())
    before, inner = original[0].forward, original[0]

    def twice(x: torch.Tensor) -> torch.Tensor:
        return before(x) * 2.0

    original[0].forward = twice
    original.weights = {"first": lambda: inner.weight}
    copied: Any = independent_module(original)
    with torch.no_grad():
        copied[0].weight.fill_(1.0)
        original[0].weight.fill_(0.0)
    assert torch.equal(copied(torch.ones(1, 2)), torch.full((1, 2), 4.0))
    assert torch.equal(original(torch.ones(1, 2)), torch.zeros(1, 2))
    assert copied.weights["first"]() is copied[0].weight
    assert original.weights["first"]() is original[0].weight


def test_a_function_that_refers_to_itself_and_to_nothing_yet() -> None:
    original = nn.Linear(1, 1)

    def count(n: int) -> int:
        return 0 if n == 0 else 1 + count(n - 1) + (0 if n else later)

    original.count = count
    if False:
        later = 1
    copied: Any = independent_module(original)
    assert copied.count(3) == 3
    assert copied.count.__closure__[0].cell_contents is copied.count


@pytest.mark.parametrize("kind", [InTrainingQuantization, PostTrainingQuantization])
@pytest.mark.parametrize(
    ("thing", "place"),
    [
        (lambda: {"a": [threading.Lock()]}, r"own\['a'\]\[0\] \(a lock\)"),
        (lambda: (i for i in range(2)), r"own \(a generator\)"),
    ],
    ids=["lock", "generator"],
)
def test_what_cannot_be_copied_is_named_before_training(
    tmp_path: Path, kind: type, thing: Any, place: str
) -> None:
    watched = module()
    watched.network.own = thing()
    stock = trainer(tmp_path, kind(PLAN))
    with pytest.raises(TypeError, match=rf"Stranger cannot be copied.*network\.{place}"):
        simple_fit(stock, watched)
    assert stock.global_step == 0


def test_tensors_that_any_object_keeps_are_copied_without_their_graphs() -> None:
    original: Any = nn.Linear(2, 2)
    original.own = Own()
    original.own(original(torch.ones(1, 2)))
    copied: Any = independent_module(original)
    assert copied.own.records[0].grad_fn is None
    assert torch.equal(copied.own.records[0], original.own.records[0])
    assert original.own.records[0].grad_fn is not None


def test_a_copy_made_in_inference_mode_can_be_trained() -> None:
    original = nn.Linear(2, 2)
    with torch.inference_mode():
        copied = independent_module(original)
    copied(torch.ones(1, 2)).sum().backward()
    assert copied.weight.grad is not None


def test_many_plans_on_one_watched_training(tmp_path: Path) -> None:
    watched = module()
    watched.rates = monitor.OutputMonitor(watched.network, neuron.LIFNode)
    callbacks = [
        PostTrainingQuantization(QuantizationPlan.uniform(word_length=bits), prefix=f"{bits}/")
        for bits in (4, 8)
    ]
    simple_fit(trainer(tmp_path, *callbacks), watched)
    assert len(watched.rates.records) == 6 + 3 * 2
    assert all(f"{one.prefix}val_loss" in one.metrics for one in callbacks)
