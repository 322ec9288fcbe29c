"""Every number of a running quantised network lies on its grid."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, neuron
from torch import Tensor, nn

from qspinn.fixed_point import FixedPointFormat, quantize, to_integers
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, quantized_parameters
from qspinn.quantizers.class_swap import attached_quantizer
from tests.quantizers.networks import (
    NETWORKS,
    everything,
    made,
    membrane,
    neurons,
    pixels,
    plan,
    quantized,
    resolved,
    run,
    sequential,
)

ROUNDINGS = ("truncate", "nearest", "stochastic", "toward_zero", "nearest_even", "nearest_away")


def watched(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Tensor]]:
    """Collects the membrane after every single step of every neuron layer, in any step mode."""
    seen: dict[str, list[Tensor]] = {}
    for path, node in neurons(network):
        seen[path] = []

        def step(
            inputs: Any, states: Any, _path: str = path, _node: Any = node, **kwargs: Any
        ) -> Any:
            result = type(_node).single_step_functional_forward(_node, inputs, states, **kwargs)
            seen[_path] += [states[0], result[1][0]]
            return result

        monkeypatch.setattr(node, "single_step_functional_forward", step)
    return seen


@pytest.mark.few(0.25)
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("name", NETWORKS)
def test_everything_is_on_its_grid(
    name: str, rounding: str, granularity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, found = quantized(made(name), plan(6, rounding, granularity=granularity))
    formats = {tensor.path: tensor.format for tensor in found.tensors}
    parameters = dict(quantized_parameters(network))
    assert {path for path in formats if path.endswith(("weight", "bias"))} == set(parameters)
    for path, value in parameters.items():
        assert len(to_integers(value, formats[path]).unique()) > 1
    seen = watched(network, monkeypatch)
    run(network)
    for path, node in neurons(network):
        assert len(seen[path]) == 2 * len(pixels())
        for value in seen[path]:
            to_integers(value, membrane(found, path))
        quantizer = attached_quantizer(node)
        threshold = torch.tensor(quantizer.threshold_of(node))
        to_integers(threshold, membrane(found, path, "v_threshold"))
        to_integers(threshold, membrane(found, path))
        if "decay" in found.of_layer(path):
            decay = torch.as_tensor(quantizer.decay_of(node)).detach()
            assert int(to_integers(decay, membrane(found, path, "decay"))) > 0
        if node.v_reset is not None:
            to_integers(torch.tensor(quantizer.reset_of(node)), membrane(found, path))


@pytest.mark.parametrize("step_mode", ["s", "m"])
def test_the_recorded_membranes_are_on_their_grid(step_mode: str) -> None:
    torch.manual_seed(0)
    network = sequential(step_mode).eval()
    x = pixels() if step_mode == "m" else pixels()[0]
    network, found = quantized(network, plan(6), x)
    for _, node in neurons(network):
        node.store_v_seq = True
    with torch.no_grad():
        for one in [pixels()] if step_mode == "m" else pixels():
            network(one)
    for path, node in neurons(network):
        assert len(node.v_seq) == len(pixels())
        to_integers(node.v_seq, membrane(found, path))


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_the_first_membrane_is_the_reset_potential(rounding: str) -> None:
    """Before the first step a device holds the same word as after a spike."""
    node = neuron.IFNode(v_reset=-0.3, store_v_seq=True)
    network = nn.Sequential(nn.Linear(50, 40), node).eval()
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    x = torch.ones(2, 50)
    found = QuantizationPlan.from_rules(
        [{"role": "membrane", "format": "Q1.3", "rounding": rounding}]
    ).resolve(network, x)
    attach(network, found)(x)
    assert node.v.unique().tolist() == [attached_quantizer(node).reset_of(node)]


@pytest.mark.parametrize("kind", [neuron.IFNode, neuron.SimpleIFNode])
def test_a_float_threshold_leaves_the_membrane_on_its_grid(kind: Any) -> None:
    network = nn.Sequential(nn.Linear(8, 64), kind(v_threshold=0.3, v_reset=None)).eval()
    x = (torch.rand(30, 8, generator=torch.Generator().manual_seed(0)) > 0.3).float()
    rules = [{"role": "threshold", "format": "float32"}]
    network, found = quantized(network, plan(6, rules=rules), x)
    assert run(network, x).any()
    to_integers(network[1].v, membrane(found, "1"))


def test_a_negative_threshold_saturates_at_a_soft_reset() -> None:
    network = nn.Sequential(nn.Linear(1, 1, bias=False), neuron.IFNode(-0.5, None)).eval()
    nn.init.ones_(network[0].weight)
    rules = [
        {"role": role, "format": "Q0.3"} for role in ("weight", "membrane", "threshold", "input")
    ]
    x = torch.full((1, 1), 0.75)
    attach(network, QuantizationPlan.from_rules(rules).resolve(network, x))
    run(network, x)
    assert network[1].v.tolist() == [[0.875]]  # 0.625 - -0.5 = 1.125, above the largest


class TestStochastic:
    def both(self, step_mode: str, seed: int) -> tuple[Tensor, list[Tensor]]:
        torch.manual_seed(0)
        network = sequential(step_mode).eval()
        x = pixels() if step_mode == "m" else pixels()[0]
        network, _ = quantized(network, plan(5, "stochastic"), x)
        for _, node in neurons(network):
            node.store_v_seq = True
        outputs = []
        for _ in range(2):
            functional.reset_net(network)
            torch.manual_seed(seed)
            with torch.no_grad():
                if step_mode == "m":
                    outputs.append(network(pixels()))
                else:
                    outputs.append(torch.stack([network(one) for one in pixels()]))
        assert torch.equal(*outputs)
        return outputs[0], [node.v_seq for _, node in neurons(network)]

    def test_the_same_seed_gives_the_same_in_both_step_modes(self) -> None:
        (single, single_v), (multi, multi_v) = self.both("s", 7), self.both("m", 7)
        assert torch.equal(single, multi)
        assert all(torch.equal(a, b) for a, b in zip(single_v, multi_v, strict=True))

    def test_another_seed_gives_another_result(self) -> None:
        assert not torch.equal(self.both("m", 7)[1][0], self.both("m", 8)[1][0])

    def test_inputs_follow_the_seed(self) -> None:
        """Only the input is rounded: no neuron's random numbers decide."""
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(12, 40), neuron.IFNode(v_threshold=9.0)).eval()
        x = torch.rand(5, 12)
        rules = [{"role": "input", "word_length": 3, "rounding": "stochastic"}]
        network, _ = quantized(network, QuantizationPlan.from_rules(rules), x)
        results = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            run(network, x)
            results.append(network[1].v)
        assert torch.equal(results[0], results[1])
        assert not torch.equal(results[0], results[2])

    def test_each_step_draws_anew(self) -> None:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(12, 40), neuron.IFNode(v_threshold=9.0)).eval()
        x = torch.rand(5, 12)
        rules = [{"role": "input", "word_length": 3, "rounding": "stochastic"}]
        network, _ = quantized(network, QuantizationPlan.from_rules(rules), x)
        run(network, x)
        first = network[1].v.clone()
        network(x)
        assert not torch.equal(network[1].v - first, first)

    def test_stored_values_are_drawn_once(self) -> None:
        network, _ = quantized(made("sequential"), plan(4, "stochastic"))
        first, second = dict(quantized_parameters(network)), dict(quantized_parameters(network))
        assert all(torch.equal(first[path], second[path]) for path in first)

    def test_only_neighbours_on_the_grid(self) -> None:
        torch.manual_seed(0)
        values = torch.rand(400) * 2 - 1
        network = nn.Sequential(nn.Linear(1, 400, bias=False), neuron.IFNode(v_threshold=9.0))
        with torch.no_grad():
            network.eval()[0].weight.copy_(values[:, None])
        x = torch.ones(1, 1)
        rules = [{"role": "membrane", "format": "Q2.3", "rounding": "stochastic"}]
        attach(network, QuantizationPlan.from_rules(rules).resolve(network, x))
        ups = torch.zeros(400)
        for _ in range(200):
            run(network, x)
            steps = network[1].v[0] * 8
            below = (values * 8).floor()
            assert bool(((steps == below) | (steps == below + 1)).all())
            ups += steps - below
        expected = values * 8 - (values * 8).floor()
        assert float((ups / 200 - expected).abs().max()) < 0.2  # 5.6 standard deviations


class TestExactSums:
    def test_residual_sums_are_added_exactly(self) -> None:
        """The sum of two layers on different grids, in float64, equals that of their codes."""
        network = made("residual")
        rules = [
            {"layers": "left", "role": "weight", "format": "Q3.8"},
            {"layers": "left", "role": "bias", "format": "Q3.8"},
            {"layers": "right", "role": "weight", "format": "Q-7.20"},
            {"layers": "right", "role": "bias", "format": "Q-7.20"},
            {"role": "input", "format": "UQ0.8"},
            {"layers": "neuron", "role": "membrane", "format": "Q3.12"},
        ]
        found = QuantizationPlan.from_rules(rules).resolve(network, pixels())
        attach(network, found)
        left = network.left_norm(network.left(pixels()))
        right = network.right(pixels())
        assert left.dtype == right.dtype == torch.float64
        codes = (left * 2**28).long() + (right * 2**28).long()
        assert torch.equal((left + right) * 2**28, codes.double())
        assert not torch.equal((left.float() + right.float()).double(), left + right)

    def test_scores_that_no_neuron_takes_keep_the_type_of_the_network(self) -> None:
        network = nn.Sequential(nn.Linear(8, 6))
        network, _ = quantized(network, plan(16), torch.rand(2, 8))
        scores = network(torch.rand(2, 8))
        nn.functional.mse_loss(scores, torch.zeros(2, 6)).backward()
        assert scores.dtype == torch.float32

    @pytest.mark.parametrize("wide", [8, 16])
    def test_a_float_layer_takes_exact_sums(self, wide: int) -> None:
        """A batch norm behind a pool cannot be folded: it stays in float, and must go on."""
        network = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.MaxPool2d(2), nn.BatchNorm2d(6), neuron.IFNode()
        ).eval()
        x = torch.rand(2, 3, 8, 8)
        network, found = quantized(network, plan(wide), x)
        assert found.inventory.layer("0").norm is None
        assert run(network, x).dtype == torch.float32

    @pytest.mark.parametrize("layers", [1, 2])
    def test_a_double_network_stays_double(self, layers: int) -> None:
        stages = [m for _ in range(layers) for m in (nn.Linear(8, 8), neuron.LIFNode())]
        network = nn.Sequential(*stages).double().eval()
        x = torch.rand(3, 8).double()
        network, _ = quantized(network, plan(), x)
        assert run(network, x).dtype == torch.float64

    def test_sums_beyond_53_bits_are_refused(self) -> None:
        network = nn.Sequential(nn.Linear(256, 4, bias=False), neuron.IFNode())
        x = torch.rand(2, 256)
        with pytest.raises(
            ValueError, match=r"0: the sum of its inputs.* 5[4-9] bits.*shorter word"
        ):
            quantized(network, plan(24), x)

    @pytest.mark.parametrize("overflow", ["saturate", "wrap"])
    def test_charges_beyond_53_bits_are_refused(self, overflow: str) -> None:
        network = nn.Sequential(nn.Linear(8, 6), neuron.LIFNode(tau=3.0)).eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(2.0**-14)
        x = (torch.rand(2, 8, generator=torch.Generator().manual_seed(0)) > 0.5).float()
        with pytest.raises(ValueError, match=r"1: the charge of its membrane.*shorter word"):
            quantized(network, plan(24, overflow=overflow), x)

    def test_half_precision_parameters_are_refused(self) -> None:
        network = nn.Sequential(nn.Linear(8, 6), neuron.IFNode()).eval()
        x = torch.rand(2, 8)
        found = resolved(network, plan(), x)
        with pytest.raises(ValueError, match=r"0\.weight is torch\.bfloat16.*float32"):
            attach(network.bfloat16(), found)

    def test_autocast_does_not_reach_the_sums(self) -> None:
        network, _ = quantized(made("containers"), plan(8))
        expected = everything(network)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(everything(network), expected)

    def test_weak_channels_cost_no_exactness(self) -> None:
        """Each output channel has a sum of its own: grids of other channels do not count."""
        network = nn.Sequential(nn.Linear(64, 2, bias=False), neuron.IFNode()).eval()
        with torch.no_grad():
            network[0].weight[1] *= 2.0**-14
        x = (torch.rand(4, 64) > 0.5).float()
        network, _ = quantized(network, plan(8, granularity="channel"), x)
        assert attached_quantizer(network[0]).compute_dtype == torch.float32


@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
def test_inputs_are_brought_to_their_format(overflow: str) -> None:
    network = nn.Sequential(nn.Linear(6, 6, bias=False), neuron.IFNode(v_threshold=9.0)).eval()
    with torch.no_grad():
        network[0].weight.copy_(torch.eye(6))
    x = torch.tensor([[-3.0, -0.3, 0.0, 0.26, 0.99, 2.7]])
    rules = [{"role": "input", "format": "Q0.3", "overflow": overflow}]
    attach(network, QuantizationPlan.from_rules(rules).resolve(network, x))
    run(network, x)
    expected = quantize(x, FixedPointFormat(0, 3), overflow=overflow)
    assert torch.equal(network[1].v, expected)
