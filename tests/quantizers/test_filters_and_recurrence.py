"""Synapse filters and recurrent containers equal integers computed independently."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

from qspinn.fixed_point import FixedPointFormat, to_integers
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, calibrate, detach
from tests.reference.fixed_point import code_of
from tests.reference.integer_network import Codes, Neurons, Word, limited, stored

STEPS = 8
TRACE, DECAY = "Q3.6", "UQ0.5"
ROUNDINGS = ("truncate", "nearest", "toward_zero", "nearest_even", "nearest_away")


def spikes(*shape: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=random) < 0.4).float()


def word(text: str) -> Word:
    fmt = FixedPointFormat.parse(text)
    return Word(fmt.word_length, fmt.fraction_bits, fmt.signed)


def code(value: float, text: str, rounding: str = "nearest") -> int:
    fmt = FixedPointFormat.parse(text)
    return code_of(value, fmt.integer_bits, fmt.fraction_bits, fmt.signed, rounding, "saturate")


def filtered(x: Codes, x_fraction: int, leak: int, rounding: str, overflow: str) -> list[Codes]:
    """The trace after each step: ``trace - (1 - x) k trace + x``, in integers, rounded once."""
    places, leak_places = word(TRACE).fraction_bits, word(DECAY).fraction_bits
    trace = np.zeros(x.shape[1:], dtype=object)
    steps = []
    grid = x_fraction + places + leak_places
    for one in x:
        exact = trace << (grid - places)
        exact = exact - ((1 << x_fraction) - one) * leak * trace
        exact = exact + (one << (grid - x_fraction))
        trace = stored(exact, grid, word(TRACE), rounding, overflow)
        steps.append(trace)
    return steps


def filter_plan(rounding: str, overflow: str = "saturate", **more: str) -> Any:
    formats = {"trace": TRACE, "decay": DECAY, **more}
    both = {"rounding": rounding, "overflow": overflow}
    return QuantizationPlan.from_rules(
        [{"role": role, "format": text, **both} for role, text in formats.items()]
    )


def run(network: nn.Module, x: Tensor, step_mode: str) -> Tensor:
    functional.reset_net(network)
    with torch.no_grad():
        out: Tensor = network(x) if step_mode == "m" else torch.stack([network(one) for one in x])
    return out


class TestSynapseFilter:
    @pytest.mark.parametrize("step_mode", ["s", "m"])
    @pytest.mark.parametrize("learnable", [False, True])
    @pytest.mark.parametrize("overflow", ["saturate", "wrap"])
    @pytest.mark.parametrize("rounding", ROUNDINGS)
    def test_of_spikes(self, rounding: str, overflow: str, learnable: bool, step_mode: str) -> None:
        network = nn.Sequential(layer.SynapseFilter(3.0, learnable, step_mode=step_mode)).eval()
        x = spikes(STEPS, 2, 30)
        found = filter_plan(rounding, overflow).resolve(network, x if step_mode == "m" else x[0])
        attach(network, found)
        leak = float(network[0].w.detach().sigmoid()) if learnable else 1.0 / 3.0
        codes = code(leak, DECAY, rounding)
        expected = filtered(x.long().numpy().astype(object), 0, codes, rounding, overflow)
        out = to_integers(run(network, x, step_mode), FixedPointFormat.parse(TRACE)).numpy()
        assert np.array_equal(out, np.stack(expected).astype(np.int64))
        assert torch.equal(network[0].out_i, run(network, x, step_mode)[-1])

    @pytest.mark.parametrize("step_mode", ["s", "m"])
    @pytest.mark.parametrize("rounding", ["truncate", "nearest"])
    def test_of_the_sums_of_a_layer(self, rounding: str, step_mode: str) -> None:
        torch.manual_seed(0)
        linear = layer.Linear(6, 20, bias=False, step_mode=step_mode)
        with torch.no_grad():
            linear.weight.copy_(torch.randint(-90, 127, linear.weight.shape) / 2**10)
        network = nn.Sequential(linear, layer.SynapseFilter(5.0, step_mode=step_mode)).eval()
        x = spikes(STEPS, 2, 6)
        found = filter_plan(rounding, weight="Q-3.10").resolve(
            network, x if step_mode == "m" else x[0]
        )
        attach(network, found)
        weight = (linear.weight.detach() * 2**10).long().numpy().astype(object)
        sums = x.long().numpy().astype(object).dot(weight.T)
        leak = code(0.2, DECAY, rounding)
        expected = filtered(sums, 10, leak, rounding, "saturate")
        out = run(network, x, step_mode)
        assert out.dtype == torch.float32
        codes = to_integers(out, FixedPointFormat.parse(TRACE)).numpy()
        assert np.array_equal(codes, np.stack(expected).astype(np.int64))

    def test_is_calibrated_and_goes_back(self) -> None:
        network = nn.Sequential(
            layer.Linear(6, 20), layer.SynapseFilter(4.0, learnable=True), layer.Linear(20, 3)
        ).eval()
        functional.set_step_mode(network, "m")
        x = spikes(STEPS, 2, 6)
        expected = run(network, x, "m")
        found = calibrate(network, QuantizationPlan.uniform(12).resolve(network, x), x)
        assert found.of_layer("1")["out_i"].role == "trace"
        assert found.of_layer("1")["decay"].role == "decay"
        attach(network, found)
        close = run(network, x, "m")
        assert not torch.equal(close, expected)
        torch.testing.assert_close(close, expected, rtol=0.02, atol=0.02)
        functional.reset_net(network)
        assert torch.equal(run(pickle.loads(pickle.dumps(network)), x, "m"), close)
        functional.reset_net(network)
        assert torch.equal(run(copy.deepcopy(network), x, "m"), close)
        detach(network)
        assert torch.equal(run(network, x, "m"), expected)

    def test_learns(self) -> None:
        network = nn.Sequential(layer.SynapseFilter(4.0, learnable=True, step_mode="m"))
        x = spikes(STEPS, 2, 6)
        attach(network, filter_plan("nearest").resolve(network, x))
        network.train()(x).sum().backward()
        assert float(network[0].w.grad) != 0.0

    def test_stochastic_draws_are_the_same_in_both_step_modes(self) -> None:
        results = []
        for step_mode in ("s", "m"):
            network = nn.Sequential(layer.SynapseFilter(3.0, step_mode=step_mode)).eval()
            x = spikes(STEPS, 2, 30)
            example = x if step_mode == "m" else x[0]
            attach(network, filter_plan("stochastic").resolve(network, example))
            torch.manual_seed(1)
            results.append(run(network, x, step_mode))
        assert torch.equal(*results)

    def test_says_when_a_sequence_begins(self) -> None:
        """A stochastic input draws anew for each sequence, at each of its steps."""
        network = nn.Sequential(layer.Linear(6, 20), layer.SynapseFilter(3.0)).eval()
        x = torch.rand(2, 6)
        rules = [{"role": "input", "word_length": 3, "rounding": "stochastic"}]
        found = QuantizationPlan.from_rules(rules).resolve(network, x)
        attach(network, calibrate(network, found, x))
        results = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            results.append(run(network, x.expand(3, 2, 6), "s"))
        assert torch.equal(results[0], results[1])
        assert not torch.equal(results[0], results[2])

    def test_another_step_of_its_own_is_rounded_after_it(self) -> None:
        class Slower(layer.SynapseFilter):
            def single_step_functional_forward(self, inputs: Any, states: Any, **_: Any) -> Any:
                kept = states[0] * 0.7 + inputs[0] * 0.31
                return (kept,), (kept,)

        network = nn.Sequential(Slower(step_mode="m")).eval()
        x = spikes(STEPS, 2, 30)
        rules = [{"role": "trace", "format": TRACE}]
        attach(network, QuantizationPlan.from_rules(rules).resolve(network, x))
        to_integers(run(network, x, "m"), FixedPointFormat.parse(TRACE))


class TestRecurrence:
    @pytest.mark.parametrize("step_mode", ["s", "m"])
    def test_spikes_that_are_fed_back_equal_the_integers(self, step_mode: str) -> None:
        torch.manual_seed(0)
        container = layer.LinearRecurrentContainer(
            neuron.IFNode(v_reset=None), 5, 5, step_mode=step_mode
        )
        with torch.no_grad():
            container.rc.weight.copy_(torch.randint(-20, 31, container.rc.weight.shape) / 32)
            container.rc.bias.copy_(torch.randint(-3, 9, (5,)) / 32)
        network = nn.Sequential(container).eval()
        x = spikes(STEPS, 3, 5)
        formats = {"weight": "Q0.5", "bias": "Q0.5", "membrane": "Q2.5", "threshold": "UQ1.2"}
        rules = [{"role": role, "format": text} for role, text in formats.items()]
        example = x if step_mode == "m" else x[0]
        attach(network, QuantizationPlan.from_rules(rules).resolve(network, example))
        weight = (container.rc.weight.detach() * 32).long().numpy().astype(object)
        bias = (container.rc.bias.detach() * 32).long().numpy().astype(object)
        nodes = Neurons(word("Q2.5"), 4, 2, reset=None)
        fed_back = np.zeros((3, 5), dtype=object)
        out = run(network, x, step_mode)
        assert 0.0 < float(out.mean()) < 1.0
        for t in range(STEPS):
            taken = np.concatenate([x[t].long().numpy().astype(object), fed_back], axis=-1)
            fired, _ = nodes.step(taken.dot(weight.T) + bias, 5)
            assert np.array_equal(out[t].long().numpy(), fired)
            fed_back = fired.astype(object)

    def test_sums_that_are_fed_back_lie_on_a_grid_of_their_own(self) -> None:
        """A linear layer without a neuron: y = Q(W (x + y)), in integers."""
        torch.manual_seed(0)
        container = layer.ElementWiseRecurrentContainer(
            nn.Linear(4, 4, bias=False), torch.add, step_mode="m"
        )
        with torch.no_grad():
            container.sub_module.weight.copy_(torch.randint(-20, 21, (4, 4)) / 32)
        network = nn.Sequential(container).eval()
        x = spikes(STEPS, 3, 4)
        formats = {"weight": "Q0.5", "membrane": "Q1.4", "input": "Q2.4"}
        rules = [{"role": role, "format": text} for role, text in formats.items()]
        found = QuantizationPlan.from_rules(rules).resolve(network, x)
        attach(network, found)
        weight = (container.sub_module.weight.detach() * 32).long().numpy().astype(object)
        held = np.zeros((3, 4), dtype=object)
        out = to_integers(run(network, x, "m"), FixedPointFormat.parse("Q1.4"))
        for t in range(STEPS):
            taken = limited(
                (x[t].long().numpy().astype(object) << 4) + held, word("Q2.4"), "saturate"
            )
            held = stored(taken.dot(weight.T), 9, word("Q1.4"), "nearest", "saturate")
            assert np.array_equal(out[t].numpy(), held.astype(np.int64))
