"""Footprints against counts by hand, to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn

from qspinn.networks import DiehlCook
from qspinn.plan import (
    Footprint,
    FootprintItem,
    Inventory,
    LayerInfo,
    QuantizationPlan,
    ResolvedPlan,
    TensorInfo,
    footprint,
    footprint_of,
    resolve,
)
from qspinn.quantizers import attach, calibrate
from tests.plan.networks import spikes, two_layers

X = spikes(3, 2, 4, 4)


def test_two_layers_by_hand() -> None:
    """Conv 2->3 of 3x3 on 4x4: 3*2*9 weights, 3 folded biases, 3*2*2 neurons; linear 12->5."""
    plan = QuantizationPlan.uniform(
        8, roles={"weight": {"word_length": 4}, "membrane": {"word_length": 10}}
    )
    found = footprint(two_layers(), plan, X)
    assert found.by_tensor == {
        "0.weight": 54 * 4,
        "0.bias": 3 * 8,
        "2.v": 12 * 10,
        "2.v_threshold": 8,
        "4.weight": 60 * 4,
        "4.bias": 5 * 8,
        "5.v": 5 * 10,
        "5.v_threshold": 8,
        "5.decay": 8,
    }
    values = 54 + 3 + 12 + 1 + 60 + 5 + 5 + 1 + 1
    assert found.inference_bits == 216 + 24 + 120 + 8 + 240 + 40 + 50 + 8 + 8
    assert found.baseline_inference_bits == 32 * values
    assert found.training_bits == found.inference_bits
    assert found.baseline_training_bits == found.baseline_inference_bits
    assert found.by_role == {
        "bias": 64,
        "decay": 8,
        "membrane": 170,
        "threshold": 16,
        "weight": 456,
    }
    assert found.baseline_by_role == {
        "bias": 8 * 32,
        "decay": 32,
        "membrane": 17 * 32,
        "threshold": 64,
        "weight": 114 * 32,
    }
    assert found.reduction == 32 * values / 714


def test_states_are_in_ram_and_the_rest_in_flash() -> None:
    plan = QuantizationPlan.uniform(
        8, roles={"weight": {"word_length": 4}, "membrane": {"word_length": 10}}
    )
    found = footprint(two_layers(), plan, X)
    assert found.ram_bits == 120 + 50
    assert found.flash_bits == 216 + 24 + 8 + 240 + 40 + 8 + 8
    # A device that learns leaves thresholds and the leak alone.
    assert found.learning_ram_bits == found.training_bits - 3 * 8


def test_a_declared_network_in_flash_and_ram() -> None:
    """4 inputs, 3 neurons: potentials, counters and spikes on their way are in RAM."""
    network = DiehlCook((1, 2, 2), neurons=3, time_steps=5)
    plan = QuantizationPlan.uniform(8, roles={"membrane": {"word_length": 12}})
    found = footprint(network, plan)
    bits = found.by_tensor
    in_ram = bits["v"] + bits["refractory"] + bits["pending_spikes"]
    assert found.ram_bits == in_ram
    constants = ["threshold", "reset", "inhibition", "leak"]
    in_flash = bits["weight"] + bits["theta"] + sum(bits[name] for name in constants)
    assert found.flash_bits == in_flash == found.inference_bits - in_ram
    learning = bits["trace_pre"] + bits["trace_post"] + bits["turns"]
    assert found.learning_ram_bits == in_ram + bits["weight"] + bits["theta"] + learning


def test_the_word_of_a_reset_is_in_flash() -> None:
    node = neuron.IFNode(v_reset=-0.5, step_mode="m")
    found = footprint(nn.Sequential(node), QuantizationPlan.uniform(8), spikes(3, 2, 5))
    assert (found.ram_bits, found.flash_bits) == (5 * 8, 2 * 8)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_batch_size_does_not_count(batch: int) -> None:
    plan = QuantizationPlan.uniform(8)
    assert footprint(two_layers(), plan, spikes(batch, 2, 4, 4)) == footprint(two_layers(), plan, X)


@pytest.mark.parametrize("steps", [1, 5])
def test_the_number_of_steps_does_not_count(steps: int) -> None:
    network = nn.Sequential(layer.Linear(6, 4, step_mode="m"), neuron.IFNode(step_mode="m"))
    found = footprint(network, QuantizationPlan.uniform(8), spikes(steps, 3, 6))
    assert found.by_tensor == {"0.weight": 192, "0.bias": 32, "1.v": 32, "1.v_threshold": 8}


def test_reset_to_another_value_is_a_word_of_the_membrane() -> None:
    plan = QuantizationPlan.uniform(8, roles={"membrane": {"word_length": 10}})
    plain = footprint(two_layers(), plan, X)
    words = footprint(two_layers(v_reset=-0.5), plan, X)
    assert words.inference_bits == plain.inference_bits + 2 * 10
    assert words.by_tensor["2.v_reset"] == words.by_tensor["5.v_reset"] == 10
    assert words.baseline_inference_bits == plain.baseline_inference_bits + 2 * 32
    assert footprint(two_layers(v_reset=None), plan, X) == plain


def test_per_channel_formats_cost_no_more_bits() -> None:
    x = X
    network = two_layers()
    sizes = []
    for granularity in ("tensor", "channel"):
        plan = QuantizationPlan.uniform(8, granularity=granularity)
        resolved = calibrate(network, plan.resolve(network, x), x)
        sizes.append(footprint(network, resolved).inference_bits)
    assert sizes[0] == sizes[1]


def test_exempt_tensors_are_32_bit() -> None:
    rules = [{"layers": "4", "role": "weight", "format": "float32"}]
    found = footprint(two_layers(), QuantizationPlan.uniform(8, rules=rules), X)
    assert found.by_tensor["4.weight"] == 60 * 32
    assert found.by_tensor["4.bias"] == 5 * 8


def test_a_network_without_a_plan_is_its_baseline() -> None:
    found = footprint(two_layers(), None, X)
    assert found.inference_bits == found.baseline_inference_bits == 142 * 32
    assert found.reduction == 1.0


def test_a_norm_that_cannot_be_folded_is_counted() -> None:
    """Scale, shift, mean and variance of 3 channels, at 32 bit."""
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.MaxPool2d(2), nn.BatchNorm2d(3), neuron.IFNode()
    ).eval()
    found = footprint(network, QuantizationPlan.uniform(8), X)
    assert found.by_role == {
        "bias": 3 * 8,
        "membrane": 3 * 8,
        "other": 4 * 3 * 32,
        "threshold": 8,
        "weight": 54 * 8,
    }


def test_a_folded_norm_adds_the_bias_it_brings() -> None:
    network = nn.Sequential(nn.Linear(6, 4, bias=False), nn.BatchNorm1d(4), neuron.IFNode()).eval()
    found = footprint(network, QuantizationPlan.uniform(8), spikes(3, 6))
    assert found.by_tensor == {"0.weight": 192, "0.bias": 32, "2.v": 32, "2.v_threshold": 8}


def test_inputs_are_not_held() -> None:
    plan = QuantizationPlan.uniform(8)
    pixels = footprint(two_layers(), plan, X * 0.5)
    assert pixels == footprint(two_layers(), plan, X)
    assert "input" not in pixels.by_role


@pytest.mark.parametrize(
    ("node", "held"),
    [
        (neuron.IFNode(), {"v": 3, "v_threshold": 1}),
        (neuron.LIFNode(), {"v": 3, "v_threshold": 1, "decay": 1}),
        (neuron.ParametricLIFNode(), {"v": 3, "v_threshold": 1, "decay": 1}),
        (neuron.SimpleIFNode(v_threshold=1), {"v": 3, "v_threshold": 1}),
        (neuron.SimpleLIFNode(2.0, True), {"v": 3, "v_threshold": 1, "decay": 1}),
        (neuron.IzhikevichNode(v_reset=0.0), {"v": 3, "w": 3, "v_threshold": 1}),
        (neuron.CUBALIFNode(), {"v": 3, "c": 3, "v_threshold": 1}),
    ],
    ids=lambda one: type(one).__name__,
)
def test_neurons_by_hand(node: Any, held: dict[str, int]) -> None:
    network = nn.Sequential(nn.Linear(4, 3, bias=False), node).eval()
    found = footprint(network, QuantizationPlan.uniform(7), spikes(2, 4))
    expected = {f"1.{name}": 7 * count for name, count in held.items()}
    assert found.by_tensor == {"0.weight": 12 * 7, **expected}


def test_learned_parameters_of_fallback_neurons_are_32_bit() -> None:
    network = nn.Sequential(nn.Linear(4, 3, bias=False), neuron.KLIFNode()).eval()
    found = footprint(network, QuantizationPlan.uniform(7), spikes(2, 4))
    assert found.by_tensor["1.k"] == 32


@pytest.mark.parametrize("kind", [neuron.NonSpikingIFNode, neuron.NonSpikingLIFNode])
def test_readouts_have_no_threshold(kind: Any) -> None:
    network = nn.Sequential(layer.Linear(4, 3, bias=False, step_mode="m"), kind()).eval()
    found = footprint(network, QuantizationPlan.uniform(7), spikes(5, 2, 4))
    decay = {"1.decay": 7} if kind is neuron.NonSpikingLIFNode else {}
    assert found.by_tensor == {"0.weight": 84, "1.v": 21, **decay}


def test_a_layer_used_twice_is_held_once() -> None:
    shared = nn.Linear(4, 4, bias=False)
    network = nn.Sequential(shared, neuron.IFNode(), shared, neuron.IFNode()).eval()
    found = footprint(network, QuantizationPlan.uniform(8), spikes(2, 4))
    assert found.by_role == {"membrane": 64, "threshold": 16, "weight": 128}


def test_losses_are_not_on_the_device() -> None:
    network = nn.ModuleDict({"net": nn.Linear(4, 3), "loss": nn.CrossEntropyLoss(torch.ones(3))})
    assert set(footprint(network).by_role) == {"bias", "weight"}


def test_traces_count_for_training_only() -> None:
    info = LayerInfo(
        "stdp",
        "neuron",
        "STDP",
        (TensorInfo("stdp", "trace_pre", "trace", (10,)), TensorInfo("stdp", "t", "theta", (4,))),
    )
    inventory = Inventory((info,))
    plan = resolve(QuantizationPlan.uniform(6), inventory)
    found = footprint_of(inventory, plan)
    assert found.inference_bits == 4 * 6
    assert found.training_bits == 14 * 6
    assert found.baseline_inference_bits == 4 * 32
    assert found.baseline_training_bits == 14 * 32
    assert found.by_role == {"theta": 24}


class TestWaysToAsk:
    def test_a_resolved_plan_needs_no_input(self) -> None:
        network, plan = two_layers(), QuantizationPlan.uniform(8)
        assert footprint(network, plan.resolve(network, X)) == footprint(network, plan, X)

    def test_an_attached_network(self) -> None:
        network, plan = two_layers(), QuantizationPlan.uniform(8)
        expected = footprint(network, plan, X)
        resolved = calibrate(network, plan.resolve(network, X), X)
        attach(network, resolved)
        assert footprint(network, resolved) == footprint(network, plan, X) == expected
        assert footprint(network, resolved, X) == expected

    def test_through_plain_types(self) -> None:
        network, plan = two_layers(), QuantizationPlan.uniform(8)
        resolved = ResolvedPlan.from_dict(plan.resolve(network, X).to_dict())
        assert footprint(network, resolved) == footprint(network, plan, X)

    @pytest.mark.parametrize("plan", [None, QuantizationPlan.uniform(8)])
    def test_without_an_input_sizes_are_unknown(self, plan: Any) -> None:
        with pytest.raises(ValueError, match=r"0\.bias: its size is known only .*example input"):
            footprint(two_layers(), plan).inference_bits  # noqa: B018

    def test_items(self) -> None:
        item = FootprintItem("a", "weight", 10, 4)
        assert (item.bits, item.baseline_bits) == (40, 320)
        assert Footprint((item,)).by_tensor == {"a": 40}
