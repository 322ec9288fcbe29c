"""Weights whose scale is free: each neuron counts in a unit of its own, exactly."""

from __future__ import annotations

import copy
import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qspinn.fixed_point import FixedPointFormat
from qspinn.networks import DiehlCook, Readouts
from qspinn.plan import QuantizationPlan, ResolvedPlan, footprint
from qspinn.quantizers import (
    attach,
    calibrate,
    detach,
    load_quantized,
    plan_of,
    quantized_parameters,
    save_quantized,
)
from qspinn.quantizers.declared import FreeQuantizer
from tests.stdp.cases import ROUNDINGS, codes_of, images, lively, quantizers

BACKENDS = ("reference", "numba", "torch")


def trained(seed: int = 0, **changes: Any) -> DiehlCook:
    """A network in float whose neurons have learned different weights and thetas."""
    network = lively("numba", seed, **changes)
    network.present(images(30), learning=True)
    return network


def resolved(network: nn.Module, bits: int, rounding: str = "nearest", **of_weights: Any) -> Any:
    """A plan of 12 bits, with so many for weights whose scale is free."""
    roles = {"weight": {"word_length": bits, "scale": "free", **of_weights}}
    return QuantizationPlan.uniform(12, rounding, roles=roles).resolve(network)


def attached(network: DiehlCook, bits: int, rounding: str = "nearest", **others: Any) -> DiehlCook:
    attach(network, calibrate(network, resolved(network, bits, rounding, **others)))
    return network


def format_of(network: DiehlCook, name: str) -> FixedPointFormat:
    (fmt,) = (t.format for t in plan_of(network).tensors if t.info.name == name)
    assert isinstance(fmt, FixedPointFormat)
    return fmt


def held(network: DiehlCook, name: str) -> float:
    """A constant, as the network computes with it."""
    (value,) = (float(t["value"]) for t in network.device_tensors() if t["name"] == name)
    return round(value / format_of(network, name).step) * format_of(network, name).step


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.integers(1, 5), st.sampled_from(ROUNDINGS))
def test_each_neuron_keeps_the_sum_of_its_weights(seed: int, bits: int, rounding: str) -> None:
    network = trained(seed)
    weight, theta = network.weight.clone(), network.theta.clone()
    attached(network, bits, rounding)
    codes, thetas = codes_of(network)
    assert int(codes.min()) >= 0
    assert int(codes.max()) < 2**bits
    step = Fraction(format_of(network, "weight").step)
    of_theta = Fraction(format_of(network, "theta").step)
    threshold = Fraction(network.settings.threshold - network.settings.rest)
    for j in range(network.neurons):
        counted = int(codes[:, j].sum()) * step
        total = sum(map(Fraction, weight[:, j].tolist()))
        if counted == 0:
            continue  # a draw may leave a neuron without weights
        reached = (threshold + Fraction(float(theta[j]))) * counted / total
        kept = Fraction(held(network, "threshold")) + int(thetas[j]) * of_theta
        assert abs(kept - reached) <= of_theta + reached / 2**20


@pytest.mark.parametrize("bits", [1, 2, 8])
def test_no_grid_of_its_word_length_is_much_better(bits: int) -> None:
    """At least as good as one step for all neurons, the best of them."""
    network = trained(3)
    weight = network.weight.double()
    attached(network, bits)
    codes = codes_of(network)[0].double()
    scale = weight.sum(0) / codes.sum(0)
    error = (codes * scale - weight).square().sum()
    steps = torch.linspace(0.01, 1.0, 400, dtype=torch.float64) * weight.max() / (2**bits - 1)
    others = [(weight / s).round().clamp(max=2**bits - 1) * s - weight for s in steps]
    assert error <= 1.5 * min(one.square().sum() for one in others)


@pytest.mark.few(0.2, "campaign")
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("bits", [1, 2, 3])
def test_it_is_an_ordinary_network_in_other_units(bits: int, rounding: str) -> None:
    """With the numbers that it declares, in formats whose steps are powers of two."""
    network = attached(trained(1), bits, rounding)
    declared = {one["name"]: one for one in network.device_tensors()}
    changed = {
        "threshold": network.settings.rest + float(declared["threshold"]["value"]),
        "reset": network.settings.rest + float(declared["reset"]["value"]),
        "inhibition": float(declared["inhibition"]["value"]),
    }
    ordinary = lively("reference", 1, **changed)
    ordinary.load_state_dict(network.state_dict())
    ordinary.weight.data.copy_(declared["weight"]["value"])
    codes, thetas = codes_of(network)
    ordinary.theta.copy_(thetas * format_of(network, "theta").step)
    formats = {t.info.name: str(t.format) for t in plan_of(network).tensors}
    ordinary.use_fixed_point(quantizers(ordinary, 12, rounding, **formats))
    assert torch.equal(codes_of(ordinary)[0], codes)
    expected = ordinary.present(images(20), record=True).spikes
    assert expected is not None
    assert expected.sum() > 10
    for backend in BACKENDS:
        network.backend = backend
        found = network.present(images(20), record=True).spikes
        assert found is not None
        assert torch.equal(found, expected)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_taken_off_it_is_what_it_was(rounding: str) -> None:
    network = trained()
    before = copy.deepcopy(network)
    attached(network, 2, rounding)
    shown = network.present(images(20)).spike_counts
    for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(copied.present(images(20)).spike_counts, shown)
    detach(network)
    assert type(network) is DiehlCook
    for name, value in before.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)
    a, b = network.present(images(20)), before.present(images(20))
    assert torch.equal(a.spike_counts, b.spike_counts)
    network.present(images(2), learning=True)  # in float again


def test_calibration_leaves_it_as_it_was() -> None:
    network = trained()
    before = copy.deepcopy(network)
    calibrate(network, resolved(network, 2))
    a, b = network.present(images(20)), before.present(images(20))
    assert torch.equal(a.spike_counts, b.spike_counts)


def test_a_file(tmp_path: Path) -> None:
    network = attached(trained(), 2, "stochastic")
    save_quantized(network, tmp_path / "network.pt")
    loaded: Any = load_quantized(lively("reference", 5), tmp_path / "network.pt")
    for one, other in zip(codes_of(network), codes_of(loaded), strict=True):
        assert torch.equal(one, other)
    a, b = network.present(images(20)), loaded.present(images(20))
    assert torch.equal(a.spike_counts, b.spike_counts)
    again = ResolvedPlan.from_dict(plan_of(network).to_dict())
    assert again.formats() == plan_of(loaded).formats()


def test_other_weights_get_other_units() -> None:
    network, other = attached(trained(0), 2), attached(trained(1), 2)
    network.load_state_dict(other.state_dict())
    codes = codes_of(network)[0]
    assert not torch.equal(codes, codes_of(attached(trained(0), 2))[0])
    assert torch.equal(codes, codes_of(other)[0])


def test_what_is_stored_lies_on_its_grid() -> None:
    network = attached(trained(), 2)
    codes, thetas = codes_of(network)
    stored = dict(quantized_parameters(network))
    assert torch.equal(stored["weight"], codes * format_of(network, "weight").step)
    assert torch.equal(stored["theta"], thetas * format_of(network, "theta").step)


def test_units_cost_no_memory() -> None:
    network = trained()
    free = calibrate(network, resolved(network, 2))
    others = calibrate(network, resolved(network, 2, scale="power_of_two"))
    assert footprint(network, free).inference_bits == footprint(network, others).inference_bits


def test_membranes_reach_every_threshold() -> None:
    network = trained(theta_max=400.0)
    network.theta.copy_(torch.tensor([0.0, 3.0, 120.0, 7.0]))
    attached(network, 2)
    thetas = codes_of(network)[1] * format_of(network, "theta").step
    highest = held(network, "threshold") + float(thetas.max())
    assert format_of(network, "v").max >= highest > 50


@pytest.mark.parametrize("rounding", ["nearest", "truncate"])
def test_a_neuron_without_weights_stays_silent(rounding: str) -> None:
    network = trained()
    network.weight.data[:, 2] = 0.0
    expected = network.theta[2].item()
    attached(network, 2, rounding)
    codes, thetas = codes_of(network)
    assert codes[:, 2].sum() == 0
    assert codes.sum() > 0
    total = held(network, "threshold") + int(thetas[2]) * format_of(network, "theta").step
    threshold = network.settings.threshold - network.settings.rest
    assert total == pytest.approx(threshold + expected, abs=format_of(network, "theta").step)
    assert network.present(images(20)).spike_counts[:, 2].sum() == 0


def test_a_network_without_weights() -> None:
    network = trained()
    network.weight.data.zero_()
    attached(network, 1)
    assert network.present(images(3)).spike_counts.sum() == 0


class TestRefused:
    def test_an_explicit_format(self) -> None:
        network = trained()
        tensors = calibrate(network, resolved(network, 2)).tensors
        formats = {tensor.path: tensor.format for tensor in tensors}
        roles = {"weight": {"format": "UQ0.2", "scale": "free"}}
        plan = QuantizationPlan.uniform(8, roles=roles).resolve(network)
        message = r"^weight: scale='free' and format='UQ0\.2' disagree .*word_length=2.*power_of"
        with pytest.raises(ValueError, match=message):
            calibrate(network, plan)
        with pytest.raises(ValueError, match=message):
            attach(network, plan.with_formats(formats))

    def test_a_format_for_each_neuron(self) -> None:
        network = trained()
        formats = quantizers(network, 8, weight="UQ0.2|UQ0.2|UQ0.2|UQ0.2 @1")
        weight = formats["weight"]
        formats["weight"] = FreeQuantizer(weight.path, weight.format)
        with pytest.raises(ValueError, match=r"^net\.weight: scale='free' gives each .*UQ0\.2$"):
            network.use_fixed_point(formats)
        assert network.numbers().is_float

    def test_something_else_than_weights(self) -> None:
        network = trained()
        formats = quantizers(network)
        formats["theta"] = FreeQuantizer("net.theta", formats["theta"].format)
        with pytest.raises(ValueError, match=r"^net\.theta: scale='free' is for weights; write"):
            network.use_fixed_point(formats)

    def test_learning(self) -> None:
        network = trained()
        with pytest.raises(ValueError, match=r"^weight: scale='free' is for .*power_of_two"):
            calibrate(network, resolved(network, 2), learning=True)
        attached(network, 2)
        with pytest.raises(ValueError, match=r"^weight: scale='free' is for .*power_of_two"):
            network.present(images(1), learning=True)
        with pytest.raises(ValueError, match=r"^weight: scale='free' is for .*power_of_two"):
            network.device_learning()

    def test_a_threshold_at_the_reset(self) -> None:
        network = trained(reset=-63.1)
        network.theta.zero_()
        plan = resolved(network, 1)
        with pytest.raises(
            ValueError, match=r"^weight: scale='free' counts neuron \d .*lower rese"
        ):
            calibrate(network, plan)

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_weights_that_are_not_finite(self, bad: float) -> None:
        network = trained()
        network.weight.data[0, 0] = bad
        with pytest.raises(ValueError, match=r"^weight: holds values that are not finite"):
            calibrate(network, resolved(network, 2))

    def test_a_module_that_has_no_units(self) -> None:
        readout = Readouts("proportion", 4, 3)
        plan = QuantizationPlan.uniform(8, scale="free").resolve(readout)
        message = r"scale='free': a .*Readouts.* powers of two only.*scale=power_of_two"
        with pytest.raises(ValueError, match=message):
            calibrate(readout, plan)
