"""Thresholds and leaks that are tensors: one for the layer, for each channel, for each neuron."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import nn

from qspinn.fixed_point import FixedPointFormat, to_integers
from qspinn.plan import QuantizationPlan, footprint
from qspinn.quantizers import attach, calibrate
from qspinn.quantizers.class_swap import attached_quantizer
from tests.quantizers.channel_cases import (
    CHANNELS,
    FIRES,
    LEARNED,
    NODES,
    ROUNDINGS,
    SIZE,
    THRESHOLDS,
    ChannelPLIF,
    Softplus,
    check,
    heaviside,
    inputs,
    network,
    stated,
    twin,
    with_tau,
)


@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("reset", [0.0, -0.25, None])
@pytest.mark.parametrize("name", NODES)
def test_thresholds_per_channel_equal_the_integers(
    name: str, reset: float | None, rounding: str, step_mode: str
) -> None:
    if name == "simple lif" and reset is None:
        pytest.skip("SpikingJelly's own node cannot do that")
    net = network(NODES[name](v_reset=reset, surrogate_function=heaviside), FIRES, step_mode)
    plan = stated(rounding, leaks=name not in ("if", "simple if"))
    check(net, plan, twin(net[1], rounding, "saturate"), step_mode)


@pytest.mark.parametrize("reset", [0.0, None])
@pytest.mark.parametrize("name", ["channel plif", "channel tau"])
def test_a_membrane_that_wraps_equals_the_integers(name: str, reset: float | None) -> None:
    net = network(NODES[name](v_reset=reset, surrogate_function=heaviside), FIRES)
    check(net, stated(overflow="wrap"), twin(net[1], "nearest", "wrap"), "m")


@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize("kind", THRESHOLDS)
def test_every_kind_of_threshold_equals_the_integers(kind: str, step_mode: str) -> None:
    node = neuron.LIFNode(v_reset=None, surrogate_function=heaviside)
    net = network(node, THRESHOLDS[kind], step_mode)
    check(net, stated(), twin(net[1], "nearest", "saturate"), step_mode)


def test_a_computed_threshold_equals_the_integers() -> None:
    net = network(Softplus(v_reset=None, surrogate_function=heaviside))
    reference = twin(net[1], "nearest", "saturate")
    check(net, stated(leaks=False), reference, "m")


@pytest.mark.parametrize("name", ["lif", "channel plif", "channel tau"])
def test_compiled_steps_give_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from qspinn.quantizers import compiled_step

    compiled_step.compiled_step.cache_clear()
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **how: original(f, backend="eager", **how))
    net = network(NODES[name](surrogate_function=surrogate.Rect()), nn.Parameter(FIRES.clone()))
    check(net, stated(), twin(net[1], "nearest", "saturate"), "m", compile_steps=True)
    assert attached_quantizer(net[1]).compiled
    compiled_step.compiled_step.cache_clear()


class TestFootprint:
    def test_counts_every_value_once(self) -> None:
        net = network(ChannelPLIF(surrogate_function=heaviside), nn.Parameter(FIRES.clone()))
        found = footprint(net, stated(), inputs())
        assert found.by_role["threshold"] == CHANNELS * 6
        assert found.by_role["decay"] == CHANNELS * 6
        assert found.baseline_by_role["threshold"] == CHANNELS * 32
        assert "other" not in found.by_role

    def test_what_only_computes_the_threshold_is_not_held(self) -> None:
        net = network(Softplus(surrogate_function=heaviside))
        found = footprint(net, stated(leaks=False), inputs())
        assert found.by_tensor["1.v_threshold"] == CHANNELS * 6
        assert "1.raw" not in found.by_tensor

    def test_a_buffer_is_not_counted_twice(self) -> None:
        node = neuron.IFNode(surrogate_function=heaviside)
        del node.v_threshold
        node.register_buffer("v_threshold", FIRES.clone())
        found = footprint(network(node), stated(leaks=False), inputs())
        assert [path for path in found.by_tensor if path.startswith("1.")] == [
            "1.v",
            "1.v_threshold",
        ]

    def test_a_time_constant_in_a_buffer_is_not_counted_twice(self) -> None:
        node = with_tau(surrogate_function=heaviside)
        tau = node.tau
        del node.tau
        node.register_buffer("tau", tau)
        found = footprint(network(node), stated(), inputs())
        assert found.by_role["decay"] == CHANNELS * 6
        assert "1.tau" not in found.by_tensor


class TestLearning:
    def test_gradients_pass_straight_through(self) -> None:
        """Soft reset, straight-through spikes: worked out in float, on the quantised values."""
        threshold = nn.Parameter(FIRES.clone())
        net = network(ChannelPLIF(v_reset=None, surrogate_function=heaviside), threshold)
        attach(net.train(), stated().resolve(net, inputs()))
        net(inputs()).sum().backward()
        node: Any = net[1]
        grads = node.v_threshold.grad, node.w.grad
        assert all(bool((one != 0).all()) for one in grads)
        # The same step in float on the grid numbers has the same gradient.
        quantizer = attached_quantizer(node)
        fires = quantizer.threshold_of(node).detach().requires_grad_()
        raw = node.w.detach().clone().requires_grad_()
        leak = raw.sigmoid()
        leak = leak + (quantizer.decay_of(node) - leak).detach()
        v, total = torch.zeros(4, CHANNELS, SIZE, SIZE), torch.tensor(0.0)
        for one in net[0](inputs()).detach():
            exact = v + leak * (one - v)
            h = exact + (torch.floor(exact * 64 + 0.5).clamp(-256, 255) / 64 - exact).detach()
            spike = heaviside(h - fires)
            v, total = h - spike * fires, total + spike.sum()
        total.backward()
        torch.testing.assert_close(grads[0], fires.grad)
        torch.testing.assert_close(grads[1], raw.grad)

    def test_a_threshold_that_outgrows_the_membrane_still_fires(self) -> None:
        threshold = nn.Parameter(torch.full((CHANNELS, 1, 1), 0.5))
        net = network(neuron.IFNode(v_reset=None, surrogate_function=heaviside), threshold)
        x = torch.ones(20, 1, 2, SIZE, SIZE)
        attach(net, calibrate(net, QuantizationPlan.uniform(6).resolve(net, x), x))
        with torch.no_grad():
            net[0].inner.weight.fill_(0.5)
            net[1].v_threshold.fill_(1000.0)
            assert bool(net(x).any())

    @pytest.mark.parametrize("value", [0.3, 0.75, 1.0, 1.3, 6.0])
    def test_formats_leave_room_for_a_learned_threshold(self, value: float) -> None:
        threshold = nn.Parameter(torch.full((CHANNELS, 1, 1), value))
        net = network(neuron.IFNode(surrogate_function=heaviside), threshold)
        found = calibrate(net, QuantizationPlan.uniform(6).resolve(net, inputs()), inputs())
        for name in ("v", "v_threshold"):
            fmt = found.of_layer("1")[name].format
            assert isinstance(fmt, FixedPointFormat)
            assert fmt.max >= 1.5 * value - fmt.step


class TestCalibration:
    @pytest.mark.parametrize("kind", THRESHOLDS)
    @pytest.mark.parametrize("bits", [4, 6, 8])
    def test_the_membrane_reaches_the_highest_threshold(self, kind: str, bits: int) -> None:
        net = network(neuron.IFNode(surrogate_function=heaviside), THRESHOLDS[kind])
        found = calibrate(net, QuantizationPlan.uniform(bits).resolve(net, inputs()), inputs())
        fmt = found.of_layer("1")["v"].format
        assert isinstance(fmt, FixedPointFormat)
        highest = float(torch.as_tensor(THRESHOLDS[kind]).detach().max())
        assert fmt.max >= highest
        attach(net, found)
        fires = attached_quantizer(net[1]).threshold_of(net[1])
        assert float(torch.as_tensor(fires).max()) <= fmt.max

    def test_a_leak_that_becomes_zero_is_named(self) -> None:
        node = with_tau(surrogate_function=heaviside)
        node.tau = torch.tensor([2.0, 300.0, 500.0]).reshape(CHANNELS, 1, 1)
        net = network(node)
        found = stated().resolve(net, inputs())
        with pytest.raises(ValueError, match=r"1\.decay: 1/tau=0\.00333333, 0\.002 becomes 0"):
            calibrate(net, found, inputs())

    def test_thresholds_too_far_apart_for_the_word_are_named(self) -> None:
        net = network(neuron.IFNode(surrogate_function=heaviside), FIRES)
        found = QuantizationPlan.uniform(3).resolve(net, inputs())
        with pytest.raises(ValueError, match=r"1\.v: .* 0\.4 becomes 0\.0.*longer word length"):
            calibrate(net, found, inputs())

    def test_one_of_several_thresholds_that_becomes_zero_is_named(self) -> None:
        thresholds = torch.tensor([0.01, 1.0, 1.5]).reshape(CHANNELS, 1, 1)
        net = network(neuron.IFNode(surrogate_function=heaviside), thresholds)
        found = stated(leaks=False).resolve(net, inputs())
        with pytest.raises(ValueError, match=r"1\.v: .* threshold 0\.01 becomes 0\.0, not above"):
            calibrate(net, found, inputs())

    @pytest.mark.parametrize("shape", [(4, 1, 1, 1), (5, 1, 1)])
    def test_a_threshold_per_sample_is_refused(self, shape: tuple[int, ...]) -> None:
        net = network(neuron.IFNode(surrogate_function=heaviside), torch.ones(shape))
        if shape == (5, 1, 1):
            net[1].v_threshold = torch.ones(CHANNELS, 1, 1)
        found = stated(leaks=False).resolve(net, inputs())
        found = _with_threshold_shape(found, shape)
        with pytest.raises(ValueError, match=r"1\.v_threshold: has the shape .* per layer"):
            attach(net, found)


def _with_threshold_shape(found: Any, shape: tuple[int, ...]) -> Any:
    data = found.to_dict()
    for info in data["inventory"]["layers"][-1]["tensors"]:
        if info["name"] == "v_threshold":
            info["shape"] = list(shape)
    return type(found).from_dict(data)


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_copies_compute_the_same(how: str, rounding: str) -> None:
    net = network(ChannelPLIF(surrogate_function=heaviside), nn.Parameter(FIRES.clone()))
    attach(net, stated(rounding).resolve(net, inputs()))
    net.train()(inputs()).sum().backward()
    functional.reset_net(net)
    net.eval()
    copied = copy.deepcopy(net) if how == "deepcopy" else pickle.loads(pickle.dumps(net))
    results = []
    for one in (net, copied):
        torch.manual_seed(5)
        functional.reset_net(one)
        with torch.no_grad():
            results.append(one(inputs()))
    assert torch.equal(*results)


def test_stochastic_constants_are_drawn_once_at_inference() -> None:
    net = network(ChannelPLIF(surrogate_function=heaviside), nn.Parameter(FIRES.clone()))
    attach(net, stated("stochastic").resolve(net, inputs()))
    node: Any = net[1]
    quantizer = attached_quantizer(node)
    assert torch.equal(quantizer.threshold_of(node), quantizer.threshold_of(node))
    assert torch.equal(quantizer.decay_of(node), quantizer.decay_of(node))
    net.train()
    drawn = torch.stack([quantizer.decay_of(node).detach() for _ in range(40)])
    below = torch.floor(LEARNED.sigmoid() * 64) / 64
    assert bool(((drawn == below) | (drawn == below + 1 / 64)).all())
    assert len(drawn.unique(dim=0)) > 1


def test_the_word_length_of_the_decays_is_what_the_plan_says() -> None:
    net = network(ChannelPLIF(surrogate_function=heaviside))
    found = calibrate(net, QuantizationPlan.uniform(5).resolve(net, inputs()), inputs())
    decay = found.of_layer("1")["decay"]
    assert decay.word_length == 5
    assert decay.info.count == CHANNELS
    attach(net, found)
    codes = to_integers(attached_quantizer(net[1]).decay_of(net[1]).detach(), decay.format)
    exact = [1.0 / (1.0 + math.exp(-w)) for w in LEARNED.flatten().tolist()]
    assert codes.flatten().tolist() == [math.floor(value * 32 + 0.5) for value in exact]
