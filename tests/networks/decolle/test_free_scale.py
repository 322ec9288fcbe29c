"""Weights whose scale is free: a layer counts in a unit of its own, exactly."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spikingjelly.activation_based import functional
from torch import Tensor

from qspinn.export import IntegerEngine, device_model, encode
from qspinn.fixed_point import stored
from qspinn.networks import Decolle, DecolleSettings
from qspinn.networks.decolle import DecolleLayer
from qspinn.plan import QuantizationPlan, footprint
from qspinn.quantizers import (
    attach,
    calibrate,
    load_quantized,
    plan_of,
    quantize_module,
    quantized_parameters,
    save_quantized,
)
from tests.networks.decolle.cases import ROUNDINGS, SHAPES, STEPS, Case, Quantized, cases
from tests.networks.decolle.test_network import images, network, scores
from tests.networks.decolle.test_twin import OVERFLOW, ROUNDING, usable

GRANULARITY = pytest.mark.parametrize("granularity", ["tensor", "channel"])


class Free(Quantized):
    """Of weights whose scale is free."""

    scale = "free"


@dataclass(frozen=True)
class FreeCase(Case):
    """A case whose layer counts in a unit of its own."""

    def quantizers(self) -> dict[str, Quantized]:
        held = super().quantizers()
        one = held["weight"]
        return {**held, "weight": Free(one.path, one.format, one.rounding, one.overflow)}


def planned(net: Decolle, word_length: int, granularity: str = "tensor", **more: Any) -> Any:
    plan = QuantizationPlan.uniform(word_length, scale="free", granularity=granularity, **more)
    return calibrate(net, plan.resolve(net))


def declared(layer: Any, name: str) -> float:
    """A constant, in units."""
    (value,) = (one["value"] for one in layer.device_tensors() if one["name"] == name)
    return float(value)


def steps_of(layer: DecolleLayer, x: Tensor) -> list[Any]:
    """Spikes and states after each step; the same draws for each layer."""
    torch.manual_seed(7)
    found = []
    for frame in x:
        with torch.no_grad():
            step = layer.step(frame)
        found.append([step.spikes, layer.p, layer.q, layer.r, step.readout])
    functional.reset_net(layer)
    return found


def in_its_unit(layer: DecolleLayer, case: Case) -> DecolleLayer:
    """A layer whose scale is no free one, with the numbers that this one computes with."""
    values = {one["name"]: one["value"] for one in layer.device_tensors() if "value" in one}
    held = {name: values[name] for name in ("threshold", "refractory")}
    ordinary = DecolleLayer(
        layer.shape,
        layer.num_classes,
        replace(layer.settings, **held),
        input_max=layer.input_max,
        whole_inputs=layer.whole_inputs,
    )
    ordinary.load_state_dict(layer.state_dict())
    with torch.no_grad():
        for name in ("weight", "bias"):
            getattr(ordinary, name).copy_(stored(case.quantizers()[name], values[name]))
    ordinary.eval().use_fixed_point(Case.quantizers(case))
    return ordinary


@pytest.mark.few(0.25)
@ROUNDING
@OVERFLOW
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_it_is_an_ordinary_layer_in_other_units(
    rounding: str, overflow: str, data: st.DataObject
) -> None:
    """And an ordinary one equals its integer twin."""
    drawn = data.draw(cases(rounding, overflow))
    case = FreeCase(**vars(drawn))
    if not usable(case):
        return
    layer, x = case.layer(), case.inputs()
    wanted = steps_of(in_its_unit(layer, case), x)
    for found, expected in zip(steps_of(layer, x), wanted, strict=True):
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)
    assert len(wanted) == STEPS


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 99),
    st.integers(2, 6),
    st.integers(3, 12),
    st.sampled_from(sorted(SHAPES)),
    st.sampled_from(ROUNDINGS),
)
def test_the_unit_follows_from_what_is_stored(
    seed: int, bits: int, others: int, shape: str, rounding: str
) -> None:
    """Weights, biases and what a spike adds are what they were, times the unit."""
    torch.manual_seed(seed)
    layer = DecolleLayer(SHAPES[shape], 3, DecolleSettings(refractory=0.75), input_max=3.0)
    with torch.no_grad():
        layer.weight.mul_(2.0 ** (seed % 9 - 4) * (1 + seed / 99))
    roles = {"weight": {"word_length": bits}}
    plan = QuantizationPlan.uniform(others, rounding, scale="free", roles=roles)
    resolved = calibrate(layer, plan.resolve(layer))
    attach(layer, resolved)
    formats = {one.info.name: one.format for one in resolved.tensors}
    refractory = declared(layer, "refractory")
    assert (Fraction(refractory) / Fraction(formats["refractory"].step)).denominator == 1
    assert layer.unit == 0.75 / refractory
    assert 0.5 < layer.unit < 4.0
    step = float(formats["weight"].step)
    codes = dict(quantized_parameters(layer))["weight"].double() / step
    assert torch.equal(codes, codes.round())
    if rounding.startswith("nearest"):
        off = (codes * step * layer.unit - layer.weight).abs()
        inside = layer.weight.abs() < (2 ** (bits - 1) - 1) * step * layer.unit
        assert bool((off[inside] <= 0.501 * step * layer.unit).all())


@GRANULARITY
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_weights_lose_no_more_than_with_powers_of_two(bits: int, granularity: str) -> None:
    torch.manual_seed(bits)
    layer = DecolleLayer(SHAPES["pooled"], 3, DecolleSettings())
    with torch.no_grad():
        layer.weight.normal_(0.0, 0.37)
    errors = {}
    for scale in ("free", "power_of_two"):
        roles = {"weight": {"word_length": bits}}
        plan = QuantizationPlan.uniform(12, scale=scale, granularity=granularity, roles=roles)
        attached = quantize_module(layer, plan, torch.rand(1, *SHAPES["pooled"].inputs))
        unit = attached.unit
        held = dict(quantized_parameters(attached))["weight"].double() * unit
        errors[scale] = float((held - layer.weight.detach()).square().sum())
        assert (unit != 1.0) == (scale == "free")
    assert errors["free"] < errors["power_of_two"]


@GRANULARITY
@pytest.mark.parametrize("bits", [3, 8])
def test_a_device_computes_the_same_and_holds_as_much(bits: int, granularity: str) -> None:
    net, x = network(), images()
    scores(net, x)
    ordinary = QuantizationPlan.uniform(bits).resolve(net)
    wanted = footprint(net, calibrate(net, ordinary))
    attach(net, planned(net, bits, granularity))
    assert any(layer.unit != 1.0 for layer in net.layers)
    found = [scores(net, x, step_mode) for step_mode in ("s", "m")]
    assert torch.equal(*found)
    assert footprint(net, plan_of(net)).items == wanted.items
    model = device_model(net, x[:1])
    assert model.stored_bits == wanted.flash_bits
    assert model.state_bits == wanted.ram_bits
    answers = IntegerEngine(model).run(encode(model, x))
    counted = float(1 / model.output.scale)
    sums = answers.sums * 2.0**-answers.fraction_bits
    assert np.allclose(sums, found[0].double().numpy() * counted, rtol=1e-6, atol=0)


def test_potentials_are_given_as_the_network_counts_them() -> None:
    net, x = network(), images()
    with torch.no_grad():
        net.layers[0].weight.mul_(0.8)
    exact = [step.membrane for step in net.step(next(net.encoded(x)))]
    functional.reset_net(net)
    attach(net, planned(net, 12))
    steps = net.step(next(net.encoded(x)))
    assert net.layers[0].unit != 1.0
    torch.testing.assert_close(steps[0].membrane, exact[0], atol=0.01, rtol=0.0)


def test_peaks_are_those_of_the_network() -> None:
    net, x = network(), images()
    scores(net, x)
    before = net.layers[0].peaks.clone()
    net.layers[0].peaks.zero_()
    attach(net, planned(net, 12))
    scores(net, x)
    torch.testing.assert_close(net.layers[0].peaks, before, atol=0.01, rtol=0.0)


def test_units_follow_the_weights(tmp_path: Path) -> None:
    """Whatever was attached first, weights or formats."""
    net, other, x = network(), network(), images()
    with torch.no_grad():
        for layer in net.layers:
            layer.weight.mul_(0.8)
    plan = planned(net, 3)
    attach(net, plan)
    attach(other, plan)
    wanted = scores(net, x)
    before = [layer.unit for layer in other.layers]
    other.load_state_dict(net.state_dict())
    assert torch.equal(scores(other, x), wanted)
    assert before != [layer.unit for layer in other.layers]
    save_quantized(net, tmp_path / "net.pt")
    assert torch.equal(scores(load_quantized(network(), tmp_path / "net.pt"), x), wanted)


def test_readouts_keep_powers_of_two_and_the_summary_says_so() -> None:
    net = network()
    plan = planned(net, 4)
    assert "layers.2.readout: what it reads out is compared" in str(plan.summary())
    ordinary = calibrate(net, QuantizationPlan.uniform(4).resolve(net))
    for name in ("readout", "leak_p", "q"):
        found, wanted = (
            {one.path: one.format for one in of.tensors if one.info.name == name}
            for of in (plan, ordinary)
        )
        assert found == wanted


class TestAnchors:
    """Without refractoriness the threshold says what the unit is; without both, any is exact."""

    @pytest.mark.parametrize("threshold", [0.3, -0.3, 0.0])
    def test_no_refractory_drop(self, threshold: float) -> None:
        net = network(settings=DecolleSettings(refractory=0.0, threshold=threshold))
        attach(net, planned(net, 4))
        layer = net.layers[0]
        assert declared(layer, "refractory") == 0.0
        assert declared(layer, "threshold") * layer.unit == pytest.approx(threshold)
        assert torch.equal(*(scores(net, images(), step_mode) for step_mode in ("s", "m")))

    def test_constants_in_32_bit(self) -> None:
        net = network()
        rules = [{"role": "membrane", "format": "float32"}]
        attach(net, planned(net, 4, rules=rules))
        layer = net.layers[0]
        assert declared(layer, "refractory") * layer.unit == pytest.approx(1.0)


class TestRefusals:
    def test_learning(self) -> None:
        net = network()
        plan = QuantizationPlan.uniform(4, scale="free").resolve(net)
        with pytest.raises(ValueError, match="for networks that have learned"):
            calibrate(net, plan, learning=True)
        attach(net, planned(net, 4)).train()
        with pytest.raises(ValueError, match=r"layers\.0\.weight: .*write scale=power_of_two to"):
            net.step(next(net.encoded(images())))

    def test_a_spike_that_would_add_nothing(self) -> None:
        net = network()
        plan = planned(net, 4, rules=[{"role": "membrane", "format": "Q6.-2"}])
        message = r"layers\.0\.refractory: scale='free' counts in a unit in which 1 is .* more bits"
        with pytest.raises(ValueError, match=message):
            attach(net, plan)

    def test_a_format_that_is_written_down(self) -> None:
        net = network()
        rules = [{"role": "weight", "format": "Q0.3", "scale": "free"}]
        with pytest.raises(ValueError, match="disagree on the step"):
            planned(net, 4, rules=rules)
