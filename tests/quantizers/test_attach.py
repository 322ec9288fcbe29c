"""Attaching changes what is computed, and nothing else; detaching gives everything back."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, detach, is_attached, quantized_parameters
from tests.quantizers.networks import (
    NETWORKS,
    everything,
    made,
    neurons,
    pixels,
    plan,
    quantized,
    resolved,
    run,
    sequential,
)


def saved_and_loaded(network: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded


COPIES: dict[str, Any] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda network: pickle.loads(pickle.dumps(network)),
    "torch.save": saved_and_loaded,
}


@pytest.mark.parametrize("name", NETWORKS)
class TestNothingElseChanges:
    def test_state_dict_keys_order_and_identity(self, name: str) -> None:
        network = made(name)
        before = dict(network.state_dict(keep_vars=True))
        parameters = [id(p) for p in network.parameters()]
        attach(network, resolved(network))
        after = dict(network.state_dict(keep_vars=True))
        assert list(before) == list(after)
        assert all(before[key] is after[key] for key in before)
        assert [id(p) for p in network.parameters()] == parameters
        run(network)
        assert [id(p) for p in network.parameters()] == parameters
        assert list(network.state_dict()) == list(before)

    def test_detach_gives_the_float_network_back(self, name: str) -> None:
        network = made(name)
        classes = [type(child) for child in network.modules()]
        attributes = [set(vars(child)) for child in network.modules()]
        flags = [child.training for child in network.modules()]
        expected = everything(network)
        attach(network, resolved(network))
        assert is_attached(network)
        assert not torch.equal(everything(network), expected)
        assert detach(network) is network
        assert not is_attached(network)
        assert torch.equal(everything(network), expected)
        functional.reset_net(network)
        assert [type(child) for child in network.modules()] == classes
        assert [set(vars(child)) for child in network.modules()] == attributes
        assert [child.training for child in network.modules()] == flags

    def test_resolving_and_calibrating_change_nothing(self, name: str) -> None:
        network = made(name).train()
        before = copy.deepcopy(network.state_dict())
        resolved(network)
        after = network.state_dict()
        assert all(torch.equal(before[key], after[key]) for key in before)
        assert all(child.training for child in network.modules())
        assert not is_attached(network)
        assert all(not isinstance(node.v, Tensor) for _, node in neurons(network))

    @pytest.mark.parametrize("used", [False, True])
    @pytest.mark.parametrize("how", COPIES)
    def test_copies_compute_the_same(self, name: str, how: str, used: bool) -> None:
        network, _ = quantized(made(name), plan(5))
        expected = everything(network)
        if used:  # a training pass leaves graphs in the states
            network.train()
            network(pixels()).sum().backward()
            expected = everything(network.eval())
        functional.reset_net(network)
        copied = COPIES[how](network)
        assert is_attached(copied)
        assert torch.equal(everything(copied), expected)
        detach(copied)
        assert is_attached(network)
        assert torch.equal(everything(network), expected)

    def test_a_copy_is_independent(self, name: str) -> None:
        network, _ = quantized(made(name), plan(5))
        expected = everything(network)
        functional.reset_net(network)
        copied = copy.deepcopy(network)
        with torch.no_grad():
            for value in (*copied.parameters(), *copied.buffers()):
                value.zero_()
        assert torch.equal(everything(network), expected)

    def test_checkpoints_load_with_weights_only(self, name: str) -> None:
        network, found = quantized(made(name), plan(5))
        expected = everything(network)
        file = io.BytesIO()
        torch.save(network.state_dict(), file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
        for other in (made(name, seed=9), quantized(made(name, seed=9), plan(5))[0]):
            detach(other).load_state_dict(state)
            assert torch.equal(everything(attach(other, found)), expected)

    def test_loading_into_an_attached_network(self, name: str) -> None:
        network, found = quantized(made(name), plan(5))
        other = attach(made(name, seed=9), found)
        other.load_state_dict(network.state_dict())
        assert torch.equal(everything(other), everything(network))

    def test_an_optimizer_goes_on(self, name: str) -> None:
        """Its parameters and its momentum are those of the network, before and after."""
        network = made(name).train()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        self.step(network, optimizer)
        found = resolved(network)
        before = [parameter.detach().clone() for parameter in network.parameters()]
        attach(network, found)
        self.step(network, optimizer)
        changed = [
            not torch.equal(one, other)
            for one, other in zip(before, network.parameters(), strict=True)
        ]
        assert all(changed)
        detach(network)
        self.step(network, optimizer)
        assert len(optimizer.state) == len(before)

    def step(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        functional.reset_net(network)
        optimizer.zero_grad()
        (network(pixels()) - 0.3).square().sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
        optimizer.step()

    def test_changes_of_the_weights_show_at_once(self, name: str) -> None:
        network, _ = quantized(made(name), plan(5))
        before = dict(quantized_parameters(network))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.data.add_(0.5)
        after = dict(quantized_parameters(network))
        assert all(not torch.equal(before[path], after[path]) for path in before)


class TestRefusals:
    def test_twice(self) -> None:
        network, found = quantized(made("sequential"))
        with pytest.raises(ValueError, match=r"attached already; call .*detach first"):
            attach(network, found)
        assert is_attached(network)

    def test_another_network(self) -> None:
        found = resolved(made("sequential"))
        with pytest.raises(ValueError, match=r"no layer '0'; resolve the plan against this"):
            attach(made("step loop"), found)

    def test_a_layer_of_another_class(self) -> None:
        found = resolved(made("sequential"))
        other = sequential()
        other[2] = neuron.IFNode(step_mode="m")
        with pytest.raises(ValueError, match=r"2 is a IFNode, the plan .* against a LIFNode"):
            attach(other, found)
        assert not is_attached(other)

    def test_no_format_yet(self) -> None:
        network = made("sequential")
        found = plan(8).resolve(network, pixels())
        with pytest.raises(ValueError, match=r"0\.weight: has 8 bits but no format.*calibrate"):
            attach(network, found)
        assert not is_attached(network)

    @pytest.mark.parametrize("reset", [None, 0.0])
    def test_a_threshold_finer_than_the_membrane(self, reset: float | None) -> None:
        network = nn.Sequential(nn.Linear(8, 6), neuron.IFNode(0.3, reset)).eval()
        rules = [{"role": "threshold", "format": "UQ0.8"}, {"role": "membrane", "format": "Q1.2"}]
        found = QuantizationPlan.from_rules(rules).resolve(network, torch.rand(2, 8))
        with pytest.raises(ValueError, match=r"1\.v_threshold: .*UQ0\.8 is finer .* at most 2"):
            attach(network, found)
        assert not is_attached(network)

    def test_detach_of_a_float_network_does_nothing(self) -> None:
        network = made("containers")
        expected = run(network)
        assert torch.equal(run(detach(network)), expected)


class TestShared:
    def test_a_layer_under_two_names_has_one_quantizer(self) -> None:
        shared = nn.Linear(8, 8)
        network = nn.Sequential(shared, neuron.IFNode(), shared, neuron.IFNode()).eval()
        x = (torch.rand(3, 8) > 0.5).float()
        network, found = quantized(network, plan(6), x)
        assert [info.path for info in found.inventory.layers] == ["0", "1", "3"]
        assert network[0] is network[2]
        run(network, x)
        assert not is_attached(detach(network))

    def test_a_norm_after_two_layers_is_not_folded(self) -> None:
        class Two(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
                self.norm = nn.BatchNorm1d(4)
                self.neuron = neuron.IFNode()

            def forward(self, x: Tensor) -> Tensor:
                return self.neuron(self.norm(self.one(x)) + self.norm(self.two(x)))

        network, found = quantized(Two().eval(), plan(6), torch.rand(3, 4))
        assert all(info.norm is None for info in found.inventory.layers)
        run(network, torch.rand(3, 4))


class TestStepModes:
    def test_single_and_multi_step_agree(self) -> None:
        single, multi = sequential("s").eval(), made("sequential")
        single.load_state_dict(multi.state_dict())
        found = resolved(multi)
        attach(single, found), attach(multi, found)
        with torch.no_grad():
            expected = torch.stack([single(x) for x in pixels()])
        assert expected.any()
        assert torch.equal(run(multi), expected)

    def test_the_step_mode_may_change_afterwards(self) -> None:
        network, _ = quantized(made("sequential"))
        expected = run(network)
        functional.set_step_mode(network, "s")
        functional.reset_net(network)
        assert torch.equal(torch.stack([network(x) for x in pixels()]), expected)

    def test_states_go_on_without_a_reset(self) -> None:
        network, _ = quantized(made("sequential"))
        long = run(network, torch.cat([pixels(1), pixels(2)]))
        functional.reset_net(network)
        parts = torch.cat([network(pixels(1)), network(pixels(2))])
        assert torch.equal(parts, long)

    def test_another_batch_size_after_a_reset(self) -> None:
        network, _ = quantized(made("sequential"))
        full = run(network)
        assert torch.equal(run(network, pixels()[:, :1]), full[:, :1])


class TestLayers:
    """Every kind of synapse layer, from torch and from SpikingJelly."""

    CASES = (
        (nn.Linear(6, 4), (6,)),
        (nn.Linear(6, 4, bias=False), (6,)),
        (nn.Conv1d(2, 4, 3, padding=1, groups=2), (2, 7)),
        (nn.Conv2d(2, 4, 3, stride=2, dilation=2, padding=2), (2, 7, 7)),
        (nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), (2, 7, 7)),
        (nn.Conv3d(2, 4, 2), (2, 4, 4, 4)),
        (nn.ConvTranspose1d(2, 4, 3), (2, 7)),
        (nn.ConvTranspose2d(2, 4, 3, stride=2, output_padding=1), (2, 5, 5)),
        (nn.ConvTranspose2d(4, 4, 3, groups=2), (4, 5, 5)),
        (nn.ConvTranspose3d(2, 4, 2, bias=False), (2, 3, 3, 3)),
        (layer.Linear(6, 4), (6,)),
        (layer.Conv1d(2, 4, 3), (2, 7)),
        (layer.Conv3d(2, 4, 2), (2, 4, 4, 4)),
        (layer.ConvTranspose2d(2, 4, 3), (2, 5, 5)),
    )

    @pytest.mark.parametrize("granularity", ["tensor", "channel"])
    @pytest.mark.parametrize(("synapse", "shape"), CASES, ids=lambda one: str(one))
    def test_computes_with_the_quantised_parameters(
        self, synapse: nn.Module, shape: tuple[int, ...], granularity: str
    ) -> None:
        network = nn.Sequential(copy.deepcopy(synapse), neuron.IFNode()).eval()
        x = (torch.rand((3, *shape), generator=torch.Generator().manual_seed(0)) > 0.5).float()
        network, _ = quantized(network, plan(4, granularity=granularity), x)
        parameters = {path.split(".")[1]: value for path, value in quantized_parameters(network)}
        assert set(parameters) == set(dict(synapse.named_parameters()))
        plain = copy.deepcopy(synapse)
        with torch.no_grad():
            for name, value in parameters.items():
                getattr(plain, name).copy_(value)
            assert torch.equal(network[0](x), plain(x))
        assert run(network, x).shape == plain(x).shape

    @pytest.mark.parametrize(("synapse", "shape"), CASES, ids=lambda one: str(one))
    def test_gradients_are_those_of_the_quantised_layer(
        self, synapse: nn.Module, shape: tuple[int, ...]
    ) -> None:
        """Straight through the roundings: as if the layer held the quantised values."""
        network = nn.Sequential(copy.deepcopy(synapse), neuron.IFNode()).eval()
        x = (torch.rand((3, *shape), generator=torch.Generator().manual_seed(0)) > 0.5).float()
        rules = [{"role": role, "format": "Q1.5"} for role in ("weight", "bias")]
        rules = [rule for rule in rules if synapse.bias is not None or rule["role"] == "weight"]
        attach(network, QuantizationPlan.from_rules(rules).resolve(network, x))
        plain = copy.deepcopy(synapse)
        with torch.no_grad():
            for path, value in quantized_parameters(network):
                getattr(plain, path.split(".")[1]).copy_(value)
        for one in (network[0], plain):
            one(x).square().sum().backward()
        for name, parameter in plain.named_parameters():
            assert torch.equal(getattr(network[0], name).grad, parameter.grad)


class TestFallback:
    """Neurons without an exact formula: their states are rounded after the step."""

    MAKERS: dict[str, Any] = {  # noqa: RUF012
        "QIF": lambda: neuron.QIFNode(store_v_seq=True),
        "EIF": lambda: neuron.EIFNode(store_v_seq=True),
        "Izhikevich": lambda: neuron.IzhikevichNode(store_v_seq=True),
        "KLIF": lambda: neuron.KLIFNode(store_v_seq=True),
        "CUBALIF": neuron.CUBALIFNode,
        "CLIF": neuron.ComplementaryLIFNode,
        "LIAF": lambda: neuron.LIAFNode(torch.relu, False),
        "RAF": neuron.RAFNode,
        "ternary": neuron.TernaryLIFNode,
        "half threshold": neuron.HalfThresholdIFNode,
        "SLTT": neuron.SLTTLIFNode,
    }

    @pytest.mark.parametrize("name", MAKERS)
    def test_states_are_on_their_grids_in_both_step_modes(self, name: str) -> None:
        torch.manual_seed(0)
        network = nn.Sequential(layer.Linear(8, 6), self.MAKERS[name]()).eval()
        with torch.no_grad():
            network[0].weight.mul_(4.0)
        functional.set_step_mode(network, "m")
        x = (torch.rand(5, 3, 8, generator=torch.Generator().manual_seed(0)) > 0.5).float()
        network, found = quantized(network, plan(7), x)
        assert any("1 (" in note and "rounded after" in note for note in found.inventory.notes)
        states = [t for t in found.tensors if t.role == "membrane"]
        assert states
        multi = run(network, x)
        finals = [getattr(network[1], state.info.name).clone() for state in states]
        functional.set_step_mode(network, "s")
        functional.reset_net(network)
        single = []
        with torch.no_grad():
            for one in x:
                single.append(network(one))
                for state in states:
                    value = getattr(network[1], state.info.name)
                    assert torch.equal(value, self.rounded(value, state))
        assert torch.equal(torch.stack(single), multi)
        for state, final in zip(states, finals, strict=True):
            assert torch.equal(getattr(network[1], state.info.name), final)

    def rounded(self, value: Tensor, state: Any) -> Tensor:
        steps = value.double() * state.format.scale
        return (
            steps.round().clamp(state.format.code_min, state.format.code_max) / state.format.scale
        ).to(value.dtype)

    @pytest.mark.parametrize("name", MAKERS)
    def test_detach_restores(self, name: str) -> None:
        torch.manual_seed(0)
        network = nn.Sequential(layer.Linear(8, 6), self.MAKERS[name]()).eval()
        functional.set_step_mode(network, "m")
        x = torch.rand(5, 3, 8)
        expected = run(network, x)
        network, _ = quantized(network, plan(5), x)
        run(network, x)
        assert torch.equal(run(detach(network), x), expected)


class TestOtherNodes:
    @pytest.mark.parametrize("decode", [None, "max-mem", "max-abs-mem", "mean-mem", "last_mem"])
    @pytest.mark.parametrize("kind", [neuron.NonSpikingIFNode, neuron.NonSpikingLIFNode])
    def test_readouts(self, kind: Any, decode: str | None) -> None:
        torch.manual_seed(0)
        network = nn.Sequential(layer.Linear(8, 3, step_mode="m"), kind(decode=decode)).eval()
        x = torch.rand(5, 3, 8)
        network, found = quantized(network, plan(6), x)
        fmt = found.of_layer("1")["v"].format
        result = network(x)
        final = network[1].v
        assert torch.equal((final * fmt.scale).round() / fmt.scale, final)
        seen = torch.stack(result) if decode is None else result
        assert seen.dtype == torch.float32
        assert seen.shape == ((5, 3, 3) if decode is None else (3, 3))
        if decode is None:
            assert torch.equal((seen * fmt.scale).round() / fmt.scale, seen)

    @pytest.mark.parametrize("reset", [0.0, -0.25])
    @pytest.mark.parametrize("decay_input", [True, False])
    def test_simple_lif_equals_lif(self, decay_input: bool, reset: float) -> None:
        self.compare(
            neuron.SimpleLIFNode(3.0, decay_input, 0.5, reset),
            neuron.LIFNode(3.0, decay_input, 0.5, reset),
        )

    @pytest.mark.parametrize("reset", [0.0, None])
    def test_simple_if_equals_if(self, reset: float | None) -> None:
        self.compare(neuron.SimpleIFNode(0.5, reset), neuron.IFNode(0.5, reset))

    def compare(self, simple: Any, known: Any) -> None:
        if known.v_reset:  # the simple nodes begin at 0, whatever they reset to
            known.set_reset_value("v", 0.0)
            known.v = 0.0
        torch.manual_seed(1)
        first = nn.Sequential(layer.Linear(8, 6), simple).eval()
        with torch.no_grad():
            first[0].weight.mul_(3.0)
        second = nn.Sequential(copy.deepcopy(first[0]), known).eval()
        x = torch.rand(5, 3, 8)
        roles = {"weight": "Q0.5", "bias": "Q0.5", "input": "UQ0.5", "membrane": "Q1.6"}
        roles |= {"threshold": "UQ1.5"}
        rules = [{"role": role, "format": text} for role, text in roles.items()]
        if hasattr(known, "tau"):
            rules.append({"role": "decay", "format": "UQ0.6"})
        spikes = []
        for network in (first, second):
            functional.set_step_mode(network, "m")
            attach(network, QuantizationPlan.from_rules(rules).resolve(network, x))
            spikes.append(run(network, x))
        assert spikes[0].any()
        assert torch.equal(*spikes)
        assert torch.equal(simple.v, known.v)


def test_a_plan_that_saw_no_forward_pass_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), neuron.IFNode())
    stated = QuantizationPlan.from_rules(
        [{"role": "weight", "format": "Q1.6"}, {"role": "membrane", "format": "Q1.6"}]
    )
    with pytest.raises(ValueError, match=r"without a forward pass.*plan.resolve\(module, exam"):
        attach(network, stated.resolve(network))
    assert not is_attached(network)
    attach(network, stated.resolve(network, torch.rand(2, 1, 5, 5)))
    assert is_attached(network)
