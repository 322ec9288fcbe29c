"""What a device holds of the network, counted by hand, and how plans quantise it."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional

from qspinn.fixed_point import quantize
from qspinn.networks import Decolle, DecolleSettings
from qspinn.plan import QuantizationPlan, footprint
from qspinn.quantizers import (
    accumulator_word_lengths,
    attach,
    calibrate,
    detach,
    quantized_parameters,
)
from tests.networks.decolle.cases import ROUNDINGS
from tests.networks.decolle.test_network import LIVELY, images, network, scores

CONSTANTS = 5  # threshold, refractory and three leaks

# network(): 2x8x8 -> 4 channels, kernel 5, pooled by 2 -> 5 channels, kernel 3 -> 7 neurons.
WEIGHTS = 4 * 2 * 25 + 5 * 4 * 9 + 7 * 80
BIASES = 4 + 5 + 7
TRACES = 2 * (2 * 64 + 4 * 16 + 80)
NEURONS = 4 * 64 + 5 * 16 + 7
LAST_READOUT, OTHER_READOUTS = 3 * 7, 3 * (64 + 80)


def planned(net: Decolle, *arguments: Any, **more: Any) -> Any:
    return calibrate(net, QuantizationPlan.uniform(*arguments, **more).resolve(net))


class TestFootprint:
    def test_in_32_bit(self) -> None:
        found = footprint(network())
        held = WEIGHTS + LAST_READOUT + BIASES + TRACES + NEURONS + 3 * CONSTANTS
        assert found.inference_bits == 32 * (held + 3)  # and the scores of three classes
        assert found.training_bits == 32 * (held + 3 + OTHER_READOUTS + NEURONS)
        assert found.baseline_inference_bits == found.inference_bits

    def test_per_role(self) -> None:
        net = network()
        words = {
            "weight": 4, "bias": 6, "membrane": 7, "trace": 9, "threshold": 3, "decay": 10,
        }  # fmt: skip
        roles = {role: {"word_length": bits} for role, bits in words.items()}
        found = footprint(net, planned(net, 8, roles=roles))
        assert found.by_role == {
            "weight": 4 * (WEIGHTS + LAST_READOUT),
            "bias": 6 * BIASES,
            "membrane": 7 * (NEURONS + 3),  # and what a spike adds
            "trace": 9 * TRACES,
            "threshold": 3 * 3,
            "decay": 10 * 9,
            "other": 32 * 3,
        }
        more = found.training_bits - found.inference_bits
        assert more == 4 * OTHER_READOUTS + 7 * NEURONS

    def test_an_input_is_not_held(self) -> None:
        direct, binary = (footprint(network(coding=coding)) for coding in ("direct", "binary"))
        assert direct == binary
        names = {tensor.info.name for tensor in planned(network(), 8).tensors}
        assert "input" in names
        names = {tensor.info.name for tensor in planned(network(coding="binary"), 8).tensors}
        assert "input" not in names

    def test_a_real_network_shrinks_as_its_words_do(self) -> None:
        net = Decolle((2, 32, 32), 11, [64, 128, 128], 7, 1, [2, 1, 2], [])
        assert footprint(net, planned(net, 8)).reduction == pytest.approx(4.0, abs=0.01)


class TestFormats:
    def test_what_is_open_covers_what_was_seen(self) -> None:
        net = network()
        before = {one.path: str(one.format) for one in planned(net, 8).tensors}
        assert before["layers.0.p"] == "UQ0.8"
        assert before["layers.1.r"] == "UQ2.6"  # at most 1 / (1 - exp(-1 / 2.32)) = 2.86
        assert before["layers.2.u"] == "Q0.7"
        assert before["layers.2.bias"] == "Q1.6"
        with torch.no_grad():
            scores(net, images() * 0.2)
        largest = net.layers[0].peaks[1]
        after = {one.path: str(one.format) for one in planned(net, 8).tensors}
        assert 0.125 < float(largest) < 0.25
        assert after["layers.0.p"] == "UQ-2.10"

    def test_a_trace_that_saturated_gets_a_wider_format(self) -> None:
        net = network()
        rules = [{"role": "trace", "format": "UQ-4.12"}, {"role": "decay", "format": "UQ0.8"}]
        attach(net, QuantizationPlan.from_rules(rules).resolve(net))
        scores(net, images())
        detach(net)
        assert float(net.layers[0].peaks[0]) == 2 * (2**-4 - 2**-12)
        formats = {one.path: str(one.format) for one in planned(net, 8).tensors}
        assert formats["layers.0.q"] == "UQ-3.11"

    def test_biases_can_change_sign_while_they_learn(self) -> None:
        net = network()
        plan = calibrate(net, QuantizationPlan.uniform(8).resolve(net), learning=True)
        formats = {one.path: one.format for one in plan.tensors}
        assert formats["layers.0.bias"].signed
        with torch.no_grad():
            net.layers[0].bias.fill_(0.6)
        plan = calibrate(net, QuantizationPlan.uniform(8).resolve(net), learning=True)
        formats = {one.path: str(one.format) for one in plan.tensors}
        assert formats["layers.0.bias"] == "Q1.6"  # it may double

    @pytest.mark.parametrize("rounding", ROUNDINGS)
    @pytest.mark.parametrize("word_length", [3, 8, 16])
    def test_plans_are_attached_and_both_step_modes_agree(
        self, rounding: str, word_length: int
    ) -> None:
        net, x = network(), images()
        attach(net, planned(net, word_length, rounding))
        found = []
        for step_mode in ("s", "m"):
            torch.manual_seed(3)
            found.append(scores(net, x, step_mode))
        assert torch.equal(*found)

    @pytest.mark.parametrize("granularity", ["tensor", "channel"])
    def test_parameters_are_stored_on_their_grids(self, granularity: str) -> None:
        net = network()
        plan = planned(net, 4, granularity=granularity)
        formats = {one.path: one for one in plan.tensors}
        attach(net, plan)
        stored = dict(quantized_parameters(net))
        assert list(stored) == [
            f"layers.{i}.{name}" for i in range(3) for name in ("weight", "bias", "readout")
        ]
        for path, value in stored.items():
            assert torch.equal(quantize(value, formats[path].format), value)

    def test_detaching_restores_the_float_network(self) -> None:
        net, x = network(), images()
        before = scores(net, x)
        attach(net, planned(net, 3))
        assert not torch.equal(scores(net, x).float(), before)
        detach(net)
        assert torch.equal(scores(net, x), before)

    def test_copies_are_independent(self) -> None:
        net, x = network(), images()
        attach(net, planned(net, 4))
        other = copy.deepcopy(net)
        expected = scores(net, x)
        detach(net)
        assert torch.equal(scores(other, x), expected)

    def test_new_weights_are_used_at_once(self) -> None:
        net, x = network(), images()
        attach(net, planned(net, 8))
        before = scores(net, x)
        with torch.no_grad():
            net.layers[2].weight.mul_(-1.0)
        assert not torch.equal(scores(net, x), before)

    def test_how_wide_sums_are(self) -> None:
        net = network()
        rules = [{"format": "Q0.3"}, {"role": "decay", "format": "UQ0.4"}]
        rules += [{"role": "membrane", "format": "Q2.3"}, {"role": "trace", "format": "UQ0.4"}]
        attach(net, plan := QuantizationPlan.from_rules(rules).resolve(net))
        bits = accumulator_word_lengths(plan, net)
        # 50 products of up to 8 and 15, on a grid of 2^-7; bias 8 << 4 and r 32 << 4.
        assert bits["layers.0.potential"] == (50 * 8 * 15 + (8 << 4) + (32 << 4)).bit_length() + 1
        assert bits["layers.2.readout"] == (7 * 8).bit_length() + 1


class TestReadoutDropout:
    def test_a_device_is_the_same_with_and_without(self) -> None:
        with_dropout = network(settings=dataclasses.replace(LIVELY, readout_dropout=0.5))
        without = network()
        assert footprint(with_dropout) == footprint(without)
        found = []
        for net in (with_dropout, without):
            scores(net, images())
            attach(net, planned(net, 6))
            found += [scores(net, images(), step_mode) for step_mode in ("s", "m")]
        assert all(torch.equal(one, found[0]) for one in found)

    def test_readouts_that_learn_are_exact_sums_of_what_they_see(self) -> None:
        net = network(settings=dataclasses.replace(LIVELY, readout_dropout=0.5)).train()
        attach(net, planned(net, 6))
        readouts = [one for path, one in quantized_parameters(net) if path.endswith("readout")]
        missed = 0
        for t, frame in enumerate(net.encoded(images())):
            torch.manual_seed(t)
            steps = net.step(frame)
            torch.manual_seed(t)
            for readout, step in zip(readouts, steps, strict=True):
                spikes = step.spikes.detach().flatten(1).double()
                keep = torch.nn.functional.dropout(torch.ones_like(step.spikes), 0.5)
                seen = spikes * keep.flatten(1).double()
                # Codes of 6 bits, twice: their sums are exact in float64.
                assert torch.equal(step.readout.double(), seen @ readout.double().T)
                missed += not torch.equal(seen, spikes)
        assert missed > 10


class TestGradients:
    def test_they_pass_straight_through(self) -> None:
        """With fine formats, gradients are nearly those in float."""
        net = network()
        fine = copy.deepcopy(net)
        formats = {
            "weight": "Q1.20", "bias": "Q1.20", "membrane": "Q2.20", "trace": "UQ0.20",
            "decay": "UQ0.22", "threshold": "Q0.20", "input": "UQ0.20",
        }  # fmt: skip
        rules = [{"role": role, "format": text} for role, text in formats.items()]
        attach(fine, QuantizationPlan.from_rules(rules).resolve(fine))
        for one in (net, fine):
            for frame in one.encoded(images()):
                steps = one.step(frame)
            torch.stack([step.readout.square().sum() for step in steps]).sum().backward()
        for a, b in zip(net.parameters(), fine.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-2, atol=1e-4)
            assert bool(a.grad.any())

    def test_saturated_weights_can_still_learn(self) -> None:
        net = network(channels=[], kernel_sizes=3, pools=1, hidden=[4], input_shape=(6,))
        with torch.no_grad():
            net.layers[0].weight.fill_(0.75)
        rules = [{"role": "weight", "format": "Q-1.6"}]
        attach(net, QuantizationPlan.from_rules(rules).resolve(net))
        for _ in range(3):
            net.step(torch.ones(2, 6))
        step = net.step(torch.ones(2, 6))[0]
        step.membrane.sum().backward()
        p = net.layers[0].p
        torch.testing.assert_close(net.layers[0].weight.grad, p.sum(0).expand(4, 6))
        drawn = step.membrane.detach() + net.layers[0].settings.refractory
        assert float(drawn.max()) < 0.75 * 6  # 31/64 is the largest weight

    def test_saturated_potentials_can_still_be_regularised(self) -> None:
        net = network(channels=[], kernel_sizes=3, pools=1, hidden=[4], input_shape=(6,))
        with torch.no_grad():
            net.layers[0].bias.fill_(1.75)
        rules = [{"role": "membrane", "format": "Q0.3"}, {"role": "bias", "format": "Q1.3"}]
        attach(net, QuantizationPlan.from_rules(rules).resolve(net))
        step = net.step(torch.zeros(2, 6))[0]
        assert step.membrane.tolist() == [[0.875] * 4] * 2
        step.membrane.sum().backward()
        assert net.layers[0].bias.grad.tolist() == [2.0] * 4


class TestRefusals:
    def test_unknown_names(self) -> None:
        with pytest.raises(ValueError, match="a quantizer of 'v': write one of weight, bias"):
            network().layers[0].use_fixed_point({"v": None})

    @pytest.mark.parametrize(
        ("role", "text", "message"),
        [
            ("decay", "UQ0.1", r"leak_q|leak_p|leak_r.*: the leak .* becomes 0"),
            ("membrane", "UQ0.8", r"layers\.0\.u: in UQ0\.8 a neuron would fire always or never"),
            ("trace", "UQ0.24", "exact results need .* bits"),
        ],
    )
    def test_formats_that_cannot_work(self, role: str, text: str, message: str) -> None:
        settings = DecolleSettings(tau_membrane=30.0, tau_synapse=20.0)
        net = network(settings=settings)
        rules = [
            {"format": "Q1.22"}, {"role": "decay", "format": "UQ0.24"},
            {"role": role, "format": text},
        ]  # fmt: skip
        with pytest.raises(ValueError, match=message):
            attach(net, QuantizationPlan.from_rules(rules).resolve(net))
        assert math.isfinite(float(scores(net, images()).sum()))

    def test_a_threshold_out_of_reach(self) -> None:
        net = network(settings=DecolleSettings(threshold=2.0))
        rules = [{"role": "membrane", "format": "Q0.7"}, {"role": "threshold", "format": "UQ2.4"}]
        with pytest.raises(ValueError, match=r"since the threshold is 2\.0"):
            attach(net, QuantizationPlan.from_rules(rules).resolve(net))

    def test_what_is_left_out_stays_in_32_bit(self) -> None:
        net, x = network(), images()
        rules = [{"role": "weight", "format": "Q1.16"}]
        attach(net, QuantizationPlan.from_rules(rules).resolve(net))
        found = [scores(net, x, step_mode) for step_mode in ("s", "m")]
        torch.testing.assert_close(*found)
        functional.reset_net(net)
        with torch.no_grad():
            net.step(x)
        assert net.layers[0].p.dtype == torch.float32
        detach(net)
        torch.testing.assert_close(found[0].float(), scores(net, x), rtol=0.2, atol=0.05)
