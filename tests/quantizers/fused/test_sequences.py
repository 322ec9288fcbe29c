"""Whole sequences in one operation: equal to single steps, which never go that way."""

from __future__ import annotations

import copy
import logging
import math
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from qspinn.fixed_point import OVERFLOWS, ROUNDINGS
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import LearnedSteps, attach, calibrate
from qspinn.quantizers.fused import sequence

NODES: dict[str, Any] = {
    "if": neuron.IFNode,
    "lif": lambda **how: neuron.LIFNode(tau=3.0, **how),
    "lif, no input decay": lambda **how: neuron.LIFNode(decay_input=False, **how),
    "plif": neuron.ParametricLIFNode,
    "plif, no input decay": lambda **how: neuron.ParametricLIFNode(decay_input=False, **how),
}
SURROGATES = (surrogate.ATan(), surrogate.Sigmoid(), surrogate.PiecewiseQuadratic())
SIZE = 11


def network(node: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(layer.Linear(5, SIZE), node)
    with torch.no_grad():
        net[0].weight.mul_(3)
    return net


def currents(steps: int = 4, batch: int = 100) -> Tensor:
    x = torch.randint(0, 3, (steps, batch, 5), generator=torch.Generator().manual_seed(1))
    return x.float()


def attached(node: nn.Module, bits: int = 6, by_step: bool = False, **how: Any) -> nn.Sequential:
    net, x = network(node), currents()
    x = x.flatten(0, 1) if by_step else x
    functional.set_step_mode(net, "s" if by_step else "m")
    net = attach(net, calibrate(net, QuantizationPlan.uniform(bits, **how).resolve(net, x), x))
    functional.set_step_mode(net, "m")
    return net


def outputs(net: nn.Module, x: Tensor, step_mode: str) -> Tensor:
    functional.set_step_mode(net, step_mode)
    return net(x) if step_mode == "m" else torch.stack([net(one) for one in x])


def is_one_operation(spikes: Tensor) -> bool:
    return type(spikes.grad_fn).__name__ == "_SteppedBackward"


def results(net: nn.Sequential, x: Tensor, step_mode: str) -> tuple[list[Tensor], list[Tensor]]:
    """What two sequences give that follow each other, and the gradients."""
    functional.reset_net(net)
    net.zero_grad()
    torch.manual_seed(3)
    x = x.clone().requires_grad_()
    first = outputs(net, x, step_mode)
    between = net[1].v
    second = outputs(net, x.flip(1), step_mode)
    assert is_one_operation(second) == (step_mode == "m")
    found = [first, between, second, net[1].v]
    weighed = torch.linspace(0, 1, second.numel()).view_as(second) * second
    (first.sum() + weighed.sum() + net[1].v.square().sum()).backward()
    learned = [x.grad, *(p.grad for p in net.parameters())]
    functional.reset_net(net)
    assert all(one is not None and bool(one.any()) for one in learned)
    return [one.detach() for one in found], learned  # type: ignore[return-value]


def assert_same(net: nn.Sequential, x: Tensor) -> None:
    (fused, gradients), (stepped, expected) = results(net, x, "m"), results(net, x, "s")
    for one, other in zip(fused, stepped, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(
    name=st.sampled_from(sorted(NODES)),
    reset=st.sampled_from([0.0, 0.25, None]),
    detached=st.booleans(),
    gradient=st.sampled_from(SURROGATES),
    bits=st.sampled_from([4, 6, 8, 16]),
    rounding=st.sampled_from(ROUNDINGS),
    overflow=st.sampled_from(OVERFLOWS),
    steps=st.integers(1, 6),
)
def test_equal_single_steps(
    name: str,
    reset: float | None,
    detached: bool,
    gradient: nn.Module,
    bits: int,
    rounding: str,
    overflow: str,
    steps: int,
) -> None:
    """16 bits are computed in float64."""
    node = NODES[name](v_reset=reset, detach_reset=detached, surrogate_function=gradient)
    membrane = {"rounding": rounding, "word_length": bits}
    net = attached(node, bits, overflow=overflow, roles={"membrane": membrane})
    assert_same(net, currents(steps, 4096 // (steps * SIZE) + 1))


@pytest.mark.parametrize("left", [("weight", "bias"), ("threshold", "decay")])
def test_what_stays_in_float(left: tuple[str, str]) -> None:
    net = attached(neuron.LIFNode(tau=3.3), roles={role: {"format": "float32"} for role in left})
    assert_same(net, currents())


@pytest.mark.parametrize("rounding", ["truncate", "nearest"])
def test_steps_above_1(rounding: str) -> None:
    roles = {"membrane": {"format": "Q6.-1", "rounding": rounding}}
    node = neuron.LIFNode(v_threshold=8.0, detach_reset=True)
    net, x = network(node), currents()
    functional.set_step_mode(net, "m")
    with torch.no_grad():
        net[0].weight.mul_(8)
    plan = QuantizationPlan.uniform(8, roles=roles).resolve(net, x)
    assert_same(attach(net, calibrate(net, plan, x)), x)


@pytest.mark.parametrize("reset", [0.0, None])
@pytest.mark.parametrize("detached", [True, False])
def test_constants_per_channel_that_learn(reset: float | None, detached: bool) -> None:
    node = neuron.ParametricLIFNode(
        v_reset=reset, detach_reset=detached, surrogate_function=surrogate.Rect()
    )
    del node.v_threshold
    node.v_threshold = nn.Parameter(torch.linspace(0.5, 1.5, SIZE))
    node.w = nn.Parameter(torch.linspace(-1.0, 1.0, SIZE))
    assert_same(attached(node, 8, by_step=True), currents())


@pytest.mark.parametrize("kind", ["one", "channel"])
def test_one_constant_for_all_and_one_per_channel(kind: str) -> None:
    node = neuron.LIFNode(surrogate_function=surrogate.Rect())
    if kind == "one":
        del node.v_threshold
        node.v_threshold = nn.Parameter(torch.tensor([0.8]))
    node.tau = torch.linspace(1.5, 4.0, SIZE)
    assert_same(attached(node, 8, by_step=True), currents())


def test_any_layout_in_memory() -> None:
    net = attached(neuron.LIFNode())
    x = currents(100, 4).transpose(0, 1)
    assert_same(net, x)
    functional.set_step_mode(net, "m")
    spikes = net[1](net[0](x).transpose(1, 2).contiguous().transpose(1, 2))
    functional.reset_net(net)
    assert torch.equal(spikes, outputs(net, x, "s"))


@pytest.mark.parametrize("strange", [math.nan, math.inf])
@pytest.mark.parametrize("overflow", OVERFLOWS)
def test_what_is_no_number(strange: float, overflow: str) -> None:
    net = attached(neuron.LIFNode(), overflow=overflow, roles={"weight": {"format": "float32"}})
    x = currents()
    x[1, 3] = strange
    found = []
    for step_mode in "ms":
        functional.reset_net(net)
        with torch.no_grad():
            found.append((outputs(net, x, step_mode), net[1].v))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_on_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws are numbered by neuron, whichever thread takes them."""
    net = attached(neuron.ParametricLIFNode(), 8, roles={"membrane": {"rounding": "stochastic"}})
    expected = results(net, currents(), "m")
    monkeypatch.setattr(sequence, "ENOUGH", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for one, other in zip(results(net, currents(), "m"), expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_without_gradients() -> None:
    net = attached(neuron.LIFNode(), 8)
    expected = results(net, currents(), "s")[0][0]
    for mode in (torch.no_grad, torch.inference_mode):
        functional.reset_net(net)
        with mode():
            assert torch.equal(outputs(net, currents(), "m"), expected)


def test_copies_and_pickles() -> None:
    net = attached(neuron.LIFNode(), 8)
    expected = results(net, currents(), "m")
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        for one, other in zip(results(twin, currents(), "m"), expected, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_has_no_second_derivative() -> None:
    net = attached(neuron.LIFNode(), 8)
    x = currents().requires_grad_()
    (gradient,) = torch.autograd.grad(outputs(net, x, "m").sum(), x, create_graph=True)
    with pytest.raises(
        RuntimeError, match=r"no second derivative; .*set_step_mode\(network, 's'\)"
    ):
        gradient.sum().backward()


def test_says_once_what_steps_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    net = attached(neuron.LIFNode(), 18)
    with caplog.at_level(logging.DEBUG, "qspinn.quantizers.fused"):
        for _ in range(2):
            functional.reset_net(net)
            net(currents())
    assert [record.message for record in caplog.records] == [
        "1.v steps one by one: its membrane has more than 16 bits"
    ]


def test_membranes_whose_steps_learn_take_single_steps() -> None:
    """Else the step would learn from nothing."""
    net, x = attached(neuron.LIFNode(tau=3.0)), currents()
    steps, found = LearnedSteps(net), []
    for mode in ("m", "s"):
        spikes = outputs(net, x, mode)
        assert not is_one_operation(spikes)
        (torch.linspace(0, 1, spikes.numel()).view_as(spikes) * spikes).sum().backward()
        found.append({name: one.grad.clone() for name, one in steps.named_parameters()})
        functional.reset_net(net)
        for one in steps.parameters():
            one.grad = None
    multi, single = found
    assert len(multi) == 2
    for name, gradient in multi.items():
        assert bool(gradient.any())
        torch.testing.assert_close(gradient, single[name], rtol=1e-4, atol=1e-4)
