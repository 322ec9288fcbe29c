"""I-LIF: spikes are whole numbers, in float, on grids, and in codes."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numba import njit
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn

import qspinn.steps.targets.numba  # noqa: F401  (lets compiled functions call steps)
from qspinn.plan import QuantizationPlan, footprint
from qspinn.quantizers import attach, calibrate
from qspinn.steps.neurons import counted
from tests.reference.fixed_point import limited, rounded

STEPS, MOST = 6, 4


@njit
def compiled(h, threshold, most):
    return counted(h, threshold, most)


@given(st.integers(-300, 300), st.integers(1, 60), st.integers(1, 9))
def test_counts_as_rounding_halves_to_even_does(h: int, threshold: int, most: int) -> None:
    expected = min(max(round(Fraction(h, threshold)), 0), most)
    assert counted(h, threshold, most) == expected
    assert compiled(h, threshold, most) == expected
    codes = torch.tensor([h]), torch.tensor([threshold])
    assert counted(*codes, most).tolist() == [expected]
    function = surrogate.MultiLevelSpikeCount(most)
    assert function(codes[0].double() / codes[1]).tolist() == [expected]


def network(threshold: float) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in ((5, 8), (8, 3)):
        layers.append(nn.Linear(inputs, outputs))
        function = surrogate.MultiLevelSpikeCount(MOST)
        layers.append(neuron.ILIFNode(2.0, threshold, function))
    for layer in layers[::2]:
        with torch.no_grad():
            layer.weight.mul_(3.0)  # type: ignore[union-attr,operator]
    return nn.Sequential(*layers)


def prepared(rounding: str, threshold: float = 1.0) -> tuple[nn.Sequential, Any, Tensor]:
    net = network(threshold).eval()
    x = torch.randint(0, 3, (STEPS, 4, 5)).float()

    def run() -> None:
        functional.reset_net(net)
        for one in x:
            net(one)
        functional.reset_net(net)

    plan = calibrate(net, QuantizationPlan.uniform(8, rounding).resolve(net, x[0]), run)
    attach(net, plan)
    return net, plan, x


def on_grid(value: Fraction, tensor: Any) -> Fraction:
    fmt, step = tensor.format, Fraction(tensor.format.step)
    code = rounded(value / step, tensor.rounding)
    return limited(code, fmt.code_min, fmt.code_max, tensor.overflow) * step


def twin(net: nn.Sequential, plan: Any, x: Tensor) -> list[list[list[int]]]:
    """The spikes of the last layer in exact rationals, ``[T, N, 3]``."""
    states: dict[tuple[int, int, int], Fraction] = {}
    outputs = []
    for step in x:
        rows = []
        for n, row in enumerate(step.tolist()):
            values = [Fraction(one) for one in row]
            for index in (0, 2):
                held = plan.of_layer(str(index))
                node = plan.of_layer(str(index + 1))
                values = [on_grid(one, held["input"]) for one in values]
                layer: Any = net[index]
                k = on_grid(Fraction(1, 2), node["decay"])
                threshold = on_grid(Fraction(net[index + 1].v_threshold), node["v_threshold"])
                fired = []
                for j, weights in enumerate(layer.weight.tolist()):
                    w = [on_grid(Fraction(one), held["weight"]) for one in weights]
                    current = sum((a * b for a, b in zip(w, values, strict=True)), Fraction(0))
                    current += on_grid(Fraction(layer.bias[j].item()), held["bias"])
                    v = states.get((index, n, j), Fraction(0))
                    h = on_grid(v + current - k * v, node["v"])
                    count = min(max(round(h / threshold), 0), MOST)
                    states[index, n, j] = h - count * threshold
                    fired.append(count)
                values = [Fraction(one) for one in fired]
            rows.append([int(one) for one in values])
        outputs.append(rows)
    return outputs


@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize("rounding", ["nearest", "truncate"])
@pytest.mark.parametrize("threshold", [1.0, 0.75])
def test_equals_exact_rationals(step_mode: str, rounding: str, threshold: float) -> None:
    net, plan, x = prepared(rounding, threshold)
    expected = twin(net, plan, x)
    functional.reset_net(net)
    with torch.no_grad():
        if step_mode == "m":
            functional.set_step_mode(net, "m")
            spikes = net(x)
        else:
            spikes = torch.stack([net(one) for one in x])
    assert spikes.tolist() == expected
    seen = {count for step in expected for row in step for count in row}
    assert len(seen) > 2, "counts above 1 are what this is about"


def test_is_understood_and_counted() -> None:
    net, plan, _ = prepared("nearest")
    layers = {layer.path: layer for layer in plan.inventory.layers}
    assert layers["1"].charge == "ilif"
    assert "input" in plan.of_layer("2"), "counts are no bits: they have a format"
    assert footprint(net, plan).inference_bits > 0
    assert not plan.inventory.notes
    loss = net(torch.rand(4, 5) * 3).sum()
    loss.backward()
    assert net[0].weight.grad is not None  # type: ignore[union-attr]


def test_another_function_is_rounded_after_its_step() -> None:
    class Own(surrogate.MultiLevelSpikeCount):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2

    net = nn.Sequential(nn.Linear(3, 2), neuron.ILIFNode(surrogate_function=Own(2)))
    resolved = QuantizationPlan.uniform(8).resolve(net, torch.rand(2, 3))
    assert resolved.inventory.layer("1").charge == "fallback"
