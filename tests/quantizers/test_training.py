"""Gradients, and batch norm while it trains and after."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, calibrate, quantized_parameters
from tests.quantizers.networks import made, pixels, plan, quantized, resolved, run


def currents(seed: int = 0) -> Tensor:
    """Input currents ``[T, N, 6]`` on a grid of 2^-10, so that fine formats lose nothing."""
    random = torch.Generator().manual_seed(seed)
    return torch.randint(-600, 3000, (5, 4, 6), generator=random) / 1024.0


NODES: dict[str, Any] = {
    "if": lambda **kw: neuron.IFNode(**kw),
    "lif": lambda **kw: neuron.LIFNode(tau=2.0, **kw),
    "lif without input decay": lambda **kw: neuron.LIFNode(tau=4.0, decay_input=False, **kw),
    "plif": lambda **kw: neuron.ParametricLIFNode(2.0, **kw),
    "plif without input decay": lambda **kw: neuron.ParametricLIFNode(4.0, decay_input=False, **kw),
}


@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("reset", [0.0, -0.25, None])
@pytest.mark.parametrize("name", NODES)
def test_gradients_are_spikingjellys(
    name: str, reset: float | None, detach_reset: bool, step_mode: str
) -> None:
    """With formats so fine that nearly nothing is lost, the gradients are the float node's."""
    made_node = NODES[name]
    node = made_node(
        v_reset=reset,
        detach_reset=detach_reset,
        step_mode=step_mode,
        surrogate_function=surrogate.ATan(),
    )
    functional.reset_net(node)
    formats = {"membrane": "Q3.20", "threshold": "UQ1.20"}
    if "lif" in name:
        formats["decay"] = "UQ0.24"
    rules = [{"role": role, "format": text} for role, text in formats.items()]
    fine = copy.deepcopy(node)
    example = currents() if step_mode == "m" else currents()[0]
    attach(fine, QuantizationPlan.from_rules(rules).resolve(fine, example))
    found = []
    for one in (node, fine):
        x = currents().requires_grad_()
        out = one(x) if step_mode == "m" else torch.stack([one(step) for step in x])
        weights = torch.linspace(-1.0, 2.0, out.numel()).view_as(out)
        ((out * weights).sum() + (one.v * 0.3).sum()).backward()
        learned = one.w.grad.clone() if "plif" in name else torch.zeros(())
        found.append((out.detach(), x.grad, learned))
    (spikes, dx, dw), (other, other_dx, other_dw) = found
    assert spikes.any()
    assert torch.equal(other, spikes)
    torch.testing.assert_close(other_dx, dx, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(other_dw, dw, rtol=1e-4, atol=1e-5)
    assert bool(dw != 0) == ("plif" in name)


def test_the_gradient_stops_where_the_membrane_saturates() -> None:
    node = neuron.IFNode(v_threshold=9.0)
    attach(
        node,
        QuantizationPlan.from_rules([{"role": "membrane", "format": "Q0.3"}]).resolve(
            node, torch.zeros(1, 4)
        ),
    )
    x = torch.tensor([[0.3, 5.0, -4.0, -0.9]], requires_grad=True)
    node(x)
    node.v.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[1.0, 0.0, 0.0, 1.0]]


def test_the_gradient_stops_where_a_weight_saturates() -> None:
    network = nn.Sequential(nn.Linear(4, 1, bias=False), neuron.IFNode()).eval()
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[0.3, 2.0, -3.0, -0.99]]))
    rules = [{"role": "weight", "format": "Q0.3"}]
    attach(network, QuantizationPlan.from_rules(rules).resolve(network, torch.ones(1, 4)))
    network[0](torch.ones(1, 4)).sum().backward()
    assert network[0].weight.grad.tolist() == [[1.0, 0.0, 0.0, 1.0]]


def test_wrapping_passes_the_gradient_everywhere() -> None:
    network = nn.Sequential(nn.Linear(3, 1, bias=False), neuron.IFNode()).eval()
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[0.3, 2.0, -3.0]]))
    rules = [{"role": "weight", "format": "Q0.3", "overflow": "wrap"}]
    attach(network, QuantizationPlan.from_rules(rules).resolve(network, torch.ones(1, 3)))
    network[0](torch.ones(1, 3)).sum().backward()
    assert network[0].weight.grad.tolist() == [[1.0, 1.0, 1.0]]


@pytest.mark.few(0.25)
@pytest.mark.parametrize("name", ["sequential", "step loop", "containers", "residual"])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_a_quantised_network_learns(name: str, rounding: str) -> None:
    network, _ = quantized(made(name), plan(6, rounding))
    network.train()
    torch.manual_seed(0)
    targets = torch.tensor([0.25, 0.0, 0.5, 0.25]) * (4.0 if name == "step loop" else 1.0)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        functional.reset_net(network)
        optimizer.zero_grad()
        out = network(pixels())
        out = out.mean(0) if out.dim() == 3 else out
        loss = (out - targets).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


class TestBatchNorm:
    def conv_norm(self, bias: bool, kind: str = "Conv2d") -> nn.Sequential:
        torch.manual_seed(3)
        network = nn.Sequential(
            getattr(nn, kind)(3, 6, 3, bias=bias, **({"groups": 3} if "Trans" in kind else {})),
            nn.BatchNorm2d(6),
            neuron.IFNode(v_threshold=0.5),
        )
        norm = network[1]
        norm.running_mean.uniform_(-0.5, 0.5)
        norm.running_var.uniform_(0.2, 3.0)
        nn.init.uniform_(norm.weight, -1.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
        return network

    @pytest.mark.parametrize("kind", ["Conv2d", "ConvTranspose2d"])
    @pytest.mark.parametrize("granularity", ["tensor", "channel"])
    @pytest.mark.parametrize("bias", [False, True])
    def test_the_folded_parameters_are_quantised(
        self, bias: bool, granularity: str, kind: str
    ) -> None:
        """What is stored is within half a step of the fold in float64."""
        network = self.conv_norm(bias, kind).eval()
        x = torch.rand(4, 3, 6, 6)
        conv, norm = copy.deepcopy(network[0]).double(), copy.deepcopy(network[1]).double()
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        if kind == "Conv2d":
            weight = conv.weight * scale[:, None, None, None]
        else:  # 3 groups of 1 input and 2 outputs
            weight = conv.weight * scale.view(3, 2, 1, 1)
        wanted = (0.0 if conv.bias is None else conv.bias) - norm.running_mean
        expected = {"0.weight": weight, "0.bias": wanted * scale + norm.bias}
        network, found = quantized(network, plan(8, granularity=granularity), x)
        assert found.inventory.layer("0").norm == "1"
        assert "1" not in [info.path for info in found.inventory.layers]
        stored = dict(quantized_parameters(network))
        assert set(stored) == set(expected)
        for path, exact in expected.items():
            fmt = found.of_layer("0")[path.split(".")[1]].format
            formats = getattr(fmt, "formats", None) or (fmt,) * len(exact)
            for one, value, other in zip(formats, stored[path], exact, strict=False):
                inside = other.clamp(one.min, one.max)
                assert (value - inside).abs().max().item() <= one.step / 2 * (1 + 1e-4)

    def test_inference_equals_the_explicit_fold(self) -> None:
        network = self.conv_norm(bias=True).eval()
        x = (torch.rand(4, 3, 6, 6) > 0.5).float()
        network, _ = quantized(network, plan(8), x)
        stored = dict(quantized_parameters(network))
        with torch.no_grad():
            expected = nn.functional.conv2d(x, stored["0.weight"], stored["0.bias"])
            assert torch.equal(network[1](network[0](x)), expected)

    def test_the_statistics_follow_the_batch_as_in_float(self) -> None:
        """At 24 bits, training moves the running statistics and returns what float returns."""
        network = self.conv_norm(bias=True)
        x = (torch.rand(4, 3, 6, 6) > 0.5).float()
        reference = copy.deepcopy(network).train()
        rules = [{"role": "membrane", "format": "float32"}]
        found = resolved(network, plan(20, rules=rules), x)
        attach(network.train(), found)
        y, expected = network[1](network[0](x)), reference[1](reference[0](x))
        torch.testing.assert_close(y, expected, rtol=1e-3, atol=1e-3)
        for name in ("running_mean", "running_var"):
            mine, theirs = getattr(network[1], name), getattr(reference[1], name)
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
        assert int(network[1].num_batches_tracked) == int(reference[1].num_batches_tracked) == 1
        y.square().sum().backward()
        expected.square().sum().backward()
        for mine, theirs in zip(network.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-2, atol=1e-2)

    def test_training_uses_the_weight_that_is_stored(self) -> None:
        """In training, conv output times scale is the convolution with the on-grid weight."""
        network = self.conv_norm(bias=False)
        x = (torch.rand(4, 3, 6, 6) > 0.5).float()
        attach(network.train(), resolved(network, plan(4), x))
        scale = network[1].weight * torch.rsqrt(network[1].running_var + network[1].eps)
        stored = dict(quantized_parameters(network))["0.weight"]
        with torch.no_grad():
            y = network[0](x) * scale[:, None, None]
            expected = nn.functional.conv2d(x, stored)
        kept = stored.flatten(1).any(1)  # what vanishes is another test's business
        assert kept.sum() >= 5
        torch.testing.assert_close(y[:, kept], expected[:, kept], rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("kind", ["Conv2d", "ConvTranspose2d"])
    @pytest.mark.parametrize("bias", [False, True])
    def test_training_computes_with_the_bias_that_is_stored(self, bias: bool, kind: str) -> None:
        """What rounding the folded bias changes is added behind the norm, channel by channel."""
        network = self.conv_norm(bias, kind)
        x = (torch.rand(4, 3, 6, 6) > 0.5).float()
        attach(network.train(), resolved(network, plan(3), x))
        alone = nn.BatchNorm2d(6)
        alone.load_state_dict(network[1].state_dict())
        exact = copy.deepcopy(alone).double()
        own = network[0].bias.double() if bias else 0.0
        scale = exact.weight / (exact.running_var + exact.eps).sqrt()
        stored = dict(quantized_parameters(network))["0.bias"]
        error = stored - ((own - exact.running_mean) * scale + exact.bias)
        assert error.abs().max() > 0.02
        y = network[0](x).detach()
        result, expected = network[1](y), alone(y) + error.detach().float()[:, None, None]
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(network[1].running_mean, alone.running_mean)

    def test_sequences_of_vectors_learn_with_the_stored_bias_too(self) -> None:
        network = nn.Sequential(layer.Linear(3, 5), layer.BatchNorm1d(5), neuron.IFNode())
        functional.set_step_mode(network, "m")
        nn.init.uniform_(network[1].bias, -1.0, 1.0)
        x = (torch.rand(4, 2, 3) > 0.5).float()
        attach(network.train(), resolved(network, plan(3), x))
        stored = dict(quantized_parameters(network))["0.bias"]
        norm = network[1]
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        error = stored - (network[0].bias - norm.running_mean) * scale - norm.bias
        y = network[0](x)
        inner = y.flatten(0, 1)
        centred = (inner - inner.mean(0)) / (inner.var(0, unbiased=False) + norm.eps).sqrt()
        expected = centred * norm.weight + norm.bias + error
        assert error.abs().max() > 0.02
        torch.testing.assert_close(norm(y).flatten(0, 1), expected, rtol=1e-4, atol=1e-4)

    def test_the_norm_gets_the_gradient_of_a_norm_alone(self) -> None:
        """The scale that places the grid adds nothing to it, however coarse the grid."""
        network = self.conv_norm(bias=True)
        x = (torch.rand(4, 3, 6, 6) > 0.5).float()
        attach(network.train(), resolved(network, plan(3), x))
        alone = copy.deepcopy(network[1])
        y = network[0](x)
        for norm, given in ((network[1], y), (alone, y.detach())):
            norm(given).square().sum().backward()
        assert torch.equal(network[1].weight.grad, alone.weight.grad)
        assert torch.equal(network[1].bias.grad, alone.bias.grad)

    @pytest.mark.parametrize("rounding", ["nearest", "truncate", "toward_zero", "stochastic"])
    @pytest.mark.parametrize("gamma", [0.0, 1e-6, -1e-6])
    def test_a_channel_that_vanishes_still_reaches_its_norm(
        self, gamma: float, rounding: str
    ) -> None:
        """Stored, all of it is 0; in training gamma gets the gradient of a coarse weight."""
        network = self.conv_norm(bias=False)
        with torch.no_grad():
            network[1].weight[2] = gamma
        x = (torch.rand(4, 3, 6, 6) > 0.5).float()
        attach(network.train(), resolved(network, plan(4, rounding), x))
        y = network[0](x)
        exact = nn.functional.conv2d(x, network[0].weight)
        similarity = torch.corrcoef(torch.stack([y[:, 2].flatten(), exact[:, 2].flatten()]))
        assert similarity[0, 1] > 0.5
        network(x).sum().backward()
        assert network[1].weight.grad[2] != 0.0

    @pytest.mark.parametrize("factor", [1e3, 1e6])
    def test_weights_far_beyond_a_fixed_format_do_not_run_away(self, factor: float) -> None:
        """A frozen format: the statistics stay near those of float, and gradients arrive."""
        network = self.conv_norm(bias=False)
        with torch.no_grad():
            network[1].weight.fill_(1.0)
        rules = [{"role": "weight", "format": "Q-1.8"}, {"role": "membrane", "word_length": 8}]
        x = (torch.rand(4, 3, 6, 6) > 0.5).float()
        found = resolved(network, QuantizationPlan.from_rules(rules), x)
        network[1].running_var.div_(factor)
        exact = network[0](x).var((0, 2, 3))
        attach(network.train(), found)
        for _ in range(200):
            functional.reset_net(network)
            network(x)
        ratio = network[1].running_var / exact
        assert ratio.min() > 0.1
        assert ratio.max() < 1.5
        network(x).sum().backward()
        assert (network[0].weight.grad != 0).float().mean() > 0.6

    def test_a_dead_channel_trains_without_nan(self) -> None:
        network = self.conv_norm(bias=False)
        with torch.no_grad():
            network[1].weight[2] = 0.0
        x = (torch.rand(4, 3, 6, 6) > 0.5).float()
        attach(network.train(), resolved(network, plan(4), x))
        network(x).sum().backward()
        for parameter in network.parameters():
            assert torch.isfinite(parameter.grad).all()

    def test_a_frozen_norm_computes_as_at_inference(self) -> None:
        network = self.conv_norm(bias=True).eval()
        x = (torch.rand(4, 3, 6, 6) > 0.5).float()
        network, _ = quantized(network, plan(6), x)
        expected = run(network, x)
        network.train()
        network[1].eval()
        assert torch.equal(run(network, x), expected)
        functional.reset_net(network)
        network(x).sum().backward()
        assert float(network[1].weight.grad.abs().sum()) > 0

    def test_evaluation_after_training_uses_the_new_statistics(self) -> None:
        network, _ = quantized(made("containers"), plan(8))
        before = dict(quantized_parameters(network))
        network.train()
        run(network, pixels() * 3.0)
        network.eval()
        after = dict(quantized_parameters(network))
        name = "features.0.0.weight"
        assert not torch.equal(before[name], after[name])


@pytest.mark.parametrize("tokens", [3, 5, 7])
def test_the_rounded_bias_is_added_on_the_axis_of_the_norm(tokens: int) -> None:
    """Features are turned in front of the norm; with as many tokens, the axes have one size."""

    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm, self.node = nn.Linear(6, 5), nn.BatchNorm1d(5), neuron.IFNode()

        def forward(self, x: Tensor) -> Any:
            self.seen = self.norm(self.linear(x).transpose(1, 2))
            return self.node(self.seen)

    torch.manual_seed(0)
    network, x = Turned().eval(), (torch.rand(16, tokens, 6) > 0.5).float()
    rules = [
        {"role": "weight", "word_length": 24},
        {"role": "bias", "format": "Q2.1"},
        {"role": "membrane", "word_length": 16},
    ]
    found = QuantizationPlan.from_rules(rules).resolve(network, x)
    assert found.inventory.layer("linear").norm == "norm"
    wanted = copy.deepcopy(network).train()
    attach(network, calibrate(network, found, x)).train()
    network(x), wanted(x)
    scale = wanted.norm.weight / (1 + wanted.norm.eps) ** 0.5  # before this batch moved it
    bias = (wanted.linear.bias * scale + wanted.norm.bias).detach()
    added = torch.floor(bias * 2 + 0.5) / 2 - bias
    assert torch.allclose(network.seen - wanted.seen, added[:, None].expand(5, tokens), atol=1e-4)
