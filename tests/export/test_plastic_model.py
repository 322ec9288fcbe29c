"""The unsupervised network as a device model: from pixels to the answer in whole numbers."""

from __future__ import annotations

import copy
import functools
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qspinn.data import MNISTSubset
from qspinn.export import (
    DeviceModel,
    IntegerEngine,
    NotExportableError,
    device_model,
    encode,
    save_model,
)
from qspinn.export.answers import largest
from qspinn.export.declared import declared_model
from qspinn.export.errors import FindingError
from qspinn.export.model import DeviceOperation, RandomSpikes, State
from qspinn.fixed_point import PerChannelFormat
from qspinn.learning import UnsupervisedLearning
from qspinn.networks import DiehlCook, DiehlCookSettings
from qspinn.networks.diehl_cook.operations import proportion
from qspinn.plan import QuantizationPlan, footprint
from qspinn.plan.graph import Operand
from qspinn.quantizers import plan_of, quantize_module
from qspinn.stdp.arithmetic import Arithmetic
from qspinn.stdp.dynamics import NeuronState, StepKeys, advance
from qspinn.stdp.encoding import content_keys, poisson_spikes, spike_probabilities
from tests.stdp.cases import ROUNDINGS, codes_of, lively, quantizers

NEURON = 3
"""Number of the operation of the neurons."""


def pixels(count: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Images of bytes, two fifths of them 0."""
    random = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, 256, (count, *shape), generator=random) / 256
    return drawn * (torch.rand(count, *shape, generator=random) > 0.4)


def simulated(network: DiehlCook, images: Tensor) -> tuple[Any, Any]:
    """Spikes and potentials after each step, by the steps that define the network."""
    rules = Arithmetic(network.numbers(), images.device)
    p = spike_probabilities(images.flatten(1), network.settings.max_rate)
    keys = content_keys(int(network.seed), p)
    inputs = poisson_spikes(p, keys, network.time_steps).long()
    weight, theta = codes_of(network)
    total = rules.threshold(theta)
    delay = network.settings.inhibition_delay
    state = NeuronState.fresh(len(p), network.neurons, delay, rules.dtype, p.device)
    spikes, potentials = [], []
    for arriving in inputs:
        _, fired, state = advance(
            state, arriving @ weight, total, network.settings, rules, StepKeys.of(keys)
        )
        spikes.append(fired.numpy().astype(np.int64))
        potentials.append(state.v.numpy())
    return np.stack(spikes), np.stack(potentials)


def ran(model: DeviceModel, images: Tensor) -> tuple[Any, Any, Any]:
    """The answers of the engine; spikes and potentials after each step."""
    shape = model.operations[NEURON].shape
    watched = DeviceOperation(State(), (Operand(NEURON),), shape)
    with_state = replace(model, operations=(*model.operations, watched))
    seen: dict[int, list[Any]] = {NEURON: [], len(model.operations): []}

    def watch(step: int, number: int, value: Any) -> None:
        if number in seen:
            seen[number].append(value)

    answers = IntegerEngine(with_state).run(encode(model, images), watch=watch)
    return answers, *(np.stack(values) for values in seen.values())


@pytest.mark.few(0.1)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_every_potential_and_spike(rounding: str, overflow: str, data: st.DataObject) -> None:
    draw = data.draw
    network = lively(
        seed=draw(st.integers(0, 99)),
        time_steps=draw(st.sampled_from([30, 64, 70])),
        inhibition_delay=draw(st.integers(1, 3)),
        refractory=draw(st.integers(0, 3)),
        one_winner=draw(st.booleans()),
        max_rate=draw(st.sampled_from([300.0, 1000.0])),
    )
    lengths = {
        name: draw(st.integers(6, 14), label=name)
        for name in ("v", "theta", "threshold", "reset", "inhibition", "leak")
    }
    held = quantizers(network, 8, rounding, overflow, **lengths, weight=draw(st.integers(2, 9)))
    if draw(st.booleans(), label="per_channel"):
        bits = tuple(draw(st.integers(1, 6)) for _ in range(network.neurons))
        held["weight"] = replace(held["weight"], format=PerChannelFormat(4, bits, False, 1))
    try:
        network.use_fixed_point(held)
    except ValueError:
        return  # formats with which the network could not work
    images = pixels(3, network.input_shape, draw(st.integers(0, 99)))
    network.theta.uniform_(0.0, 1.0)
    spikes, potentials = simulated(network, images)

    model = declared_model(network, images[:1], "network", (), None)
    answers, seen, states = ran(model, images)

    assert np.array_equal(states, potentials)
    assert np.array_equal(seen, spikes)
    assert np.array_equal(answers.sums, network.present(images).spike_counts.numpy())


PLAN = [
    {"word_length": 10},
    {"role": "weight", "word_length": 3},
    {"role": "membrane", "word_length": 12},
]
SETTINGS = DiehlCookSettings(
    threshold=-62.0, reset=-64.0, inhibition=6.0, refractory=2, theta_plus=0.2
)
SHAPE, CLASSES = (1, 6, 6), 3


@functools.cache
def taught(**changes: Any) -> DiehlCook:
    """A network that has seen some images, in 32 bits; not to be changed."""
    torch.manual_seed(0)
    settings_, stdp = replace(SETTINGS, **changes), lively(weight_sum=6.0).stdp
    network = DiehlCook(SHAPE, 12, 70, settings_, stdp, backend="torch")
    network.present(pixels(80, SHAPE, 1), learning=True)
    return network


def learned(
    readout: str,
    rounding: str = "nearest",
    granularity: str = "tensor",
    scale: str = "power_of_two",
    **changes: Any,
) -> Any:
    """A network that has seen some images, with its readout, quantised."""
    module = UnsupervisedLearning(copy.deepcopy(taught(**changes)), CLASSES, readout, 100)
    images = pixels(80, SHAPE, 1)
    module.labelling.add(images, torch.arange(80) % CLASSES)
    rules = [{**rule, "rounding": rounding} for rule in PLAN]
    rules[1] |= {"granularity": granularity, "scale": scale}
    if readout != "maximum":
        readouts = {"layers": "readout", "role": "weight", "scale": "power_of_two"}
        rules.append({**readouts, "word_length": 8})
    quantized: Any = quantize_module(module, QuantizationPlan.from_rules(rules), images[:5]).eval()
    quantized.fit_readouts()
    return quantized


@pytest.mark.few(0.2, "campaign")
@pytest.mark.parametrize("readout", ["maximum", "proportion", "ridge"])
@pytest.mark.parametrize(
    ("rounding", "granularity", "scale"),
    [
        ("nearest", "tensor", "power_of_two"),
        ("stochastic", "tensor", "power_of_two"),
        ("truncate", "channel", "power_of_two"),
        ("nearest", "tensor", "free"),
        ("stochastic", "channel", "free"),
    ],
)
@pytest.mark.parametrize("one_winner", [True, False])
def test_predictions(
    readout: str, rounding: str, granularity: str, scale: str, one_winner: bool
) -> None:
    module = learned(readout, rounding, granularity, scale, one_winner=one_winner)
    images = pixels(150, SHAPE, 5)
    model = device_model(module, images[:1])

    answers, spikes, _ = ran(model, images)

    shown, scores = module.network.present(images, record=True), module(images)
    assert int(shown.spike_counts.sum()) > 50
    assert np.array_equal(spikes, shown.spikes.numpy())
    divisors = np.array(answers.divisors or (1,) * CLASSES)
    exact = answers.sums * 2.0**-answers.fraction_bits / divisors
    assert np.array_equal(exact, scores.numpy())
    assert np.array_equal(answers.classes, scores.argmax(1).numpy())
    counted = footprint(module, plan_of(module))
    assert model.stored_bits == counted.flash_bits
    assert model.state_bits == counted.ram_bits


@pytest.mark.few(0.25, "campaign")
@pytest.mark.slow
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("word_length", [2, 3])
def test_real_images(word_length: int, rounding: str) -> None:
    """100 neurons that have learned 1000 images, as `experiment=unsupervised_quick` has them."""
    data = MNISTSubset(batch_size=250, eval_batch_size=250)
    data.prepare_data()
    data.setup("fit")
    shown = list(itertools.islice(data.train_dataloader(), 4))
    images, labels = (torch.cat(parts) for parts in zip(*shown, strict=True))
    torch.manual_seed(0)
    module = UnsupervisedLearning(DiehlCook(neurons=100), 10, labelling_images=1000)
    module.network.present(images, learning=True)  # type: ignore[operator]
    module.labelling.add(images, labels)
    rules: list[Any] = [
        {"word_length": 16, "rounding": rounding},
        {"role": "weight", "word_length": word_length},
        {"layers": "readout", "role": "weight", "word_length": 8},
    ]
    plan = QuantizationPlan.from_rules(rules)
    quantized: Any = quantize_module(module, plan, images[:100]).eval()
    quantized.fit_readouts()
    data.setup("test")
    images, labels = next(iter(data.test_dataloader()))
    model = device_model(quantized, images[:1])

    answers, spikes, _ = ran(model, images)

    assert np.array_equal(answers.classes, quantized(images).argmax(1).numpy())
    counts = quantized.network.present(images).spike_counts.numpy()
    assert np.array_equal(spikes.sum(0), counts)
    assert (answers.classes == labels.numpy()).mean() > 0.5


def test_the_network_alone_answers_spike_counts() -> None:
    network = lively(inhibition_delay=1)
    plan = QuantizationPlan.uniform(12)
    images = pixels(20, network.input_shape)
    quantized: Any = quantize_module(network, plan, images)
    model = device_model(quantized, images[:1])
    answers = IntegerEngine(model).run(encode(model, images))
    assert np.array_equal(answers.sums, quantized.present(images).spike_counts.numpy())
    assert answers.sums.sum() > 0


@pytest.mark.parametrize("rate", [1.0, 63.75, 128.0, 333.3, 1000.0])
def test_every_pixel_gets_its_probability(rate: float) -> None:
    multiplier, down = proportion(rate)
    codes = range(256)
    wanted = spike_probabilities(torch.arange(256)[None] / 256.0, rate)[0].tolist()
    assert [min((c * multiplier + (1 << down >> 1)) >> down, 65535) for c in codes] == wanted


def test_means_are_compared_exactly() -> None:
    sums = np.array([[1, 3, 2], [2, 6, 5], [0, 0, 0]])
    assert largest(sums, (1, 3, 2)).tolist() == [0, 2, 0]
    assert largest(sums).tolist() == [1, 1, 0]


def test_images_that_are_no_bytes_are_refused() -> None:
    module = learned("proportion")
    with pytest.raises(NotExportableError, match="pixels as bytes"):
        device_model(module, torch.full((1, *SHAPE), 1 / 255))
    with pytest.raises(NotExportableError, match="write one image"):
        device_model(module, torch.zeros(1, 5))


def test_random_spikes_of_the_last_step_alone_are_refused(tmp_path: Path) -> None:
    """They are drawn from what is shown in the first one."""
    module = learned("maximum")
    model = device_model(module, pixels(1, SHAPE))
    assert isinstance(model.operations[1].what, RandomSpikes)
    first, *others = model.operations
    final = tuple(replace(one, is_final=True) for one in others)
    damaged = replace(model, learning=None, operations=(first, *final))
    with pytest.raises(FindingError, match="random spikes of the last step alone"):
        save_model(damaged, tmp_path / "model.qspinn")
