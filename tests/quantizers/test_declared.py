"""Modules that declare their tensors: how formats are chosen, attached and taken off."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import nn

from qspinn.fixed_point import PerChannelFormat
from qspinn.plan import QuantizationPlan, ResolvedPlan
from qspinn.quantizers import (
    accumulator_word_lengths,
    attach,
    calibrate,
    detach,
    is_attached,
    quantized_parameters,
)
from qspinn.quantizers.attach import reattach
from tests.plan.declaring import LABELS, WEIGHT, Declaring, NeuronLike


def tensor(**stated: Any) -> dict[str, Any]:
    return {"name": "a", "role": "theta", "shape": (4,), **stated}


def chosen(stated: Any, learning: bool = False, **settings: Any) -> str:
    network = Declaring(stated)
    plan = QuantizationPlan.uniform(**{"word_length": 8, "calibration": "max", **settings})
    return str(calibrate(network, plan.resolve(network), learning=learning).tensors[0].format)


VALUE = torch.tensor([0.0, 0.5, 1.0, 3.0])


class TestCalibrate:
    @pytest.mark.parametrize(
        ("stated", "learning", "expected"),
        [
            # Bounds are covered up to a step: [0, 1] is UQ0.8, of which 1 loses a step.
            ({"low": 0.0, "high": 1.0}, True, "UQ0.8"),
            ({"low": 0.0, "high": 1.01}, True, "UQ1.7"),
            ({"low": -1.0, "high": 0.5}, True, "Q0.7"),
            ({"low": -65.0, "high": 20.0}, True, "Q7.0"),
            ({"low": 0.0, "high": 0.0}, True, "UQ0.8"),
            ({"low": 0.0, "high": 0.02}, True, "UQ-5.13"),
            ({"low": 0.0, "high": 20.0}, False, "UQ5.3"),
            # After training the value decides; its sign, too.
            ({"low": 0.0, "high": 20.0, "value": VALUE}, False, "UQ2.6"),
            ({"low": 0.0, "high": 20.0, "value": VALUE}, True, "UQ5.3"),
            ({"low": -20.0, "high": 20.0, "value": VALUE}, False, "Q2.5"),
            ({"value": VALUE}, False, "UQ2.6"),
            ({"value": VALUE}, True, "UQ2.6"),
            ({"value": -VALUE}, True, "Q2.5"),
            # 13 needs 4 integer bits, -52 needs 6.
            ({"shape": (), "value": 13.0, "constant": True}, True, "UQ5.3"),
            ({"shape": (), "value": 13.3, "constant": True}, False, "UQ4.4"),
            ({"shape": (), "value": -52.5, "constant": True, "low": -99, "high": 99}, 1, "Q6.1"),
        ],
    )
    def test_by_hand(self, stated: Any, learning: bool, expected: str) -> None:
        assert chosen(tensor(**stated), bool(learning)) == expected

    def test_the_method_of_the_settings(self) -> None:
        value = torch.full((4096,), 0.9)
        value[0] = 7.0
        stated = tensor(shape=(4096,), value=value, low=0.0, high=100.0)
        assert chosen(stated, calibration="max") == "UQ3.5"
        assert chosen(stated, calibration="percentile") == "UQ0.8"

    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_a_format_per_channel(self, sign: float) -> None:
        value = sign * torch.tensor([0.5, 1.0, 4.0]) * torch.ones(4, 3)
        network = Declaring({**WEIGHT, "value": value})
        plan = QuantizationPlan.uniform(6, granularity="channel", calibration="max")
        found = calibrate(network, plan.resolve(network)).tensors[0].format
        signed = sign < 0
        bits = (6, 5, 3) if signed else (7, 6, 4)
        assert found == PerChannelFormat(6, bits, signed=signed, axis=1)

    def test_a_stated_format_is_kept(self) -> None:
        network = Declaring(tensor())
        plan = QuantizationPlan.from_rules([{"role": "theta", "format": "UQ3.2"}])
        assert str(calibrate(network, plan.resolve(network)).tensors[0].format) == "UQ3.2"

    def test_nothing_to_choose_on_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="a: the module declares neither value nor low and"):
            chosen(tensor())

    def test_values_that_are_not_finite_are_an_error(self) -> None:
        with pytest.raises(ValueError, match="a: holds values that are not finite"):
            chosen(tensor(value=float("nan")))

    def test_nothing_is_run_and_nothing_told(self) -> None:
        network = Declaring(tensor(value=VALUE))

        def run() -> None:
            raise AssertionError("ran")

        calibrate(network, QuantizationPlan.uniform(8).resolve(network), run)
        assert network.times_told == 0

    def test_a_module_that_declares_something_else_by_now_is_an_error(self) -> None:
        network = Declaring(tensor(value=VALUE))
        plan = QuantizationPlan.uniform(8).resolve(network)
        network.declared = [tensor(shape=(5,))]
        with pytest.raises(ValueError, match=r"^a: the plan was .*\(4,\).*\(5,\).*resolve"):
            calibrate(network, plan)
        network.declared = []
        with pytest.raises(ValueError, match="declares no such tensor"):
            calibrate(network, plan)

    def test_data_that_is_needed_is_asked_for(self) -> None:
        network = nn.Sequential(Declaring(tensor(value=VALUE)), nn.Linear(4, 2), neuron.IFNode())
        plan = QuantizationPlan.uniform(8).resolve(network, torch.rand(3, 4))
        with pytest.raises(ValueError, match=r"1.input is calibrated on data; give an input batch"):
            calibrate(network, plan)
        assert not is_attached(network)
        assert calibrate(network, plan, torch.rand(3, 4)).is_calibrated
        # It might not forget a grid.
        assert network[0].times_told == 0


def attached(*rules: Any) -> tuple[nn.Sequential, ResolvedPlan]:
    network = nn.Sequential(
        Declaring({**WEIGHT, "value": torch.full((4, 3), 0.3)}, tensor(low=0, high=1), LABELS)
    )
    plan = QuantizationPlan.uniform(4, "truncate", rules=rules).resolve(network)
    resolved = calibrate(network, plan)
    return attach(network, resolved), resolved


class TestAttach:
    def test_the_module_is_told_its_formats(self) -> None:
        network, resolved = attached()
        told = network[0].told
        assert list(told) == ["weight", "a"]
        for one in resolved.tensors:
            quantizer = told[one.info.name]
            assert quantizer.path == one.path
            assert quantizer.format == one.format
            assert (quantizer.rounding, quantizer.overflow) == ("truncate", "saturate")

    def test_what_stays_in_float_is_not_told(self) -> None:
        network, _ = attached({"role": "theta", "format": "float32"})
        assert list(network[0].told) == ["weight"]

    def test_a_module_left_in_float_is_told_nothing(self) -> None:
        network = nn.ModuleDict({"a": Declaring(WEIGHT), "b": Declaring(WEIGHT)})
        plan = QuantizationPlan.from_rules([{"layers": "b", "format": "Q0.7"}]).resolve(network)
        attach(network, plan)
        assert network["a"].told is None
        assert list(network["b"].told) == ["weight"]

    def test_detach_tells_and_gives_the_class_back(self) -> None:
        network, _ = attached()
        assert is_attached(network)
        assert isinstance(network[0], Declaring)
        assert detach(network) is network
        assert not is_attached(network)
        assert network[0].told is None
        assert type(network[0]) is Declaring
        assert not [name for name in vars(network[0]) if "qspinn" in name]

    def test_attaching_twice_is_an_error(self) -> None:
        network, resolved = attached()
        with pytest.raises(ValueError, match="attached already"):
            attach(network, resolved)

    @pytest.mark.parametrize("how", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
    def test_copies_are_attached_on_their_own(self, how: Any) -> None:
        network, _ = attached()
        copied = how(network)
        assert type(copied[0]) is type(network[0])
        assert copied[0].told.keys() == network[0].told.keys()
        assert copied[0].told["weight"] is not network[0].told["weight"]
        detach(copied)
        assert network[0].told is not None
        assert is_attached(network)

    def test_what_a_device_would_store(self) -> None:
        network, resolved = attached()
        stored = dict(quantized_parameters(network))
        # 0.3 truncated to the steps of UQ-1.5, the finest 4-bit grid that reaches it.
        assert {str(one.format) for one in resolved.tensors if one.role == "weight"} == {"UQ-1.5"}
        assert list(stored) == ["0.weight"]
        assert torch.equal(stored["0.weight"], torch.full((4, 3), 9 / 32))

    def test_constants_are_not_stored_values(self) -> None:
        network = Declaring(tensor(shape=(), value=1.0, constant=True))
        attach(network, calibrate(network, QuantizationPlan.uniform(4).resolve(network)))
        assert list(quantized_parameters(network)) == []

    def test_its_half_precision_is_its_own_affair(self) -> None:
        network = NeuronLike().half()
        resolved = calibrate(network, QuantizationPlan.uniform(4).resolve(network))
        attach(network, resolved)
        assert list(network.told) == ["weight", "v"]

    def test_something_of_the_same_name_stays_the_modules_own(self) -> None:
        network = Declaring(tensor(value=VALUE))
        network._quantizer = "mine"
        attach(network, calibrate(network, QuantizationPlan.uniform(4).resolve(network)))
        assert network._quantizer == "mine"
        detach(network)
        assert network._quantizer == "mine"


class Refusing(Declaring):
    def use_fixed_point(self, quantizers: Any) -> None:
        if quantizers:
            raise ValueError("theta must be unsigned")


def test_a_refusal_names_the_layer_and_leaves_everything_in_float() -> None:
    network = nn.ModuleDict({"good": Declaring(WEIGHT), "bad": Refusing(WEIGHT)})
    plan = QuantizationPlan.from_rules([{"format": "Q0.7"}]).resolve(network)
    with pytest.raises(ValueError, match=r"^bad \(Refusing\): theta must be unsigned$"):
        attach(network, plan)
    assert not is_attached(network)
    assert network["good"].told is None
    assert [type(one) for one in network.values()] == [Declaring, Refusing]


class TestAccumulators:
    class Summing(Declaring):
        def accumulator_word_lengths(self) -> dict[str, int]:
            return {"current": self.told["weight"].format.word_length + 3}

    def test_a_module_says_them_if_it_can(self) -> None:
        network = nn.ModuleDict(
            {"a": self.Summing(WEIGHT), "b": Declaring(WEIGHT), "c": nn.Linear(4, 2, bias=False)}
        )
        network.forward = lambda x: network["c"](x)
        rules = [{"role": "weight", "format": "Q0.7"}]
        binary = torch.ones(2, 4)
        plan = QuantizationPlan.from_rules(rules).resolve(network, binary)
        # Four weights of at most 1 in steps of 2^-7: 512 is 10 bits, and the sign.
        assert accumulator_word_lengths(plan) == {"c": 11}
        assert accumulator_word_lengths(plan, network) == {"c": 11}
        attach(network, plan)
        assert accumulator_word_lengths(plan, network) == {"a.current": 11, "c": 11}


class NeuronLikeInFixedPoint(Declaring):
    """A declared module between whose calls nothing is computed."""

    def __init__(self) -> None:
        super().__init__({**WEIGHT, "value": torch.rand(4, 3)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[..., :3]


class TestNewFormats:
    def test_beside_a_module_that_keeps_its_own(self) -> None:
        """Other layers get new formats; what a declared module was told stays as it is."""
        network = nn.Sequential(
            NeuronLikeInFixedPoint(), nn.Linear(3, 2), neuron.IFNode(step_mode="m")
        )
        x = (torch.rand(4, 2, 4) > 0.5).float()
        plan = QuantizationPlan.uniform(8)
        first = calibrate(network, plan.resolve(network, x), x)
        attach(network, first)
        told = network[0].told
        finer = QuantizationPlan.uniform(
            8, rules=[{"layers": "1", "role": "weight", "format": "Q1.20"}]
        )
        float_network = detach(copy.deepcopy(network))
        second = calibrate(float_network, finer.resolve(float_network, x), x)
        reattach(network, second)
        assert network[0].told is told
        assert is_attached(network)
        step = 2.0**-20
        weight = dict(quantized_parameters(network))["1.weight"].double()
        assert torch.equal((weight / step).round() * step, weight)
        assert not torch.equal((weight * 128).round() / 128, weight)
