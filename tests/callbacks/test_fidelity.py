"""How far a quantised network behaves as its twin, measured beside a fit and on its own."""

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import encoding, functional, layer, neuron, surrogate
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from qspinn.callbacks import InTrainingQuantization, PostTrainingQuantization
from qspinn.callbacks import drift as driver
from qspinn.callbacks.drift import class_scores, measure_drift
from qspinn.callbacks.random_state import capture_random_states
from qspinn.metrics import Drift, LayerDrift
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, calibrate, detach
from qspinn.quantizers.class_swap import attached_quantizer
from qspinn.quantizers.compiling import step_uncompiled
from tests.callbacks.harness import assert_same, logged, logged_rows, traces, trainer
from tests.callbacks.strangers import AsDictionary, Dictionaries, Stranger, dataset, loader
from tests.reference.drift import drift

NAME = "sequential"  # of the data: 8 x 8 pixels of one channel
SCHEMES = {"ptq": PostTrainingQuantization, "itq": InTrainingQuantization}
STEPS = 5


class Small(nn.Module):
    """Two layers of neurons in either step mode."""

    def __init__(self, kind: type[neuron.BaseNode], mode: str) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.mode = mode
        options = {"surrogate_function": surrogate.ATan(), "v_threshold": 0.3}
        self.stack = nn.Sequential(
            layer.Conv2d(1, 4, 3, padding=1),
            kind(**options),
            layer.Flatten(),
            layer.Linear(256, 3),
            kind(**{**options, "v_threshold": 0.05}),
        )
        functional.set_step_mode(self, mode)

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "m":
            return self.stack(x.expand(STEPS, *x.shape)).mean(0)
        return torch.stack([self.stack(x) for _ in range(STEPS)]).mean(0)


def fitted_with(
    folder: Path, callback: Any, network: nn.Module, epochs: int = 1, **arguments: Any
) -> tuple[Any, Stranger]:
    module, stock = Stranger(network), trainer(folder, callback, max_epochs=epochs)
    data = {"train_dataloaders": loader(NAME), "val_dataloaders": loader(NAME, 6, seed=1)}
    stock.fit(module, **{**data, **arguments})
    return stock, module


def spikes_of(module: nn.Module, x: Tensor) -> tuple[dict[str, np.ndarray], Tensor]:
    """What each layer of neurons gives, ``[T, N, *]``, and the scores."""
    found: dict[str, list[Tensor]] = {}

    def keeper(path: str) -> Any:
        return lambda node, _, out: found.setdefault(path, []).append(
            out if node.step_mode == "m" else out[None]
        )

    nodes = [(p, m) for p, m in module.named_modules() if isinstance(m, neuron.BaseNode)]
    handles = [node.register_forward_hook(keeper(path)) for path, node in nodes]
    functional.reset_net(module.network)
    module.eval()
    with torch.no_grad():
        scores = module(x)
    functional.reset_net(module.network)
    for handle in handles:
        handle.remove()
    return {path: torch.cat(parts).numpy() for path, parts in found.items()}, scores


def assert_measured(found: Drift | None, twin: nn.Module, quantized: nn.Module, x: Tensor) -> None:
    """What a callback measured, against what both networks do here."""
    assert found is not None
    reference, expected_scores = spikes_of(twin, x)
    spikes, scores = spikes_of(quantized, x)
    same = (scores.argmax(1) == expected_scores.argmax(1)).float().mean()
    assert found.agreement == pytest.approx(float(same), abs=1e-6)
    assert found.samples == len(x)
    assert [one.layer for one in found.layers] == list(reference)
    for one in found.layers:
        expected = drift(spikes[one.layer], reference[one.layer])
        first = expected.pop("first_step"), expected.pop("first_neuron")
        assert (one.first_step, one.first_neuron) == first
        shown = {name: getattr(one, name) for name in expected}
        assert shown == pytest.approx(expected, abs=1e-6)
        assert 0 < one.reference_rate < 1  # or there would be nothing to see


def validation_images(size: int = 6) -> Tensor:
    return dataset(NAME, size, 1).tensors[0]


@pytest.mark.few(0.25)
@pytest.mark.parametrize("kind", [neuron.IFNode, neuron.LIFNode])
@pytest.mark.parametrize("mode", ["m", "s"])
def test_a_copy_is_compared_with_what_was_trained(tmp_path: Path, kind: Any, mode: str) -> None:
    callback = PostTrainingQuantization(QuantizationPlan.uniform(word_length=3))
    _, module = fitted_with(tmp_path, callback, Small(kind, mode))

    assert callback.failure is None
    assert_measured(callback.fidelity, module, callback.quantized_module, validation_images())
    assert callback.fidelity.first_layer == "network.stack.1"
    assert callback.fidelity.layers[0].membrane_distance > 0


@pytest.mark.parametrize("kind", [neuron.IFNode, neuron.LIFNode])
@pytest.mark.parametrize("mode", ["m", "s"])
def test_what_learned_quantised_is_compared_with_its_float_parameters(
    tmp_path: Path, kind: Any, mode: str
) -> None:
    callback = InTrainingQuantization(QuantizationPlan.uniform(word_length=3))
    _, module = fitted_with(tmp_path, callback, Small(kind, mode))

    twin = detach(copy.deepcopy(module))
    assert_measured(callback.fidelity, twin, module, validation_images())
    assert callback.fidelity.first_layer == "network.stack.1"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_is_logged_once_behind_the_names_of_the_layers(tmp_path: Path, scheme: str) -> None:
    callback = SCHEMES[scheme](QuantizationPlan.uniform(word_length=3))
    fitted_with(tmp_path, callback, Small(neuron.LIFNode, "m"), epochs=2)

    found = callback.fidelity
    assert logged(tmp_path, f"{scheme}/fidelity/agreement") == [found.agreement]
    for one in found.layers:
        rate = logged(tmp_path, f"{scheme}/fidelity/{one.layer}/rate")
        assert rate == [one.rate]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_nothing_else_changes(tmp_path: Path, scheme: str) -> None:
    found = []
    for samples in (0, 4):
        callback = SCHEMES[scheme](
            QuantizationPlan.uniform(word_length=4, rounding="stochastic"),
            fidelity_samples=samples,
        )
        shuffled = loader(NAME, shuffle=True, generator=torch.Generator().manual_seed(4))
        torch.manual_seed(5)
        folder = tmp_path / str(samples)
        stock, module = fitted_with(
            folder, callback, Small(neuron.LIFNode, "m"), train_dataloaders=shuffled
        )
        assert (callback.fidelity is None) == (samples == 0)
        quantized = getattr(callback, "quantized_module", module)
        rows = [
            {key: value for key, value in row.items() if value and "fidelity/" not in key}
            for row in logged_rows(folder)
        ]
        left = [
            traces(stock, module),
            dict(quantized.state_dict()),
            shuffled.generator.get_state(),
            quantized(validation_images()),
            [row for row in rows if set(row) - {"epoch", "step"}],
            capture_random_states(),
        ]
        found.append(left)
    assert_same(*found)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_samples_are_limited(tmp_path: Path, scheme: str) -> None:
    callback = SCHEMES[scheme](QuantizationPlan.uniform(word_length=3), fidelity_samples=5)
    fitted_with(tmp_path, callback, Small(neuron.LIFNode, "m"))

    assert callback.fidelity.samples == 5


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("samples", [-1, True, 2.0, "8", None])
def test_a_number_of_samples_that_cannot_be_is_refused(scheme: str, samples: Any) -> None:
    with pytest.raises(ValueError, match=f"Quantization: fidelity_samples={samples!r}; write"):
        SCHEMES[scheme](QuantizationPlan.uniform(), fidelity_samples=samples)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_without_validation_data_training_data_are_taken(tmp_path: Path, scheme: str) -> None:
    callback = SCHEMES[scheme](QuantizationPlan.uniform(word_length=3))
    _, module = fitted_with(tmp_path, callback, Small(neuron.LIFNode, "m"), val_dataloaders=None)

    twin = detach(copy.deepcopy(module)) if scheme == "itq" else module
    quantized = module if scheme == "itq" else callback.quantized_module
    assert_measured(callback.fidelity, twin, quantized, dataset(NAME, 12, 0).tensors[0])


class Once(IterableDataset):
    """A stream of samples that ends for good."""

    def __init__(self) -> None:
        self.items = iter(list(dataset(NAME, 12, 0)))

    def __iter__(self) -> Any:
        return self.items


@pytest.mark.parametrize("scheme", SCHEMES)
def test_from_a_stream_nothing_is_taken(tmp_path: Path, scheme: str, caplog: Any) -> None:
    callback = SCHEMES[scheme](QuantizationPlan.uniform(word_length=3))
    stream = Once()
    fitted_with(
        tmp_path,
        callback,
        Small(neuron.LIFNode, "m"),
        train_dataloaders=DataLoader(stream, batch_size=4),
        val_dataloaders=None,
    )

    assert callback.fidelity is None
    assert "no validation or training data that can be iterated again" in caplog.text


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_layer_that_falls_silent_is_warned_of(tmp_path: Path, scheme: str, caplog: Any) -> None:
    rules = [
        {"layers": "*", "role": "*", "word_length": 12},
        {"layers": "network.stack.0", "role": "weight", "format": "Q7.-7"},
    ]
    plan = QuantizationPlan.from_dict({"rules": [{**rule, "calibration": "max"} for rule in rules]})
    callback = SCHEMES[scheme](plan)
    network = Small(neuron.LIFNode, "m")
    nn.init.zeros_(network.stack[0].bias)
    with caplog.at_level(logging.WARNING):
        fitted_with(tmp_path, callback, network)

    first = callback.fidelity.layers[0]
    assert (first.silent, first.role) == (1.0, "weight")
    assert first.reference_silent < 0.9
    sentence = (
        f"layer network.stack.1: 100% silent, {first.reference_silent:.0%} before; "
        "give weight 2 bits more"
    )
    assert sentence in callback.fidelity.warnings
    told = [one for one in caplog.records if sentence in one.getMessage()]
    assert [one.levelname for one in told] == ["WARNING"]


class Broken(Stranger):
    """Takes no batch of the size that is tried first."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == driver.PROBE:
            raise RuntimeError("two samples are too few")
        return super().forward(x)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_cannot_be_measured_is_told_and_breaks_nothing(
    tmp_path: Path, scheme: str, caplog: Any
) -> None:
    callback = SCHEMES[scheme](QuantizationPlan.uniform(word_length=3))
    stock = trainer(tmp_path, callback, max_epochs=1)
    module = Broken(Small(neuron.LIFNode, "m"))
    stock.fit(module, loader(NAME), loader(NAME, 8, seed=1))

    assert callback.fidelity is None
    told = [one.getMessage() for one in caplog.records if "32-bit twin" in one.getMessage()]
    assert len(told) == 1
    assert "could not be measured: RuntimeError" in told[0]
    assert "two samples are too few" in told[0]
    assert getattr(callback, "failure", None) is None
    assert "train_loss_epoch" in stock.callback_metrics
    if scheme == "ptq":
        assert 0 <= callback.metrics["ptq/val_accuracy"] <= 1


class OwnNeuron(nn.Module):
    """Fires as nobody can see from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return (self.hidden(x.flatten(1)) > 0.1).float() + 0 * self.hidden.weight.sum()


def test_without_visible_spikes_only_predictions_are_compared(tmp_path: Path) -> None:
    plan = QuantizationPlan.uniform(word_length=3, allow_no_neurons=True)
    callback = PostTrainingQuantization(plan)
    fitted_with(tmp_path, callback, OwnNeuron())

    found = callback.fidelity
    assert found.layers == ()
    assert 0 <= found.agreement <= 1
    assert "only predictions are compared" in found.notes[0]
    assert [row for row in logged_rows(tmp_path) if row["ptq/fidelity/agreement"]]


def test_batches_that_only_its_own_step_understands_give_spikes_alone(tmp_path: Path) -> None:
    callback = PostTrainingQuantization(QuantizationPlan.uniform(word_length=3))
    module = Dictionaries(Small(neuron.LIFNode, "m"))
    train = DataLoader(AsDictionary(dataset(NAME, 12, 0)), batch_size=4)
    validation = DataLoader(AsDictionary(dataset(NAME, 6, 1)), batch_size=4)
    trainer(tmp_path, callback, max_epochs=1).fit(module, train, validation)

    found = callback.fidelity
    assert (found.samples, found.agreement) == (6, None)
    assert "no class scores" in found.notes[0]
    assert "its own step was run (TypeError: a batch that begins with a dict)" in found.notes[1]
    reference, _ = spikes_of(module, validation_images())
    spikes, _ = spikes_of(callback.quantized_module, validation_images())
    for one in found.layers:
        expected = drift(spikes[one.layer], reference[one.layer])
        assert one.agreement == pytest.approx(expected["agreement"], abs=1e-6)


def test_the_scores_are_those_of_a_given_forward(tmp_path: Path) -> None:
    callback = PostTrainingQuantization(
        QuantizationPlan.uniform(word_length=3),
        forward=lambda module, batch: module.network(batch["x"]),
    )
    module = Dictionaries(Small(neuron.LIFNode, "m"))
    train = DataLoader(AsDictionary(dataset(NAME, 12, 0)), batch_size=4)
    trainer(tmp_path, callback, max_epochs=1).fit(
        module, train, DataLoader(AsDictionary(dataset(NAME, 6, 1)), batch_size=4)
    )

    assert_measured(callback.fidelity, module, callback.quantized_module, validation_images())


def small_pair() -> tuple[nn.Module, nn.Module]:
    network = Small(neuron.LIFNode, "m")
    quantized = copy.deepcopy(network)
    x = validation_images()
    plan = QuantizationPlan.uniform(word_length=3, calibration="max").resolve(quantized, x)
    attach(quantized, calibrate(quantized, plan, x))
    return network, quantized


def called(module: nn.Module, batch: Any) -> Tensor:
    out: Tensor = module(batch[0])
    return out


def test_few_samples_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    both = small_pair()
    batches = [(validation_images(7), torch.arange(7)), (validation_images(9), torch.arange(9))]
    sizes: list[int] = []

    def counted(module: nn.Module, batch: Any) -> Tensor:
        sizes.append(len(batch[0]))
        return called(module, batch)

    whole = measure_drift(*both, batches, counted, samples=12)
    assert sizes == [2, 2, 5, 5, 5, 5]
    sizes.clear()
    per_sample = STEPS * (256 + 3)
    monkeypatch.setattr(driver, "HELD_VALUES", 3 * per_sample)
    parts = measure_drift(*both, batches, counted, samples=12)

    assert sizes == [2, 2, 3, 3, 2, 2, 3, 3, 2, 2]
    assert parts.samples == 12
    for one, other in zip(parts.layers, whole.layers, strict=True):
        assert one.membrane_distance == pytest.approx(other.membrane_distance, rel=1e-4)
        close = {"membrane_distance": other.membrane_distance}
        assert one.to_dict() | close == other.to_dict()
    assert parts.agreement == whole.agreement


def test_batches_whose_tensors_begin_differently_stay_whole() -> None:
    both = small_pair()
    batch = (validation_images(4).expand(STEPS, 4, 1, 8, 8), torch.arange(4))

    def over_time(module: nn.Module, given: Any) -> Tensor:
        assert given[0].shape[:2] == (STEPS, 4)
        return module.stack(given[0])  # [T, N, classes]

    found = measure_drift(*both, [batch], over_time, samples=2)

    assert found.samples == 4
    assert found.agreement is not None


def test_scores_are_two_axes_or_time_before_them() -> None:
    scores = torch.rand(5, 3)
    assert torch.equal(class_scores(scores, 5), scores)
    assert torch.equal(class_scores(scores.expand(4, 5, 3), 5), scores.expand(4, 5, 3).mean(0))
    for other in (None, scores[:, :1], scores[0], scores[:4], (scores,), scores[None, None]):
        assert class_scores(other, 5) is None


def test_without_a_sample_there_is_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="samples=0"):
        measure_drift(*small_pair(), [], called, samples=4)


def test_equal_networks_do_not_drift() -> None:
    network, _ = small_pair()

    found = measure_drift(network, copy.deepcopy(network), [(validation_images(),)], called, 6)

    assert (found.agreement, found.first_layer, found.warnings) == (1.0, None, ())
    assert all(isinstance(one, LayerDrift) and one.agreement == 1 for one in found.layers)
    assert all(one.rate > 0 for one in found.layers)


def test_a_random_input_coding_gives_both_the_same_spikes() -> None:
    network, _ = small_pair()

    def coded(module: nn.Module, batch: Any) -> Tensor:
        return module.stack(encoding.PoissonEncoder()(batch[0].expand(STEPS, *batch[0].shape) / 4))

    found = measure_drift(network, copy.deepcopy(network), [(validation_images(),)], coded, 6)

    assert found.first_layer is None
    assert all(one.rate > 0 for one in found.layers)
    before = capture_random_states()
    measure_drift(network, copy.deepcopy(network), [(validation_images(),)], coded, 6)
    assert_same(capture_random_states(), before)


def test_copies_step_without_the_compiler_that_the_original_keeps() -> None:
    _, quantized = small_pair()
    attached_quantizer(quantized.stack[1]).compiled = True
    copied = copy.deepcopy(quantized)

    step_uncompiled(copied)

    assert not attached_quantizer(copied.stack[1]).compiled
    assert attached_quantizer(quantized.stack[1]).compiled
