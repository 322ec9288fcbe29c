"""Which layers may count in a unit of their own, why others may not, and what it costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spikingjelly.activation_based import layer, neuron
from torch import Tensor, nn

from qspinn.fixed_point import FixedPointFormat
from qspinn.networks import ConvSNN
from qspinn.plan import QuantizationPlan, ResolvedPlan, footprint_of
from qspinn.plan.units import Unit
from tests.plan.networks import spikes

X = spikes(2, 4)
ELSEWHERE = "its sums do not go to one layer of neurons alone, unchanged"


def resolved(network: nn.Module, x: Tensor = X, **settings: Any) -> ResolvedPlan:
    return QuantizationPlan.uniform(4, scale="free", **settings).resolve(network, x)


class Wired(nn.Module):
    """Two linear layers and their neurons, wired by a subclass."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.one, self.other = neuron.LIFNode(), neuron.LIFNode()


class Plain(Wired):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.other(self.b(self.one(self.a(x))))
        return y


class Kept(Wired):
    """Whose second sum is also its output."""

    def forward(self, x: Tensor) -> Tensor:
        sums = self.b(self.one(self.a(x)))
        y: Tensor = self.other(sums) + sums.mean()
        return y


class Added(Wired):
    """In which two layers feed one."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.other(self.b(self.one(x)) + self.a(x))
        return y


class Turned(Wired):
    """Whose second layer of neurons gets its sums turned."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.other(self.b(self.one(self.a(x))).transpose(-1, -2))
        return y


class Readout(Wired):
    """Which ends with sums."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.one(self.a(x)))
        return y


def test_each_layer_whose_sums_go_to_neurons_alone_has_a_unit() -> None:
    found = resolved(Plain()).scaled
    assert {path: one.synapse for path, one in found.items()} == {"one": "a", "other": "b"}
    assert all((one.channels, one.axis, one.below) == (1, -1, True) for one in found.values())


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_channels_of_convolutions(batch_norm: bool, step_mode: str) -> None:
    network = ConvSNN(channels=(3, 5), kernel_sizes=3, hidden=6, batch_norm=batch_norm)
    network.step_mode = step_mode
    from spikingjelly.activation_based import functional

    functional.set_step_mode(network, step_mode)
    found = resolved(network, torch.rand(2, 1, 28, 28), granularity="channel").scaled
    assert [(one.channels, one.axis) for one in found.values()] == [
        (3, -3),
        (5, -3),
        (6, -1),
        (40, -1),
    ]


@pytest.mark.parametrize(
    ("network", "x", "refused"),
    [
        (Kept(), X, f"b: {ELSEWHERE}"),
        (Added(), X, f"a, b: {ELSEWHERE}"),
        (
            Turned(),
            spikes(2, 4, 4),
            f"b: {ELSEWHERE}",
        ),
        (Readout(), X, f"b: {ELSEWHERE}"),
    ],
    ids=["kept", "added", "turned", "readout"],
)
def test_others_stay_with_powers_of_two_and_say_why(
    network: nn.Module, x: Tensor, refused: str
) -> None:
    plan = resolved(network, x)
    assert set(plan.scaled) <= {"one"}
    (line,) = plan.summary().units
    assert refused in line
    assert line in plan.summary().lines()


def test_neurons_without_a_formula() -> None:
    plan = resolved(nn.Sequential(nn.Linear(4, 4), neuron.IzhikevichNode()))
    assert plan.scaled == {}
    assert "do not fire by a formula that is known" in plan.summary().units[0]


def test_neurons_that_begin_elsewhere_than_at_rest() -> None:
    node = neuron.IFNode()
    node.set_reset_value("v", 0.25)
    node.reset()
    assert resolved(nn.Sequential(nn.Linear(4, 4), node)).scaled == {}


def test_layers_that_share_their_weights() -> None:
    network = Plain()
    network.b.weight = network.a.weight
    plan = resolved(network)
    assert plan.scaled == {}
    assert "shares its weights" in plan.summary().units[0]


def test_a_format_that_is_written_down_is_kept() -> None:
    plan = resolved(Plain(), rules=[{"layers": "a", "role": "weight", "format": "Q1.2"}])
    assert set(plan.scaled) == {"other"}
    assert "writes down" in plan.summary().units[0]


def test_only_where_the_plan_asks() -> None:
    rules = [{"layers": "b", "role": "weight", "word_length": 4, "scale": "free"}]
    plan = QuantizationPlan.uniform(4, rules=rules).resolve(Plain(), X)
    assert set(plan.scaled) == {"other"}
    assert not plan.scaled["other"].below
    assert plan.summary().units == ()
    assert QuantizationPlan.uniform(4).resolve(Plain(), X).scaled == {}


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("v_reset", [0.0, 0.5, None])
def test_thresholds_and_rest_are_counted(granularity: str, v_reset: float | None) -> None:
    network = nn.Sequential(layer.Conv2d(1, 3, 3), neuron.IFNode(v_reset=v_reset))
    plan = resolved(network, spikes(2, 1, 5, 5), granularity=granularity)
    found = footprint_of(plan.inventory, plan)
    thresholds = 3 if granularity == "channel" else 1
    assert found.by_tensor["1.v_threshold"] == 4 * thresholds
    # A hard reset sets the potential to rest, which lies where the membrane wants it.
    assert found.by_tensor.get("1.v_reset") == (None if v_reset is None else 4)
    rest = 0 if v_reset in (None, 0.0) else 1
    assert found.baseline_by_role == {
        "bias": 32 * 3,
        "membrane": 32 * (27 + rest),
        "threshold": 32,
        "weight": 32 * 27,
    }


def test_units_in_plain_types() -> None:
    units = {"one": Unit((0.1, 0.3), -4.0), "other": Unit((1e-9 / 3,))}
    plan = resolved(Plain()).with_units(units)
    again = ResolvedPlan.from_dict(plan.to_dict())
    assert again.units == plan.units
    found = again.unit_of("a")
    assert found is not None
    assert found[1] == Unit((0.1, 0.3), -4.0)
    assert again.unit_of("elsewhere") is None


@pytest.mark.parametrize("scale", [(), (0.0,), (1.0, -2.0), (float("inf"),), (float("nan"),)])
def test_scales_that_are_no_sizes(scale: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="write positive numbers"):
        Unit(scale)


def test_an_unknown_scale() -> None:
    with pytest.raises(ValueError, match="scale='fine'; write one of power_of_two, free"):
        QuantizationPlan.uniform(4, scale="fine")


@pytest.mark.parametrize(
    "text", ["", "0.1", "0.1 rest", "a rest 0.0", "0.1| rest 0.0", "-1.0 rest 0"]
)
def test_text_that_is_no_unit(text: str) -> None:
    with pytest.raises(ValueError, match="write such as"):
        Unit.parse(text)


def test_what_a_record_says() -> None:
    plan = resolved(Plain(), granularity="channel")
    units = {"one": Unit((0.1, 0.3, 0.7, 1.0), -4.0), "other": Unit((0.2,) * 4)}
    formats = {one.path: FixedPointFormat(2, 1) for one in plan.tensors}
    said = plan.with_formats(formats).with_units(units).formats()
    assert said["a.weight"]["unit"] == "0.1|0.3|0.7|1.0 rest -4.0"
    assert "unit" not in said["one.v"]
    again = plan.with_recorded(said)
    assert again.is_calibrated
    assert again.units == units
    assert not plan.with_formats(formats).is_calibrated


def test_what_another_version_has_recorded() -> None:
    plan = resolved(Plain())
    formats = {one.path: FixedPointFormat(2, 1) for one in plan.tensors}
    said = plan.with_formats(formats).formats()
    with pytest.raises(ValueError, match="counts one in a unit of its own"):
        plan.with_recorded(said)
    plain = QuantizationPlan.uniform(4).resolve(Plain(), X)
    assert plain.with_recorded(said).is_calibrated
    said["a.weight"]["unit"] = "0.1 rest 0.0"
    with pytest.raises(ValueError, match="other layers in units"):
        plain.with_recorded(said)
    del said["a.bias"]
    with pytest.raises(ValueError, match=r"other tensors, such as a\.bias"):
        plain.with_recorded(said)
