"""Steps that learn: LSQ's gradient, in units and powers of two, and what formats become of it."""

from __future__ import annotations

import copy
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from qspinn.export import device_model, verify
from qspinn.fixed_point import FixedPointFormat, PerChannelFormat
from qspinn.networks import ConvSNN, NeuronSettings
from qspinn.plan import QuantizationPlan, ResolvedPlan
from qspinn.quantizers import LearnedSteps, attach, calibrate, integer_codes, plan_of
from qspinn.quantizers.units import LayerGrids
from tests.reference.learned_step import LayerInItsOwnPotentials

STEPS = 6


def inputs(*shape: int, seed: int = 0, rate: float = 0.4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator) < rate).float()


def attached(net: nn.Module, plan: QuantizationPlan, x: Tensor) -> nn.Module:
    attach(net, calibrate(net, plan.resolve(net, x), x, learning=True))
    return net.train()


def one_layer(seed: int, leaks: bool) -> nn.Module:
    torch.manual_seed(seed)
    kept: dict[str, Any] = {
        "v_threshold": 0.9,
        "detach_reset": True,
        "surrogate_function": surrogate.ATan(alpha=2.0),
    }
    node: Any = neuron.IFNode(**kept)
    if leaks:
        node = neuron.LIFNode(tau=4.0, decay_input=False, **kept)
    net = nn.Sequential(layer.Linear(12, 5, bias=False), node).double()
    with torch.no_grad():
        net[0].weight.mul_(3.0 * torch.tensor([[0.3], [1.0], [3.0], [0.7], [1.3]]))
    functional.set_step_mode(net, "m")
    return net


def by_atan(above: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + (math.pi * above) ** 2)  # alpha / 2 / (1 + (pi / 2 alpha x)^2), alpha = 2


def bits_of(fmt: Any, channels: int) -> list[int]:
    held = [one.fraction_bits for one in getattr(fmt, "formats", [fmt])]
    return held * (channels // len(held))


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1 << 20),
    bits=st.integers(2, 6),
    granularity=st.sampled_from(["tensor", "channel"]),
    leaks=st.booleans(),
    kinds=st.sampled_from([("weight",), ("membrane",), ("weight", "membrane")]),
    mode=st.sampled_from(["s", "m"]),
)
def test_gradients_of_units_against_the_definition(
    seed: int, bits: int, granularity: str, leaks: bool, kinds: tuple[str, ...], mode: str
) -> None:
    """In the potentials of the network itself, with derivatives carried forwards."""
    roles = {"decay": {"word_length": 8}} if leaks else {}
    plan = QuantizationPlan.uniform(bits, scale="free", granularity=granularity, roles=roles)
    x = inputs(STEPS, 4, 12, seed=seed).double()
    net: Any = attached(one_layer(seed, leaks), plan, x)
    steps = LearnedSteps(net, kinds)
    asked = torch.randn(STEPS, 5, generator=torch.Generator().manual_seed(seed)).double()
    functional.set_step_mode(net, mode)
    arrived = inputs(STEPS, 12, seed=seed + 1).double()
    functional.reset_net(net)
    if mode == "m":
        spikes = net(arrived.unsqueeze(1))[:, 0]
    else:
        spikes = torch.stack([net(one.unsqueeze(0))[0] for one in arrived])
    (spikes * asked).sum().backward()
    found = plan_of(net)
    unit, membrane = found.units["1"], found.of_layer("1")["v"].format
    weight = found.of_layer("0")["weight"].format
    assert isinstance(membrane, FixedPointFormat)
    assert weight is not None
    low = weight.formats[0] if isinstance(weight, PerChannelFormat) else weight
    scale = unit.tensor.expand(5).numpy()
    rest = round(unit.rest / membrane.step)
    reference = LayerInItsOwnPotentials(
        net[0].weight.detach().numpy(),
        scale * membrane.step,
        np.array(bits_of(weight, 5)) + math.log2(membrane.step),
        (low.code_min, low.code_max),
        (membrane.code_min - rest, membrane.code_max - rest),
        0.9,
        0.25 if leaks else 0.0,
    )
    of_weights, of_potentials = reference.gradients(arrived.numpy(), asked.numpy(), by_atan)
    count = 1 if granularity == "tensor" else 5
    largest = (low.code_max, membrane.code_max - rest)
    gains = [
        1.0 / math.sqrt(numbers / count * max(code, 1))
        for numbers, code in zip((60, 5), largest, strict=True)
    ]
    expected = np.zeros(5)
    for name, gain, one in zip(
        ("weight", "membrane"), gains, (of_weights, of_potentials), strict=True
    ):
        expected += gain * math.log(2.0) * one * (name in kinds)
    (log2,) = steps.parameters()
    assert log2.grad is not None
    total = expected if count == 5 else expected.sum(keepdims=True)
    assert log2.grad.double().numpy() == pytest.approx(total, rel=1e-4, abs=1e-6)


def convolutional(step_mode: str = "m", **arguments: Any) -> nn.Module:
    torch.manual_seed(1)
    made = ConvSNN((2, 8, 8), 3, (4, 6), 3, hidden=5, population=2, **arguments)
    functional.set_step_mode(made, step_mode)
    return made


def learn(net: nn.Module, steps: LearnedSteps, rate: float = 0.2, count: int = 12) -> ResolvedPlan:
    """Some steps of an optimizer, large enough to move everything."""
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    optimizer.add_param_group({"params": steps.parameters(), "lr": rate})
    target = torch.randn(6, 3, generator=torch.Generator().manual_seed(3))
    for number in range(count):
        functional.reset_net(net)
        optimizer.zero_grad()
        ((net(inputs(6, 4, 2, 8, 8, seed=number)) - target) ** 2).mean().backward()
        optimizer.step()
        functional.reset_net(net)
        steps.follow(net)
    assert not steps.failures
    return plan_of(net)


NEURONS = {
    "hard reset": NeuronSettings(),
    "soft reset": NeuronSettings(v_reset=None),
    "plif": NeuronSettings(kind="plif", v_reset=-0.5, decay_input=True),
}


@pytest.mark.few(0.1)
@pytest.mark.parametrize(
    ("kind", "scale", "granularity", "step_mode", "weight"),
    [
        ("hard reset", "free", "channel", "m", {}),
        ("hard reset", "free", "tensor", "s", {}),
        ("hard reset", "power_of_two", "channel", "s", {}),
        ("hard reset", "free", "channel", "m", {"word_length": 1}),
        ("hard reset", "power_of_two", "tensor", "s", {"word_length": 2, "levels": "symmetric"}),
        ("soft reset", "free", "channel", "s", {}),
        ("soft reset", "power_of_two", "tensor", "m", {"word_length": 1}),
        ("plif", "free", "channel", "m", {}),
        ("plif", "power_of_two", "channel", "m", {}),
    ],
)
def test_what_was_learned_is_exact_on_a_device(
    kind: str, scale: str, granularity: str, step_mode: str, weight: dict[str, Any]
) -> None:
    """Steps moved, formats with them, and engines give what the network gives."""
    net = convolutional(step_mode, neuron=NEURONS[kind], batch_norm=step_mode == "m")
    x = inputs(6, 4, 2, 8, 8)
    roles = {"weight": weight} if weight else {}
    plan = QuantizationPlan.uniform(4, roles=roles, scale=scale, granularity=granularity)
    attached(net, plan, x)
    steps, before = LearnedSteps(net), plan_of(net)
    first = {path: one.detach().clone() for path, one in steps.named_parameters()}
    learned = learn(net, steps)
    # A layer without spikes before it learns nothing.
    moved = [not torch.equal(first[path], one) for path, one in steps.named_parameters()]
    assert sum(moved) >= len(moved) / 2
    assert len(learned.units) == (4 if scale == "free" else 0)
    assert learned.formats() != before.formats()
    for tensor in learned.tensors:
        symmetric = bool(weight) and tensor.info.role == "weight"
        assert tensor.format is None or tensor.format.symmetric == symmetric
    net.eval()
    with_gradients = net(x)
    functional.reset_net(net)
    with torch.no_grad():
        assert torch.equal(net(x), with_gradients)
    functional.reset_net(net)
    assert verify(device_model(net, x[:1]), net, x).equal


@pytest.mark.parametrize("scale", ["free", "power_of_two"])
def test_both_step_modes_learn_the_same(scale: str) -> None:
    x, found = inputs(6, 4, 2, 8, 8), []
    for mode in ("s", "m"):
        net = attached(convolutional(mode), QuantizationPlan.uniform(3, scale=scale), x)
        steps = LearnedSteps(net)
        learn(net, steps, count=3)
        found.append(torch.cat(steps.parameters()).detach())
    assert torch.allclose(*found, atol=1e-4)


@settings(max_examples=25)
@given(
    moves=st.lists(st.lists(st.floats(-0.9, 0.9), min_size=5, max_size=5), min_size=1, max_size=3),
    bits=st.integers(2, 8),
    reset=st.sampled_from([0.0, None]),
)
def test_thresholds_and_formats_are_the_nearest_to_the_steps(
    moves: list[list[float]], bits: int, reset: float | None
) -> None:
    """T = round((threshold - rest) / s), within what its word holds and an octave below that."""
    net: Any = one_layer(0, leaks=False)
    net[1].v_reset = reset
    x = inputs(STEPS, 8, 12).double()
    attached(net, QuantizationPlan.uniform(bits, scale="free", granularity="channel"), x)
    steps, before = LearnedSteps(net), plan_of(net)
    assert steps.follow(net) == before
    (log2,) = steps.parameters()
    grid = LayerGrids(net, before, before.scaled["1"]).grid_in_use(before.units["1"])
    rest = before.units["1"].rest
    for moved in moves:
        with torch.no_grad():
            log2 += torch.tensor(moved)
        after = steps.follow(net)
        fractions = torch.tensor(bits_of(after.of_layer("0")["weight"].format, 5))
        threshold = integer_codes(net)["1.v_threshold"].codes.reshape(-1).double()
        wanted = 0.9 / torch.exp2(log2.detach().double() + fractions)
        lowest = max(rest + 1, 0)
        assert torch.equal(threshold, (wanted + rest).round().clamp(lowest, grid.top))
        # No further from the step than the next code is from the last one, of an octave.
        highest = grid.top - rest
        far = (torch.log2(wanted / (threshold - rest))).abs()
        octave = max(math.log2((one + 1) / one) for one in range(math.ceil(highest / 2.5), 65))
        assert float(far.max()) <= octave + 0.2
        assert not steps.failures


def test_exponents_are_the_nearest_to_the_steps_and_hold_the_threshold() -> None:
    net: Any = one_layer(0, leaks=False)
    x = inputs(STEPS, 8, 12).double()
    attached(net, QuantizationPlan.uniform(5), x)
    steps, before = LearnedSteps(net), plan_of(net)
    weight, membrane = steps.parameters()
    bits = bits_of(before.of_layer("0")["weight"].format, 1)[0]
    for moved, expected in ((0.4, bits), (0.7, bits - 1), (0.46, bits - 1), (0.2, bits)):
        with torch.no_grad():
            weight.fill_(moved - bits)
        assert bits_of(steps.follow(net).of_layer("0")["weight"].format, 1) == [expected]
    # The membrane's range may not end below the threshold, however short its step is to be.
    with torch.no_grad():
        membrane.fill_(-9.0)
    fmt = steps.follow(net).of_layer("1")["v"].format
    assert isinstance(fmt, FixedPointFormat)
    assert fmt.max >= 0.9 > fmt.max / 2
    assert float(membrane.detach()) == -fmt.fraction_bits - 1  # an octave away at most


def test_copies_pickles_and_state_go_on_alike() -> None:
    x = inputs(6, 4, 2, 8, 8)
    plan = QuantizationPlan.uniform(3, scale="free", granularity="channel")
    net = attached(convolutional(), plan, x)
    steps = LearnedSteps(net)
    learn(net, steps, count=2)
    functional.reset_net(net)
    twins = [copy.deepcopy((net, steps)), pickle.loads(pickle.dumps((net, steps)))]
    restored = copy.deepcopy(net)
    again = LearnedSteps(restored)
    again.load_state_dict(json.loads(json.dumps(steps.state_dict())))
    expected = learn(net, steps, count=2)
    for other, own in (*twins, (restored, again)):
        assert learn(other, own, count=2) == expected
        assert torch.equal(torch.cat(own.parameters()), torch.cat(steps.parameters()))


def test_state_of_another_network_is_refused() -> None:
    x = inputs(6, 4, 2, 8, 8)
    nets = [
        attached(convolutional(), QuantizationPlan.uniform(3, granularity=one), x)
        for one in ("tensor", "channel")
    ]
    first, second = (LearnedSteps(net) for net in nets)
    with pytest.raises(ValueError, match=r"blocks\.0\.conv\.weight: 1 steps were saved of it"):
        second.load_state_dict(first.state_dict())


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    x = inputs(6, 4, 2, 8, 8)
    net = attached(convolutional(), QuantizationPlan.uniform(3), x)
    steps, before = LearnedSteps(net), plan_of(net)
    with torch.no_grad():
        steps.parameters()[0].fill_(float("nan"))
    assert steps.follow(net) == before
    assert "its learned step is not finite" in steps.failures["blocks.0.conv"]


def test_nothing_to_learn() -> None:
    net = one_layer(0, leaks=False)
    x = inputs(STEPS, 8, 12).double()
    roles = {"weight": {"format": "Q1.2"}, "membrane": {"format": "Q1.2"}}
    attached(net, QuantizationPlan.uniform(4, roles=roles), x)
    with pytest.raises(ValueError, match="no step of weight or membrane open"):
        LearnedSteps(net)
    for other in ("weights", ["v"], 3, "weight,membrane"):
        with pytest.raises(ValueError, match=r"kinds=.*; write none, weight, membrane or weight\+"):
            LearnedSteps(net, other)  # type: ignore[arg-type]
