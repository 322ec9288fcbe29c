"""Modules that declare their tensors: what a plan makes of them, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from qspinn.plan import (
    DeclaresTensors,
    Inventory,
    QuantizationPlan,
    ResolvedPlan,
    charge_of,
    declared_tensors,
    declares_tensors,
    footprint,
    inspect,
    layers_of,
    needs_forward_pass,
    reset_states,
)
from qspinn.plan.neurons import is_unknown_neuron
from tests.plan.declaring import LABELS, WEIGHT, Declaring, DeclaringLinear, NeuronLike
from tests.plan.networks import spikes


def forbidden() -> None:
    raise AssertionError("a forward pass was run")


class Project(nn.Module):
    """A declared module, metrics and a loss, called by other names than forward."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=3)
        self.confusion = torchmetrics.ConfusionMatrix("multiclass", num_classes=3)
        self.loss = nn.CrossEntropyLoss()


class TestInspect:
    @pytest.mark.parametrize("step_mode", ["s", "m"])
    def test_one_layer_whatever_it_consists_of(self, step_mode: str) -> None:
        project = Project(NeuronLike())
        functional.set_step_mode(project, step_mode)
        inventory = inspect(project, run=forbidden)
        assert [(one.path, one.kind, one.type_name) for one in inventory.layers] == [
            ("network", "declared", "NeuronLike")
        ]
        assert [(one.path, one.role, one.shape) for one in inventory.tensors()] == [
            ("network.weight", "weight", (4, 3)),
            ("network.v", "membrane", (3,)),
        ]
        assert inventory.from_forward_pass
        assert inventory.notes == ()
        assert inventory == inspect(project)

    def test_it_is_no_neuron_and_no_synapse(self) -> None:
        assert charge_of(NeuronLike()) is None
        assert not is_unknown_neuron(NeuronLike())
        assert inspect(DeclaringLinear(4, 3)).layers[0].kind == "declared"

    def test_a_plan_knows_all_shapes_without_an_example(self) -> None:
        resolved = QuantizationPlan.uniform(5).resolve(Project(NeuronLike()))
        assert footprint(Project(NeuronLike()), resolved).inference_bits == 5 * (12 + 3)

    def test_its_states_are_reset(self) -> None:
        network = NeuronLike()
        network(torch.ones(1, 4))
        assert isinstance(network.v, torch.Tensor)
        reset_states(Project(network))
        assert network.v == 0.0

    def test_nothing_declared_is_nothing_held(self) -> None:
        project = Project(NeuronLike())
        project.unused = Declaring()
        project.unused.buffer = nn.BatchNorm1d(3)
        assert [one.path for one in inspect(project).layers] == ["network"]

    def test_the_module_itself(self) -> None:
        inventory = inspect(NeuronLike())
        assert [one.path for one in inventory.tensors()] == ["weight", "v"]

    def test_the_declaring_one_inside_of_another_does_not_count(self) -> None:
        outer = Declaring(WEIGHT)
        outer.inner = Declaring(LABELS)
        assert [path for path, _ in layers_of(nn.Sequential(outer))] == ["", "0"]
        assert [one.path for one in inspect(nn.Sequential(outer)).tensors()] == ["0.weight"]

    def test_only_what_declares_is_known_without_a_forward_pass(self) -> None:
        assert not needs_forward_pass(Project(NeuronLike()))
        assert not needs_forward_pass(nn.Sequential(NeuronLike(), nn.LayerNorm(3)))
        assert needs_forward_pass(nn.Sequential(NeuronLike(), nn.Linear(3, 2)))
        assert needs_forward_pass(nn.Sequential(NeuronLike(), neuron.IFNode()))
        assert needs_forward_pass(nn.Sequential(NeuronLike(), nn.LazyBatchNorm1d()))
        assert needs_forward_pass(nn.Sequential(nn.Linear(3, 2)))

    def test_layers_besides_are_watched_as_ever(self) -> None:
        network = nn.Sequential(
            layer.Linear(4, 4, bias=False), NeuronLike(), layer.Linear(3, 2), neuron.LIFNode()
        )
        found = {one.path: one for one in inspect(network, spikes(5, 4)).layers}
        assert [one.kind for one in found.values()] == ["synapse", "declared", "synapse", "neuron"]
        assert found["1"].sources == ("0",)
        # What goes through the declaring module no longer consists of the first layer's sums.
        assert found["3"].sources == ("2",)

    def test_no_norm_is_folded_into_it(self) -> None:
        network = nn.Sequential(DeclaringLinear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
        found = inspect(network, spikes(5, 4))
        assert [one.kind for one in found.layers] == ["declared", "other", "synapse"]
        assert found.layer("0").norm is None

    def test_a_silent_one_may_send_more_than_spikes(self) -> None:
        class Counts(Declaring):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.zeros_like(x)

        network = nn.Sequential(Counts(WEIGHT), nn.Linear(4, 2))
        assert "input" in inspect(network, spikes(5, 4)).layer("1").roles()

    def test_spikes_stay_spikes(self) -> None:
        network = nn.Sequential(Declaring(WEIGHT), nn.Linear(4, 2))
        assert "input" not in inspect(network, spikes(5, 4)).layer("1").roles()

    def test_a_constant_is_no_state(self) -> None:
        entry = {"name": "a", "role": "membrane", "shape": (), "value": 1.0, "constant": True}
        with pytest.raises(ValueError, match="constant=True and state=True; write one of them"):
            declared_tensors("", Declaring(entry | {"state": True}))
        (tensor,) = declared_tensors("", Declaring(entry))
        assert not tensor.info.for_state
        assert tensor.info.never_changes
        (counter,) = declared_tensors(
            "", Declaring({"name": "c", "role": None, "shape": (2,), "state": True})
        )
        assert counter.info.for_state

    def test_one_method_only_is_an_error(self) -> None:
        class Half(nn.Module):
            def device_tensors(self) -> Any:
                return []

        with pytest.raises(ValueError, match=r"Half.*no use_fixed_point\(\); write both"):
            inspect(nn.Sequential(Half()))

    def test_the_protocol_can_be_checked(self) -> None:
        assert isinstance(NeuronLike(), DeclaresTensors)
        assert not isinstance(nn.Linear(2, 2), DeclaresTensors)
        assert not declares_tensors(nn.Linear(2, 2))


class TestFootprint:
    def test_by_hand(self) -> None:
        network = Declaring(
            WEIGHT,
            {"name": "trace", "role": "trace", "shape": (4,)},
            {"name": "held_trace", "role": "trace", "shape": (5,), "training_only": False},
            {"name": "rate", "role": "decay", "shape": (), "training_only": True},
            {**LABELS, "word_length": 4},
            {"name": "steps", "role": None, "shape": [2]},
            {"name": "counter", "role": None, "shape": (), "word_length": 9, "training_only": True},
            {"name": "pixels", "role": "input", "shape": (4,)},
        )
        found = footprint(network, QuantizationPlan.uniform(6))
        assert found.by_tensor == {
            "weight": 12 * 6,
            "trace": 4 * 6,
            "held_trace": 5 * 6,
            "rate": 6,
            "labels": 3 * 4,
            "steps": 2 * 32,
            "counter": 9,
        }
        assert found.inference_bits == 72 + 30 + 12 + 64
        assert found.training_bits == found.inference_bits + 24 + 6 + 9
        assert found.baseline_inference_bits == 32 * 12 + 32 * 5 + 12 + 64
        assert found.baseline_training_bits == found.baseline_inference_bits + 32 * 4 + 32 + 9
        assert found.by_role == {"other": 12 + 64, "trace": 30, "weight": 72}
        assert found.baseline_by_role == {"other": 76, "trace": 160, "weight": 384}

    def test_in_float_only_labels_differ_from_32_bit(self) -> None:
        found = footprint(Declaring(WEIGHT, {**LABELS, "word_length": 4}))
        assert found.inference_bits == found.baseline_inference_bits == 32 * 12 + 3 * 4
        assert found.reduction == 1.0


class TestDictionaries:
    def test_there_and_back(self) -> None:
        network = Declaring(WEIGHT, {**LABELS, "word_length": 4, "training_only": True})
        resolved = QuantizationPlan.uniform(6).resolve(network)
        again = ResolvedPlan.from_dict(resolved.to_dict())
        assert again == resolved
        labels = list(again.inventory.tensors())[1]
        assert (labels.word_length, labels.training_only) == (4, True)

    def test_from_before_the_fields_existed(self) -> None:
        inventory = inspect(nn.Sequential(nn.Linear(4, 3), neuron.LIFNode()), spikes(2, 4))
        data = inventory.to_dict()
        for one in data["layers"]:
            for tensor in one["tensors"]:
                del tensor["training_only"], tensor["word_length"]
        assert Inventory.from_dict(data) == inventory


class TestValues:
    @pytest.mark.parametrize(
        ("given", "shape", "expected"),
        [
            (torch.ones(2, 3, dtype=torch.int64), (2, 3), torch.ones(2, 3)),
            (np.full((2,), 0.5), (2,), torch.full((2,), 0.5)),
            (0.25, (), torch.tensor(0.25)),
            (np.float32(0.25), (3,), torch.full((3,), 0.25)),
            (torch.tensor([0.25]), (2, 2), torch.full((2, 2), 0.25)),
        ],
    )
    def test_whatever_holds_numbers(self, given: Any, shape: Any, expected: torch.Tensor) -> None:
        one = {"name": "a", "role": "theta", "shape": shape, "value": given}
        value = declared_tensors("", Declaring(one))[0].value
        assert value is not None
        assert value.is_floating_point()
        assert torch.equal(value.double(), expected.double())

    @pytest.mark.parametrize(
        ("stated", "signed"),
        [
            ({}, False),
            ({"low": 0, "high": 1}, False),
            ({"low": -1, "high": 1}, True),
            ({"low": 0, "high": 1, "value": -1.0}, True),
            ({"value": 0.0}, False),
        ],
    )
    def test_signs(self, stated: Any, signed: bool) -> None:
        one = {"name": "a", "role": "theta", "shape": (2,), **stated}
        assert declared_tensors("", Declaring(one))[0].signed is signed

    def test_a_value_may_need_a_gradient(self) -> None:
        one = {**WEIGHT, "value": nn.Parameter(torch.rand(4, 3))}
        assert not declared_tensors("", Declaring(one))[0].value.requires_grad


REFUSED: list[tuple[Any, str]] = [
    ([7], r"\[0\] is a int; write a mapping with name, role, shape"),
    ([{**WEIGHT, "colour": 1}], "unknown key 'colour'; write any of name, role"),
    ([{"role": None, "shape": ()}], "name=None; write the tensor's name"),
    ([{"name": "a", "shape": ()}], "'a': has no role; add the key 'role'"),
    ([{"name": "a", "role": None}], "'a': has no shape; add the key 'shape'"),
    ([{**WEIGHT, "role": "wieght"}], "unknown role 'wieght'; write one of weight, bias"),
    ([{**WEIGHT, "shape": 7}], r"shape=7; write the sizes .* or \(\) for a single number"),
    ([{**WEIGHT, "shape": (4, None)}], r"shape=\(4, None\); write the sizes"),
    ([{**WEIGHT, "shape": (4, 0)}], r"shape=\(4, 0\) holds no number; write the sizes"),
    ([{**WEIGHT, "channel_axis": 2}], "channel_axis=2; write a whole number from 0 to 1"),
    ([{**LABELS, "shape": (), "channel_axis": 0}], "channel_axis=0; write none"),
    ([{**WEIGHT, "training_only": 1}], "training_only=1; write True or False"),
    ([{**WEIGHT, "word_length": 4}], "word_length=4 with role='weight': the plan says"),
    ([{**LABELS, "word_length": 0}], "word_length=0; write a whole number from 1 to 64"),
    ([{**LABELS, "word_length": 4.0}], "word_length=4.0; write a whole number from 1 to 64"),
    ([{**WEIGHT, "low": 0.0}], "low=0.0 and high=None; write both or neither"),
    ([{**WEIGHT, "low": 1, "high": 0}], "low=1.0 and high=0.0; write low <= high"),
    ([{**WEIGHT, "low": 0, "high": math.inf}], "high=inf; write a finite number"),
    ([{**WEIGHT, "low": "a", "high": 1}], "low='a'; write a finite number"),
    ([{**WEIGHT, "value": "all"}], "value is a str; give a tensor or a number"),
    (
        [{**WEIGHT, "value": torch.rand(3, 4)}],
        r"value has shape \(3, 4\), declared is shape=\(4",
    ),
    ([{**WEIGHT, "value": torch.rand(4, 3) * 1j}], "value is complex; give real numbers"),
    ([{**WEIGHT, "constant": True}], r"constant=True, but value=None with shape \(4, 3\)"),
    ([{**WEIGHT, "constant": True, "value": 1.0}], "give the number as value, and shape"),
    ([{**WEIGHT, "powers_of_two": True}], "powers_of_two=True with role='weight'; write in words"),
    ([{**LABELS, "powers_of_two": "why"}], "powers_of_two='why' with role=None; write in words"),
    ([WEIGHT, WEIGHT], "two tensors named 'weight'; write other names"),
    (WEIGHT, "gave a dict; return a list of mappings"),
    ("weight", "gave a str; return a list of mappings"),
    (None, "gave None; return a list of mappings"),
]


@pytest.mark.parametrize(("declared", "message"), REFUSED)
def test_a_declaration_that_cannot_be_is_refused(declared: Any, message: str) -> None:
    network = Declaring()
    network.declared = declared
    with pytest.raises(ValueError, match=rf"hidden \(Declaring\): device_tensors\(\).*{message}"):
        QuantizationPlan.uniform(8).resolve(nn.ModuleDict({"hidden": network}))


def test_nothing_to_quantise_says_what_there_might_be() -> None:
    with pytest.raises(ValueError, match="nothing that declares its tensors"):
        QuantizationPlan.uniform(8).resolve(Declaring(LABELS))
