"""Neurons as people write and watch them, with quantizers attached."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import base, functional, layer, monitor, neuron, surrogate
from torch import Tensor, nn

from qspinn.fixed_point import FixedPointFormat, to_integers
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, calibrate, detach
from qspinn.quantizers.class_swap import attached_quantizer
from tests.quantizers.channel_cases import FIRES, heaviside
from tests.quantizers.channel_cases import inputs as images
from tests.quantizers.channel_cases import network as channels
from tests.quantizers.networks import membrane, plan, quantized

STEPS = 5


def spikes(seed: int = 0, features: int = 6) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return (torch.rand((STEPS, 2, features), generator=random) > 0.4).float()


def stacked(node: nn.Module, step_mode: str = "m") -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(layer.Linear(6, 8), node, layer.Linear(8, 3))
    with torch.no_grad():
        net[0].weight.mul_(4.0)
    functional.set_step_mode(net, step_mode)
    return net.eval()


def ran(net: nn.Module, x: Tensor | None = None) -> Tensor:
    functional.reset_net(net)
    with torch.no_grad():
        out: Tensor = net(spikes() if x is None else x)
    return out


class Readout(base.MemoryModule):
    """A leaky readout that records its potentials; a step of its own for sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.register_memory("v", 0.0)
        self.step_mode = "m"

    def single_step_functional_forward(self, inputs: Any, states: Any, **_: Any) -> Any:
        v = states[0] if torch.is_tensor(states[0]) else torch.zeros_like(inputs[0])
        v = v + (inputs[0] - v) / 2
        return (v,), (v,)


class Recording(Readout):
    def multi_step_forward(self, x_seq: Tensor) -> Tensor:
        v, seen = torch.zeros_like(x_seq[0]), []
        for x in x_seq:
            v = v + (x - v) / 2
            seen.append(v)
        self.v, self.v_seq = v, torch.stack(seen)
        return self.v_seq


class Recorder(neuron.LIFNode):
    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        self.seen = out
        return out


class TestRecorders:
    @pytest.mark.parametrize("make", [Recording, Recorder])
    def test_what_overrides_the_call_stays_in_float(self, make: Any) -> None:
        net, found = quantized(stacked(make()), plan(6), spikes())
        assert any(" overrides " in note for note in found.inventory.notes)
        name = "v_seq" if make is Recording else "seen"
        seen = []
        for seed in (0, 1):
            ran(net, spikes(seed))
            seen.append(getattr(net[1], name).clone())
        assert not torch.equal(*seen)
        with torch.no_grad():
            functional.reset_net(net)
            alone = make()
            alone.step_mode = "m"
            alone(net[0](spikes(1)))
        assert torch.equal(getattr(alone, name), seen[1])

    def test_a_readout_reads_out_what_it_holds(self) -> None:
        net, found = quantized(stacked(Readout()), plan(6), spikes())
        read: list[Tensor] = []
        net[1].register_forward_hook(lambda *a: read.append(a[2]))
        ran(net)
        to_integers(read[0], membrane(found, "1"))
        assert torch.equal(read[0][-1], net[1].v)

    @pytest.mark.parametrize("step_mode", ["s", "m"])
    def test_monitors_see_the_potentials_of_this_pass(self, step_mode: str) -> None:
        net = stacked(neuron.LIFNode(store_v_seq=True), step_mode)
        name = "v_seq" if step_mode == "m" else "v"
        watch = monitor.AttributeMonitor(name, False, net, neuron.LIFNode)
        out = monitor.OutputMonitor(net, neuron.LIFNode)
        x = spikes() if step_mode == "m" else spikes()[0]
        net, found = quantized(net, plan(6), x)
        results = []
        for seed in (0, 1):
            watch.clear_recorded_data()
            out.clear_recorded_data()
            functional.reset_net(net)
            with torch.no_grad():
                for one in [spikes(seed)] if step_mode == "m" else spikes(seed):
                    net(one)
            seen = torch.cat(watch["1"]) if step_mode == "m" else torch.stack(watch["1"])
            assert len(seen) == STEPS
            to_integers(seen, membrane(found, "1"))
            assert torch.equal(seen, net[1].v_seq)
            assert len(out["1"]) == (1 if step_mode == "m" else STEPS)
            results.append(seen)
        assert not torch.equal(*results)

    def test_a_neuron_that_records_two_states(self) -> None:
        node = neuron.ComplementaryLIFNode(store_state_seqs=True)
        net, found = quantized(stacked(node), plan(8), spikes())
        seen = []
        for seed in (0, 1):
            ran(net, spikes(seed))
            seen.append(node.state_seqs)
            for name, sequence in zip(("v", "m"), node.state_seqs, strict=True):
                to_integers(sequence, membrane(found, "1", name))
                assert torch.equal(sequence[-1], getattr(node, name))
        assert not torch.equal(seen[0][0], seen[1][0])

    def test_one_that_keeps_its_potentials_beside_spikingjellys_base(self) -> None:
        node = neuron.ActivationAwareIFNode(torch.tensor(0.7), store_v_seq=True)
        net, found = quantized(stacked(node), plan(8), spikes())
        ran(net)
        to_integers(node.v_seq, membrane(found, "1"))
        assert torch.equal(node.v_seq[-1], node.v)


class Begins(neuron.LIFNode):
    """Begins each sequence elsewhere."""

    def reset(self) -> None:
        super().reset()
        self.v = torch.full((2, 8), 0.1234)


class Learned(neuron.LIFNode):
    """A potential to begin with that is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.linspace(-0.3, 0.7, 8))

    def materialize_states(self, inputs: Any, states: Any, step_mode: str) -> Any:
        begins = not isinstance(states[0], Tensor)
        (v,) = super().materialize_states(inputs, states, step_mode)
        return (v + self.start if begins else v,)


class TestStatesThatOthersSet:
    @pytest.mark.parametrize("step_mode", ["s", "m"])
    @pytest.mark.parametrize("kind", [neuron.LIFNode, neuron.SimpleIFNode, neuron.KLIFNode])
    @pytest.mark.parametrize("how", ["replaced", "in place"])
    def test_are_put_on_the_grid(self, kind: Any, how: str, step_mode: str) -> None:
        x = spikes() if step_mode == "m" else spikes()[0]
        net, found = quantized(stacked(kind(), step_mode), plan(5), x)
        zeros = torch.zeros_like(x)
        with torch.no_grad():
            net(x)
            if how == "replaced":
                net[1].v = torch.full_like(net[1].v, 0.123)
            else:
                net[1].v.add_(0.0123)
            net(zeros)
        to_integers(net[1].v, membrane(found, "1"))

    def test_a_state_that_goes_on_is_not_looked_at_again(self) -> None:
        net, _ = quantized(stacked(neuron.LIFNode(), "s"), plan(5), spikes()[0])
        quantizer = attached_quantizer(net[1])
        ran(net, spikes()[0])
        v = net[1].v
        assert quantizer.entered("v", v, v) is v
        assert quantizer.entered("v", v.clone(), v) is not v

    def test_begins_where_reset_says(self) -> None:
        net, found = quantized(stacked(Begins()), plan(5), spikes())
        functional.reset_net(net)
        with torch.no_grad():
            net(torch.zeros(1, 2, 6))
        to_integers(net[1].v, membrane(found, "1"))

    def test_begins_where_the_neuron_says(self) -> None:
        net, found = quantized(stacked(Learned()), plan(6), spikes())
        (v,) = net[1].materialize_states((torch.zeros(1, 2, 8),), (0.0,), "m")
        to_integers(v.detach(), membrane(found, "1"))
        assert len(v.unique()) > 4
        net.train()(spikes()).sum().backward()
        assert net[1].start.grad is not None

    def test_copies_with_states_go_on(self) -> None:
        net, _ = quantized(stacked(neuron.LIFNode()), plan(5), spikes())
        ran(net)
        copies = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
        with torch.no_grad():
            expected = net(spikes(1))
            assert all(torch.equal(one(spikes(1)), expected) for one in copies)


class TestSpikingJellysWays:
    @pytest.mark.parametrize("kind", [neuron.LIFNode, neuron.ParametricLIFNode, neuron.QIFNode])
    @pytest.mark.parametrize("step_mode", ["s", "m"])
    def test_functional_forward(self, kind: Any, step_mode: str) -> None:
        x = spikes() if step_mode == "m" else spikes()[0]
        net, _ = quantized(stacked(kind(), step_mode), plan(5), x)
        expected = ran(net, x)
        functional.reset_net(net)
        forward = base.to_functional_forward(net)
        states = tuple(base.extract_memories(net))
        with torch.no_grad():
            (out,), after = forward((x,), states)
            assert torch.equal(out, expected)
            (again,), _ = forward((x,), after)
        net(x)
        assert torch.equal(net(x), again)

    def test_single_steps_in_a_container(self) -> None:
        net = nn.Sequential(
            layer.MultiStepContainer(nn.Linear(6, 8), neuron.LIFNode(), nn.Linear(8, 3))
        )
        torch.manual_seed(0)
        plain = stacked(neuron.LIFNode())
        for one, other in zip(net[0], plain, strict=True):
            one.load_state_dict(other.state_dict())
        plain, found = quantized(plain, plan(5), spikes())
        own = calibrate(net.eval(), plan(5).resolve(net, spikes()), spikes())
        assert [one.format for one in own.tensors] == [one.format for one in found.tensors]
        assert torch.equal(ran(attach(net, own)), ran(plain))

    def test_detached_states(self) -> None:
        net, _ = quantized(stacked(neuron.LIFNode(), "s"), plan(5), spikes()[0])
        expected = ran(net, spikes()[0])
        functional.reset_net(net)
        out = net.train()(spikes()[0])
        functional.detach_net(net)
        net(spikes()[1]).sum().backward()
        assert torch.equal(out, expected)


@pytest.mark.parametrize("kind", [neuron.LIFNode, neuron.SimpleIFNode])
@pytest.mark.parametrize("reset", [0.0, None])
def test_spikes_that_miss_one_by_last_bits_become_exact(kind: Any, reset: float | None) -> None:
    def nearly(x: Tensor) -> Tensor:
        soft = torch.sigmoid(4.0 * x)
        return (x >= 0).float() + soft - soft.detach()

    net = stacked(kind(v_reset=reset, surrogate_function=nearly))
    twin = stacked(kind(v_reset=reset, surrogate_function=surrogate.ATan()))
    twin.load_state_dict(net.state_dict())
    sent: list[Tensor] = []
    net[1].register_forward_hook(lambda *a: sent.append(a[2]))
    ran(net)
    assert not bool(((sent[-1] == 0) | (sent[-1] == 1)).all())
    twin, found = quantized(twin, plan(6), spikes())
    net = attach(net, found)
    assert torch.equal(ran(net), ran(twin))
    assert bool(((sent[-1] == 0) | (sent[-1] == 1)).all())
    net.train()(spikes()).sum().backward()
    assert float(net[0].weight.grad.abs().sum()) > 0.0


READOUTS = (float("inf"), 1e38, 1e9, 1000.0, torch.tensor(999.0), torch.full((8,), torch.inf))


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("threshold", READOUTS, ids=str)
def test_a_readout_that_never_fires_keeps_its_bits(threshold: Any, learned: bool) -> None:
    """What some write as a threshold out of reach costs the potential no precision."""
    node = neuron.LIFNode(tau=3.0, surrogate_function=surrogate.Rect())
    if learned:
        del node.v_threshold
        threshold = nn.Parameter(torch.as_tensor(threshold, dtype=torch.float32).clone())
    node.v_threshold = threshold
    net = nn.Sequential(layer.Linear(6, 8), node)
    functional.set_step_mode(net, "m")
    x = torch.rand(STEPS, 2, 6)
    assert not bool(ran(net.eval(), x).any())
    potential = node.v.clone()
    net, found = quantized(net, plan(8), x)
    assert not bool(ran(net, x).any())
    assert float((node.v - potential).abs().max()) < 0.05
    assert len(node.v.unique()) > 8
    assert ("v_threshold" in found.of_layer("1")) == (
        float(torch.as_tensor(threshold).detach().max()) < 1e12
    )


def test_a_far_threshold_that_is_reached_is_held() -> None:
    net = nn.Sequential(nn.Linear(1, 1, bias=False), neuron.IFNode(v_threshold=200.0)).eval()
    nn.init.constant_(net[0].weight, 150.0)
    x = torch.ones(1, 1)
    found = calibrate(net, plan(8).resolve(net, x), lambda: [net(x) for _ in range(4)])
    assert membrane(found, "1").max >= 200.0


class Fires(neuron.SimpleLIFNode):
    """Own rules for firing and for what follows it."""

    def __init__(self) -> None:
        super().__init__(2.0, True)

    def neuronal_fire(self) -> Tensor:
        return self.surrogate_function(self.v.abs() - self.v_threshold)

    def neuronal_reset(self, spike: Tensor) -> None:
        self.v = self.v * (1.0 - 0.7 * spike)


class Whole(neuron.SimpleIFNode):
    def single_step_forward(self, x: Tensor) -> Tensor:
        self.v = 0.77 * self.v + x
        spike = self.surrogate_function(self.v - self.v_threshold)
        self.v = self.v - 0.3 * spike
        return spike


@pytest.mark.parametrize("make", [Fires, Whole])
@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_own_rules_of_simple_nodes_are_kept_and_their_states_rounded(
    make: Any, step_mode: str
) -> None:
    x = spikes() if step_mode == "m" else spikes()[0]
    net, found = quantized(stacked(make(), step_mode), plan(12), x)
    out = ran(net, x)
    to_integers(net[1].v, membrane(found, "1"))
    v = net[1].v.clone()
    detach(net)
    # At 12 bits it is close to the float network, which the plain node is not.
    torch.testing.assert_close(out, ran(net, x), atol=0.02, rtol=0.0)
    torch.testing.assert_close(v, net[1].v, atol=0.02, rtol=0.0)


class Adapts(neuron.LIFNode):
    """A threshold that its own step moves: replaced, or in place."""

    def single_step_functional_forward(self, inputs: Any, states: Any, **kwargs: Any) -> Any:
        out = super().single_step_functional_forward(inputs, states, **kwargs)
        self.v_threshold = self.v_threshold + 0.25
        return out


class AdaptsInPlace(neuron.SimpleIFNode):
    def __init__(self) -> None:
        super().__init__()
        del self.v_threshold
        self.register_buffer("v_threshold", torch.tensor(1.0))

    def neuronal_reset(self, spike: Tensor) -> None:
        super().neuronal_reset(spike)
        self.v_threshold.add_(0.25)


@pytest.mark.parametrize("make", [Adapts, AdaptsInPlace])
def test_a_threshold_that_adapts_is_not_put_back(make: Any) -> None:
    rules = [{"role": "threshold", "format": "UQ3.2"}, {"role": "membrane", "format": "Q3.4"}]
    net = stacked(make())
    found = QuantizationPlan.from_rules(rules).resolve(net, spikes())
    if make is AdaptsInPlace:
        net[1].v_threshold.fill_(1.0)
    else:
        net[1].v_threshold = 1.0
    attach(net, found)
    ran(net)
    assert float(net[1].v_threshold) == 1.0 + 0.25 * STEPS


def test_thresholds_per_channel_in_a_neuron_without_a_formula() -> None:
    node = neuron.ActivationAwareIFNode(FIRES.flatten(), channel_dim=1)
    net = channels(node)
    found = calibrate(net, plan(8).resolve(net, images()), images())
    tensor = found.of_layer("1")["v_threshold"]
    assert tensor.info.count == 3
    assert isinstance(tensor.format, FixedPointFormat)
    attach(net, found)
    out = ran(net, images())
    assert 0.0 < float(out.mean()) < 1.0
    to_integers(node.v, membrane(found, "1"))


def test_a_neuron_that_changes_after_the_plan_is_refused() -> None:
    net = stacked(neuron.LIFNode(surrogate_function=heaviside))
    found = calibrate(net, QuantizationPlan.uniform(6).resolve(net, spikes()), spikes())
    net[1].forward = net[1].forward
    with pytest.raises(ValueError, match=r"1 \(LIFNode\) has a forward that was put .*resolve"):
        attach(net, found)
