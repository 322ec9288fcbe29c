"""Signs and ternary weights: the formats that are chosen, and networks that learn with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

from qspinn.callbacks import InTrainingQuantization
from qspinn.fixed_point import FixedPointFormat, parse_format
from qspinn.plan import QuantizationPlan, ResolvedPlan
from qspinn.quantizers import attach, calibrate, detach, integer_codes, plan_of
from tests.callbacks.harness import fit
from tests.export.random_networks import SHORT

X = (torch.rand(6, 4, 12, generator=torch.Generator().manual_seed(0)) < 0.4).float()


def network() -> nn.Sequential:
    """Channels of very different weights."""
    torch.manual_seed(0)
    made = nn.Sequential(layer.Linear(12, 5), neuron.LIFNode(), layer.Linear(5, 3), neuron.IFNode())
    with torch.no_grad():
        made[0].weight.mul_(torch.tensor([[0.2], [1.0], [3.0], [0.7], [1.3]]))
    functional.set_step_mode(made, "m")
    return made


def calibrated(weights: str, **settings: Any) -> ResolvedPlan:
    plan = QuantizationPlan.uniform(5, roles={"weight": SHORT[weights]}, **settings)
    return calibrate(network(), plan.resolve(network(), X), X)


def error(values: Tensor, numbers: list[float]) -> float:
    """Of the nearest of some numbers."""
    return float((values[..., None] - torch.tensor(numbers)).square().amin(-1).sum())


@pytest.mark.parametrize("weights", SHORT)
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_the_step_of_least_error_is_chosen(weights: str, granularity: str) -> None:
    fmt = calibrated(weights, granularity=granularity).of_layer("0")["weight"].format
    assert fmt is not None
    assert fmt.symmetric
    rows = network()[0].weight.detach()
    formats = fmt.formats if granularity == "channel" else (fmt,)  # type: ignore[union-attr]
    for one, values in zip(formats, rows if len(formats) > 1 else [rows], strict=True):
        zero = [] if weights == "signs" else [0.0]
        errors = [error(values, [-(2.0**n), *zero, 2.0**n]) for n in range(-8, 3)]
        assert errors[one.fraction_bits * -1 + 8] == min(errors)


@pytest.mark.parametrize("weights", SHORT)
def test_units_let_weights_lose_less(weights: str) -> None:
    lost = []
    for scale in ("power_of_two", "free"):
        made, plan = network(), calibrated(weights, scale=scale, granularity="channel")
        unit = plan.units["1"].tensor[:, None] if scale == "free" else 1.0
        exact = made[0].weight.detach().double()
        attach(made, plan)
        codes = integer_codes(made)["0.weight"]
        detach(made)
        assert codes.format.symmetric
        steps = torch.tensor([one.step for one in codes.format.formats])  # type: ignore[union-attr]
        held = codes.codes.double() * steps[:, None].double() * unit
        lost.append(float((held - exact).square().sum()))
    assert lost[1] < lost[0]


@pytest.mark.parametrize("text", ["SQ-2.2", "SQ-1.2", "SQ-2.2|SQ-1.1|SQ0.0|SQ0.0|SQ-3.3 @0"])
def test_formats_that_are_written_down(text: str) -> None:
    rule = {"layers": "0", "role": "weight", "format": text}
    made = network()
    plan = QuantizationPlan.uniform(5, rules=[rule]).resolve(made, X)
    attach(made, calibrate(made, plan, X))
    held = integer_codes(made)["0.weight"]
    assert held.format == parse_format(text)
    assert set(held.codes.unique().tolist()) <= {-1, 0, 1}
    assert made(X).shape == (6, 4, 3)


@pytest.mark.few(0.25)
@pytest.mark.parametrize("scale", ["power_of_two", "free"])
@pytest.mark.parametrize("weights", SHORT)
def test_networks_learn_with_them(tmp_path: Path, weights: str, scale: str) -> None:
    """With batch norms, whose folded weights the formats follow."""
    plan = QuantizationPlan.uniform(
        6, roles={"weight": SHORT[weights]}, scale=scale, granularity="channel"
    )
    callback = InTrainingQuantization(plan)
    _, fitted = fit(tmp_path, "sequential", callback, max_epochs=2)
    resolved = plan_of(fitted)
    held = integer_codes(fitted)
    named = {one.path for one in resolved.tensors if one.role == "weight"}
    assert named
    for path in named:
        assert held[path].format.symmetric
        wanted = {-1, 1} if weights == "signs" else {-1, 0, 1}
        assert set(held[path].codes.unique().tolist()) <= wanted
        parameter = fitted.get_parameter(path)
        assert bool(torch.isfinite(parameter).all())
        assert parameter.grad is None or bool(torch.isfinite(parameter.grad).all())


def test_both_signs_get_gradients() -> None:
    made, plan = network().train(), calibrated("signs")
    attach(made, plan)
    made(X).sum().backward()
    parameter: Any = made[0].weight
    fmt = plan.of_layer("0")["weight"].format
    assert isinstance(fmt, FixedPointFormat)
    inside = parameter.abs() < 2 * fmt.step
    assert not bool(inside.all())
    for sign in (parameter < 0, parameter >= 0):
        assert bool((parameter.grad[inside & sign] != 0).any())


@pytest.mark.few(0.2)
@pytest.mark.parametrize("text", ["SQ-2.2", "SQ3.-3", "SQ-2.2|SQ-1.1|SQ0.0|SQ1.-1|SQ-3.3 @0"])
def test_a_batch_norm_sees_outputs_of_the_size_of_the_weights(text: str) -> None:
    """Whatever the step is: else its statistics would follow themselves, batch after batch."""
    linear, norm = network()[0], layer.BatchNorm1d(5)
    made = nn.Sequential(linear, norm, neuron.IFNode())
    functional.set_step_mode(made, "m")
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -1.0, 0.0, 2.0, 0.1]))
    rule = {"layers": "0", "role": "weight", "format": text}
    plan = QuantizationPlan.uniform(5, rules=[rule]).resolve(made.eval(), X)
    attach(made, calibrate(made, plan, X))
    weight = linear.weight.detach()
    signs = torch.where(weight * torch.tensor([1.0, -1.0, 1, 1, 1])[:, None] < 0, -1.0, 1.0)
    signs *= torch.tensor([1.0, -1.0, 1, 1, 1])[:, None]
    wanted = (X @ (signs * weight.abs().mean(1, keepdim=True)).T).flatten(0, 1).var(0)
    made.train()
    for _ in range(200):
        made(X)
        functional.reset_net(made)
    assert torch.allclose(norm.running_var, wanted, rtol=1e-3)
