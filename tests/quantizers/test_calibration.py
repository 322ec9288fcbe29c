"""Formats chosen from data, against brute force in exact rationals."""

from __future__ import annotations

import copy
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional, neuron
from torch import Tensor, nn

from qspinn.fixed_point import FixedPointFormat, PerChannelFormat, to_integers
from qspinn.plan import QuantizationPlan, ResolvedPlan
from qspinn.quantizers import attach, calibrate, choose_channel_format, choose_format
from qspinn.quantizers.class_swap import attached_quantizer
from tests.quantizers.networks import made, membrane, pixels, plan, resolved
from tests.reference.fixed_point import quantized

DETERMINISTIC = ("truncate", "nearest", "toward_zero", "nearest_even", "nearest_away")
WIDTHS = range(-20, 20)


def covers(integer_bits: int, magnitude: Fraction) -> bool:
    return magnitude <= Fraction(2) ** integer_bits


def error(values: list[float], fmt: FixedPointFormat, rounding: str) -> Fraction:
    """The exact sum of squared errors of quantisation."""
    bits = (fmt.integer_bits, fmt.fraction_bits, fmt.signed)
    differences = (
        Fraction(quantized(value, *bits, rounding, "saturate")) - Fraction(value)
        for value in values
    )
    return sum((one * one for one in differences), Fraction(0))


SAMPLES = st.lists(
    st.floats(-100, 100, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3),
    min_size=1,
    max_size=30,
)


class TestChooseFormat:
    @given(values=SAMPLES, length=st.integers(1, 16), signed=st.booleans())
    def test_max_is_the_smallest_range_that_covers(
        self, values: list[float], length: int, signed: bool
    ) -> None:
        fmt = choose_format(torch.tensor(values), length, "max", signed=signed)
        assert (fmt.word_length, fmt.signed) == (length, signed)
        largest = max(abs(Fraction(value)) for value in values)
        if largest == 0:
            assert fmt.integer_bits == 0
        else:
            assert covers(fmt.integer_bits, largest)
            assert not covers(fmt.integer_bits - 1, largest)

    @given(
        many=st.integers(1, 3000),
        outliers=st.integers(0, 4),
        seed=st.integers(0, 9),
        length=st.integers(2, 12),
    )
    def test_percentile_leaves_out_one_in_a_thousand(
        self, many: int, outliers: int, seed: int, length: int
    ) -> None:
        random = torch.Generator().manual_seed(seed)
        values = torch.cat([torch.rand(many, generator=random), torch.full((outliers,), -64.0)])
        fmt = choose_format(values, length, "percentile")
        ordered = sorted(abs(Fraction(value)) for value in values.tolist())
        kept = ordered[: -(-len(ordered) * 999 // 1000)]
        assert covers(fmt.integer_bits, kept[-1])
        assert not covers(fmt.integer_bits - 1, kept[-1])

    @given(
        values=SAMPLES,
        length=st.integers(2, 10),
        signed=st.booleans(),
        rounding=st.sampled_from(DETERMINISTIC),
    )
    @settings(max_examples=60, deadline=None)
    def test_mse_is_the_best_of_the_useful_ranges(
        self, values: list[float], length: int, signed: bool, rounding: str
    ) -> None:
        """From one range above the one that covers all, down to 2^-6 of that."""
        fmt = choose_format(torch.tensor(values), length, "mse", rounding, signed=signed)
        top = 0
        largest = max(abs(Fraction(value)) for value in values)
        if largest:
            top = next(bits for bits in WIDTHS if covers(bits, largest))
        candidates = [
            FixedPointFormat(bits, length - int(signed) - bits, signed)
            for bits in range(top + 1, top - 7, -1)
        ]
        errors = [error(values, one, rounding) for one in candidates]
        assert float(error(values, fmt, rounding)) <= float(min(errors)) * (1 + 1e-9)
        if errors.count(min(errors)) == 1 or min(errors) == 0:  # the wider of equals
            assert fmt == candidates[errors.index(min(errors))]

    def test_mse_beats_or_equals_the_others(self) -> None:
        values = torch.randn(500, generator=torch.Generator().manual_seed(0)).tolist()
        errors = {
            method: error(values, choose_format(torch.tensor(values), 4, method), "nearest")
            for method in ("mse", "max", "percentile")
        }
        assert errors["mse"] < min(errors["max"], errors["percentile"])

    @given(
        value=st.floats(1e-3, 1e3),
        length=st.integers(2, 16),
        signed=st.booleans(),
        method=st.sampled_from(("max", "mse", "percentile")),
    )
    def test_at_least_is_held(self, value: float, length: int, signed: bool, method: str) -> None:
        fmt = choose_format(torch.zeros(3), length, method, signed=signed, at_least=value)
        assert fmt.max >= value

    @given(
        step=st.floats(1e-3, 1e3),
        length=st.integers(2, 16),
        method=st.sampled_from(("max", "mse", "percentile")),
    )
    def test_the_step_is_at_most(self, step: float, length: int, method: str) -> None:
        values = torch.tensor([1e12, -2e5, 3.0])
        fmt = choose_format(values, length, method, step_at_most=step)
        assert fmt.step <= step < 2 * fmt.step

    def test_holding_comes_before_resolving(self) -> None:
        fmt = choose_format(torch.ones(1), 3, "max", at_least=6.0, step_at_most=0.1)
        assert fmt == FixedPointFormat(3, -1)

    @pytest.mark.parametrize("method", ["max", "mse", "percentile"])
    def test_tiny_values_give_a_possible_format(self, method: str) -> None:
        fmt = choose_format(torch.tensor([1e-30, -1e-38]), 8, method)
        assert fmt.fraction_bits == 64

    def test_one_format_per_channel(self) -> None:
        values = torch.tensor([[0.9, -0.4], [3.9, 0.1], [0.0, 0.0], [0.2, 0.01]])
        fmt = choose_channel_format(values, 0, 8, "max", "nearest")
        assert fmt == PerChannelFormat(8, (7, 5, 7, 9), True, 0)
        assert choose_channel_format(values.T, 1, 8, "max", "nearest").fraction_bits == (7, 5, 7, 9)

    def test_weak_channels_stay_within_reach_of_the_others(self) -> None:
        values = torch.tensor([[0.9], [1e-30]])
        assert choose_channel_format(values, 0, 8, "max", "nearest").fraction_bits == (7, 23)


def layered(node: nn.Module, inputs: int = 8, outputs: int = 6) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, outputs), node).eval()


def calibrated(
    network: nn.Module, x: Tensor, using: QuantizationPlan | None = None
) -> ResolvedPlan:
    return calibrate(network, (using or plan()).resolve(network, x), x)


class TestThreshold:
    @given(
        threshold=st.floats(0.01, 20.0),
        reset=st.sampled_from((None, 0.0, -0.5)),
        lengths=st.tuples(st.integers(3, 12), st.integers(1, 12)),
        rounding=st.sampled_from(DETERMINISTIC),
        method=st.sampled_from(("max", "mse", "percentile")),
    )
    @settings(max_examples=80, deadline=None)
    def test_on_the_membranes_grid_and_reachable(
        self,
        threshold: float,
        reset: float | None,
        lengths: tuple[int, int],
        rounding: str,
        method: str,
    ) -> None:
        """Or an error says that this word length cannot."""
        network = layered(neuron.IFNode(threshold, reset))
        roles = {"membrane": {"word_length": lengths[0]}, "threshold": {"word_length": lengths[1]}}
        x = torch.rand(4, 8)
        using = plan(8, rounding, calibration=method, roles=roles)
        try:
            found = calibrated(network, x, using)
        except ValueError:
            with pytest.raises(ValueError, match="threshold"):
                calibrated(network, x, using)
            assert lengths[0] < 8 or (reset is not None and reset < 0) or lengths[1] < 4
            return
        v, fmt = membrane(found, "1"), membrane(found, "1", "v_threshold")
        assert fmt.fraction_bits <= v.fraction_bits
        attach(network, found)
        fires = torch.tensor(attached_quantizer(network[1]).threshold_of(network[1]))
        rests = attached_quantizer(network[1]).reset_of(network[1]) or 0.0
        to_integers(fires, v)
        assert rests < fires.item() <= v.max

    def test_a_membrane_that_would_round_it_away_is_made_finer(self) -> None:
        """Potentials down to -8 and a threshold of 0.1 in 4 bits."""
        network = layered(neuron.IFNode(v_threshold=0.1))
        with torch.no_grad():
            network[0].weight.fill_(-1.0)
        found = calibrated(network, torch.ones(2, 8), plan(4))
        assert membrane(found, "1").step <= 0.1

    def test_a_coarse_threshold_word_widens_the_membrane(self) -> None:
        """0.8 in 1 bit is 1.0, which Q0.7 does not hold."""
        network = layered(neuron.IFNode(v_threshold=0.8))
        x = torch.rand(2, 8) * 0.1
        found = calibrated(network, x, plan(8, roles={"threshold": {"word_length": 1}}))
        assert membrane(found, "1").max >= 1.0

    @pytest.mark.parametrize(
        ("formats", "threshold", "message"),
        [
            (("Q0.7", "UQ1.7"), 1.0, r"1\.v: format Q0\.7 ends at 0\.9921875, below the thresh"),
            (("Q0.7", "UQ1.0"), 0.8, r"1\.v: .* below the threshold 1\.0: .* more integer bits"),
            (("Q5.0", "UQ5.0"), 0.4, r"1\.v: in Q5\.0 the threshold 0\.4 becomes 0\.0, not above"),
            (("Q1.2", "UQ1.5"), 0.5, r"1\.v_threshold: .*UQ1\.5 is finer .*at most 2 fraction"),
        ],
    )
    def test_stated_formats_that_cannot_be(
        self, formats: tuple[str, str], threshold: float, message: str
    ) -> None:
        network = layered(neuron.IFNode(v_threshold=threshold))
        roles = {"membrane": {"format": formats[0]}, "threshold": {"format": formats[1]}}
        with pytest.raises(ValueError, match=message):
            calibrated(network, torch.rand(2, 8), plan(8, roles=roles))

    def test_a_membrane_of_one_bit_cannot_hold_any(self) -> None:
        with pytest.raises(ValueError, match=r"1\.v: .*never fire; write a word of at least 2"):
            calibrated(layered(neuron.IFNode()), torch.rand(2, 8), plan(1))


class TestDecay:
    @pytest.mark.parametrize("length", [2, 4, 8])
    @pytest.mark.parametrize("tau", [1.5, 2.0, 20.0, 100.0, 1e4])
    def test_a_fixed_leak_loses_less_than_half_its_last_bit(self, tau: float, length: int) -> None:
        network = layered(neuron.LIFNode(tau=tau))
        found = calibrated(
            network, torch.rand(2, 8), plan(8, roles={"decay": {"word_length": length}})
        )
        fmt = membrane(found, "1", "decay")
        attach(network, found)
        leak = attached_quantizer(network[1]).decay_of(network[1])
        assert abs(leak * tau - 1) <= 2.0**-length
        assert (fmt.word_length, fmt.signed) == (length, False)

    @pytest.mark.parametrize("tau", [1.1, 2.0, 20.0, 100.0])
    def test_a_learned_leak_may_double_but_not_beyond_1(self, tau: float) -> None:
        network = layered(neuron.ParametricLIFNode(tau))
        found = calibrated(network, torch.rand(2, 8))
        fmt = membrane(found, "1", "decay")
        assert fmt.max + fmt.step >= min(1.0, 2.0 / tau * (1 - 1e-6))
        assert fmt.max + fmt.step < min(2.0, 4.0 / tau * (1 + 1e-6))

    def test_a_stated_format_in_which_it_vanishes(self) -> None:
        network = layered(neuron.LIFNode(tau=100.0))
        with pytest.raises(ValueError, match=r"1\.decay: 1/tau=0\.01 becomes 0 in UQ0\.4; write"):
            calibrated(network, torch.rand(2, 8), plan(8, roles={"decay": {"format": "UQ0.4"}}))


class TestData:
    def test_weights_are_seen_as_a_device_holds_them(self) -> None:
        """Folded: a norm with scale 1/8 moves the binary point by 3 bits."""
        network = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), neuron.IFNode()).eval()
        network[1].running_var.fill_(64.0)
        x = torch.rand(4, 8)
        using = plan(8, calibration="max")
        folded = membrane(calibrated(network, x, using), "0", "weight")
        bare = membrane(
            calibrated(nn.Sequential(network[0], neuron.IFNode()), x, using), "0", "weight"
        )
        assert folded.fraction_bits == bare.fraction_bits + 3

    @pytest.mark.parametrize(("low", "signed"), [(0.0, False), (-0.1, True)])
    def test_inputs_are_signed_where_the_data_is(self, low: float, signed: bool) -> None:
        x = torch.linspace(low, 0.9, 16).view(2, 8)
        found = calibrated(layered(neuron.IFNode()), x)
        assert membrane(found, "0", "input").signed == signed

    def test_soft_resets_see_the_whole_membrane(self) -> None:
        """With a hard reset what lies above the threshold has no effect, else it stays."""
        x = torch.full((2, 8), 1.0)
        spans = []
        for reset in (0.0, None):
            network = layered(neuron.IFNode(1.0, reset))
            with torch.no_grad():
                network[0].weight.fill_(2.0)
                network[0].bias.zero_()
            spans.append(membrane(calibrated(network, x, plan(8, calibration="max")), "1").max)
        assert spans[0] < 2.0
        assert spans[1] >= 15.0

    def test_all_batches_are_seen(self) -> None:
        network = layered(neuron.IFNode(v_threshold=100.0, v_reset=None))
        batches = [torch.rand(2, 8), torch.rand(2, 8) * 64.0]

        def run() -> None:
            for x in batches:
                functional.reset_net(network)
                network(x)

        using = plan(8, calibration="max")
        found = calibrate(network, using.resolve(network, batches[0]), run)
        assert membrane(found, "0", "input").max > 32.0

    def test_no_extreme_is_missed_among_many_values(self) -> None:
        """One pixel of 100,000 decides what `max` must cover."""
        x = torch.rand(1000, 100)
        x[333, 33] = 50.0
        found = calibrated(layered(neuron.IFNode(), 100), x, plan(8, calibration="max"))
        assert 50.0 < membrane(found, "0", "input").max < 64.0

    def test_everything_gets_a_format_and_stated_ones_stay(self) -> None:
        network = made("containers")
        roles = {"weight": {"format": "Q1.4"}}
        found = resolved(network, plan(9, roles=roles))
        assert found.is_calibrated
        for tensor in found.tensors:
            if tensor.role == "weight":
                assert str(tensor.format) == "Q1.4"
            else:
                assert tensor.format is not None
                assert tensor.format.word_length == 9

    def test_per_channel_formats_for_weights_and_biases_only(self) -> None:
        found = resolved(made("sequential"), plan(6, granularity="channel"))
        for tensor in found.tensors:
            channels = tensor.role in ("weight", "bias")
            assert isinstance(tensor.format, PerChannelFormat) == channels

    def test_calibration_does_not_depend_on_gradients_or_mode(self) -> None:
        network = made("sequential")
        expected = resolved(network)
        network.train()
        assert resolved(network) == expected
        assert network.training

    def test_the_same_data_gives_the_same_formats(self) -> None:
        assert resolved(made("residual")) == resolved(made("residual"))


def broken(network: nn.Module, change: Callable[[Any], None]) -> nn.Module:
    copied = copy.deepcopy(network)
    with torch.no_grad():
        change(copied)
    return copied


class TestRefusals:
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    @pytest.mark.parametrize(
        ("change", "where"),
        [
            (lambda n, v: n[0].weight[0, 0].fill_(v), r"0\.weight"),
            (lambda n, v: n[4].bias[0].fill_(v), r"4\.bias"),
            (lambda n, v: n[1].running_mean[0].fill_(v), r"0\.bias"),
        ],
        ids=["weight", "bias", "norm"],
    )
    def test_parameters_that_are_not_finite(
        self, change: Callable[[Any, float], None], where: str, value: float
    ) -> None:
        network = broken(made("sequential"), lambda n: change(n, value))
        message = f"{where}: holds values that are not finite; the network has diverged"
        with pytest.raises(ValueError, match=message):
            calibrate(network, plan().resolve(made("sequential"), pixels()), pixels())

    def test_data_that_is_not_finite(self) -> None:
        network, x = made("sequential"), pixels()
        found = plan().resolve(network, x)
        good = x.clone()
        x[0, 0, 0, 0, 1] = float("nan")

        def run() -> None:
            for one in (good, x, good):
                functional.reset_net(network)
                network(one)

        for data in (x, run):
            with pytest.raises(ValueError, match=r"0\.input: holds values that are not finite"):
                calibrate(network, found, data)

    def test_a_leak_that_is_not_finite(self) -> None:
        network = layered(neuron.ParametricLIFNode())
        found = plan().resolve(network, torch.rand(2, 8))
        with torch.no_grad():
            network[1].w.fill_(float("nan"))
        with pytest.raises(ValueError, match=r"1\.decay: 1/tau=nan"):
            calibrate(network, found, torch.rand(2, 8))

    @pytest.mark.parametrize("path", ["2.v", "0.input"])
    def test_data_that_does_not_reach_a_layer(self, path: str) -> None:
        network = made("sequential")
        found = plan().resolve(network, pixels())
        part = network[1:] if path == "0.input" else network[:1]
        shaped = torch.rand(4, 3, 6, 2, 2) if path == "0.input" else pixels()

        def run() -> None:
            part(shaped)

        with pytest.raises(ValueError, match=rf"{path}: the calibration data never reached it.*fl"):
            calibrate(network, found, run)

    def test_an_attached_network(self) -> None:
        network = made("sequential")
        found = resolved(network)
        attach(network, found)
        with pytest.raises(ValueError, match=r"calibrate: quantizers are attached; .*detach"):
            calibrate(network, found, pixels())

    def test_a_failing_run_leaves_the_float_network(self) -> None:
        network = made("sequential").train()
        found = plan().resolve(network, pixels())
        before = [(type(child), {*vars(child)}) for child in network.modules()]

        def run() -> None:
            raise RuntimeError("no data")

        with pytest.raises(RuntimeError, match="no data"):
            calibrate(network, found, run)
        assert network.training
        assert [(type(child), {*vars(child)}) for child in network.modules()] == before
