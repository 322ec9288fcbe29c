"""What is quantised, what stays in float and why, what is tied, and what is left out."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

from qspinn.plan import QuantizationPlan, ResolvedPlan, footprint, summary_of
from qspinn.quantizers import attach, calibrate, quantized_parameters

X = torch.rand(4, 6)


class Mixed(nn.Module):
    """A norm after an addition; everything else is understood."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.norm = nn.Linear(6, 5), nn.Linear(6, 5), nn.BatchNorm1d(5)
        self.node, self.last = neuron.LIFNode(), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Any:
        return self.last(self.node(self.norm(self.left(x) + self.right(x))))


def test_shares_and_reasons() -> None:
    plan = QuantizationPlan.uniform(8).resolve(Mixed().eval(), X)
    summary = plan.summary()
    quantised = 2 * (6 * 5 + 5) + (5 * 2 + 2) + 2  # weights, biases, threshold, decay
    assert (summary.parameters.quantized, summary.parameters.total) == (quantised, quantised + 20)
    assert (summary.states.quantized, summary.states.total) == (5, 5)
    (left,) = summary.left
    assert (left.layers, left.values, left.is_choice) == (("norm",), 20, False)
    (passing,) = summary.off_grid
    assert (passing.what, passing.layers) == ("batch norm that is not folded", ("norm",))
    assert not summary.is_as_planned
    assert summary.lines()[0] == "quantised: 80.7% of the parameters, 100% of the states"
    assert any("20 values" in line and "norm" in line for line in summary.lines())
    assert footprint(Mixed(), plan).summary == summary
    assert ResolvedPlan.from_dict(plan.to_dict()).summary() == summary


def test_without_a_plan_nothing_is_quantised() -> None:
    plan = QuantizationPlan.uniform(8).resolve(Mixed().eval(), X)
    summary = summary_of(plan.inventory)
    assert summary.parameters.quantized == summary.states.quantized == 0
    assert summary.parameters.total == plan.summary().parameters.total


def test_what_the_plan_leaves_in_float_is_no_surprise() -> None:
    network = nn.Sequential(nn.Linear(6, 5), neuron.LIFNode(), nn.Linear(5, 2)).eval()
    plan = QuantizationPlan.from_rules([{"role": "weight", "word_length": 8}])
    resolved = calibrate(network, plan.resolve(network, X), X)
    summary = resolved.summary()
    assert summary.is_as_planned
    assert all(left.is_choice for left in summary.left)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attach(network, resolved)


def test_what_stays_in_float_is_warned_of_once() -> None:
    network = Mixed().eval()
    plan = calibrate(network, QuantizationPlan.uniform(8).resolve(network, X), X)
    with pytest.warns(UserWarning, match="not all of the network is in fixed point") as said:
        attach(network, plan)
    assert len(said) == 1
    assert said[0].filename == __file__


def test_at_most_ten_lines_the_longest_first() -> None:
    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.node = nn.Linear(6, 6), neuron.IFNode()
            kinds = [type(f"Kind{n}", (nn.LayerNorm,), {}) for n in range(15)]
            self.norms = nn.ModuleList(kind(6) for kind in kinds)
            self.extra = nn.Embedding(100, 6)

        def forward(self, x: Tensor) -> Any:
            x = self.first(x) + self.extra.weight[0]
            for norm in self.norms:
                x = norm(x)
            return self.node(x)

    summary = QuantizationPlan.uniform(8).resolve(Many().eval(), X).summary()
    lines = summary.lines()
    assert len(lines) == 10
    assert "600 values" in lines[1]
    values = [left.values for left in summary.left]
    assert values == sorted(values, reverse=True)
    assert lines[-1].startswith("and ")


OFF_GRID = {
    "average over 9 values": lambda m, h: nn.functional.avg_pool1d(h.repeat(1, 3), 9),
    "sigmoid": lambda m, h: torch.sigmoid(h),
    "softmax": lambda m, h: h.softmax(-1),
    "layer norm": lambda m, h: nn.functional.layer_norm(h, (6,)),
    "linear interpolation": lambda m, h: nn.functional.interpolate(
        h[:, None], scale_factor=2.0, mode="linear"
    )[:, 0],
    "scaling by 0.3": lambda m, h: h * 0.3,
    "scaling by 0.3536": lambda m, h: h * 8**-0.5,
    "division by 3": lambda m, h: h / 3,
    "addition of 0.1": lambda m, h: h + 0.1,
    "parameters that no layer quantises": lambda m, h: h * m.gain,
    "exp": lambda m, h: h.exp(),
}
ON_GRID = {
    "average over 4": lambda m, h: nn.functional.avg_pool1d(h.repeat(1, 2), 4),
    "one value a window": lambda m, h: nn.functional.adaptive_avg_pool1d(h, 12),
    "maximum": lambda m, h: nn.functional.max_pool1d(h, 2),
    "half": lambda m, h: h * 0.5,
    "quarter": lambda m, h: h / 4,
    "sum": lambda m, h: h + h.flip(0),
    "nearest": lambda m, h: nn.functional.interpolate(h[:, None], scale_factor=2.0)[:, 0],
    "relu": lambda m, h: nn.functional.relu(h),
    "index": lambda m, h: h[:, [0, 2, 1]],
    "product": lambda m, h: h * h,
}


class Between(nn.Module):
    def __init__(self, between: Any) -> None:
        super().__init__()
        self.first, self.node, self.between = nn.Linear(6, 6), neuron.IFNode(), between
        self.gain = nn.Parameter(torch.full((6,), 1.5))

    def forward(self, x: Tensor) -> Any:
        return self.node(self.between(self, self.first(x)))


@pytest.mark.parametrize("what", OFF_GRID)
def test_what_leads_off_the_grid_is_named(what: str) -> None:
    found = QuantizationPlan.uniform(8).resolve(Between(OFF_GRID[what]).eval(), X).summary()
    assert [passing.what for passing in found.off_grid] == [what]
    assert found.off_grid[0].layers == ("",)
    assert any(f"on no grid: {what}: the module itself" in line for line in found.lines())


@pytest.mark.parametrize("what", ON_GRID)
def test_what_stays_on_the_grid_is_not(what: str) -> None:
    found = QuantizationPlan.uniform(8).resolve(Between(ON_GRID[what]).eval(), X).summary()
    assert found.off_grid == ()


def test_what_follows_the_last_layer_is_no_value_between_layers() -> None:
    class Head(Between):
        def forward(self, x: Tensor) -> Any:
            return self.node(self.first(x)).softmax(-1)

    assert QuantizationPlan.uniform(8).resolve(Head(None).eval(), X).summary().off_grid == ()


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.node, self.last = nn.Linear(6, 6), neuron.IFNode(), nn.Linear(6, 6)
        self.last.weight, self.last.bias = self.first.weight, self.first.bias

    def forward(self, x: Tensor) -> Any:
        return self.last(self.node(self.first(x)))


class TestTiedWeights:
    @pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
    def test_are_counted_once(self, rounding: str) -> None:
        network = Tied().eval()
        plan = QuantizationPlan.uniform(4, rounding).resolve(network, X)
        plan = calibrate(network, plan, X)
        found = footprint(network, plan)
        assert found.by_role["weight"] == 4 * 36
        assert found.baseline_by_role["weight"] == 32 * 36
        assert plan.summary().parameters.total == 36 + 6 + 1
        attach(network, plan)
        stored = dict(quantized_parameters(network))
        assert torch.equal(stored["first.weight"], stored["last.weight"])
        assert torch.equal(stored["first.bias"], stored["last.bias"])

    def test_in_two_formats_are_stored_twice(self) -> None:
        network = Tied().eval()
        rule = {"layers": "last", "role": "weight", "word_length": 4}
        plan = QuantizationPlan.uniform(8, rules=[rule]).resolve(network, X)
        found = footprint(network, calibrate(network, plan, X))
        assert found.by_role["weight"] == (8 + 4) * 36
        assert found.baseline_by_role["weight"] == 32 * 36

    def test_of_which_one_has_a_norm_folded_in_are_two(self) -> None:
        network = nn.Sequential(
            nn.Linear(6, 6, bias=False), neuron.IFNode(), nn.Linear(6, 6, bias=False)
        )
        network.append(nn.BatchNorm1d(6))
        network[2].weight = network[0].weight
        plan = QuantizationPlan.uniform(8).resolve(network.eval(), X)
        assert footprint(network, plan).by_role["weight"] == 2 * 8 * 36

    def test_a_second_use_in_a_functional_is_named(self) -> None:
        class Functional(Tied):
            def forward(self, x: Tensor) -> Any:
                return nn.functional.linear(self.node(self.first(x)), self.first.weight.t())

        plan = QuantizationPlan.uniform(8).resolve(Functional().eval(), X)
        (note,) = [note for note in plan.inventory.notes if "first.weight" in note]
        assert "outside of its layer" in note
        assert note in plan.summary().lines()


class Distilled(nn.Module):
    def __init__(self, calls_teacher: bool) -> None:
        super().__init__()
        self.student = nn.Sequential(nn.Linear(6, 5), neuron.LIFNode(), nn.Linear(5, 2))
        self.teacher = nn.Sequential(nn.Linear(6, 50), nn.ReLU(), nn.Linear(50, 2))
        self.calls_teacher = calls_teacher

    def forward(self, x: Tensor) -> Any:
        if self.calls_teacher:
            self.teacher(x)
        return self.student(x)


@pytest.mark.parametrize("calls_teacher", [False, True])
class TestATeacher:
    def test_stays_in_float_by_a_rule(self, calls_teacher: bool) -> None:
        rule = {"layers": "teacher.*", "format": "float32"}
        network = Distilled(calls_teacher).eval()
        plan = QuantizationPlan.uniform(8, rules=[rule]).resolve(network, X)
        found = footprint(network, plan)
        teacher = sum(p.numel() for p in network.teacher.parameters())
        counted = sum(b for path, b in found.by_tensor.items() if path.startswith("teacher."))
        assert counted == 32 * teacher
        assert not any(t.path.startswith("teacher.") for t in plan.tensors)

    def test_is_left_out_by_a_rule(self, calls_teacher: bool) -> None:
        rule = {"layers": "teacher.*", "format": "excluded"}
        network = Distilled(calls_teacher).eval()
        plan = QuantizationPlan.uniform(8, rules=[rule]).resolve(network, X)
        found = footprint(network, plan)
        assert not any(path.startswith("teacher.") for path in found.by_tensor)
        assert found.reduction == 4.0
        assert not plan.summary().left
        assert not plan.summary().off_grid
        again = ResolvedPlan.from_dict(plan.to_dict())
        assert footprint(network, again).by_tensor == found.by_tensor


def test_a_rule_that_leaves_out_nothing_is_an_error() -> None:
    for fmt in ("float32", "excluded"):
        with pytest.raises(ValueError, match=r"teach\.\*.*matches no layer"):
            QuantizationPlan.uniform(8, rules=[{"layers": "teach.*", "format": fmt}]).resolve(
                Distilled(False).eval(), X
            )
    with pytest.raises(ValueError, match=r"excluded.* disagree"):
        QuantizationPlan.uniform(8, rules=[{"format": "excluded", "word_length": 4}])
