"""Formats in the notation of hls4ml, whose integer bits count the sign."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from spikingjelly.activation_based import layer, neuron
from torch import nn

from qspinn.export import NotExportableError, device_model
from qspinn.export.hls4ml import ap_fixed, hls4ml_config, write_hls4ml
from qspinn.fixed_point import FixedPointFormat, PerChannelFormat
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, calibrate


def ends(text: str) -> tuple[Fraction, Fraction]:
    """Smallest and largest number of a type, as AMD's documentation defines it."""
    name, rest = text.rstrip(">").split("<")
    width, integer = (int(one) for one in rest.split(",")[:2])
    step = Fraction(2) ** (integer - width)
    if name == "ap_ufixed":
        return Fraction(0), (2**width - 1) * step
    assert name == "ap_fixed"
    return -(2 ** (width - 1)) * step, (2 ** (width - 1) - 1) * step


@given(st.integers(-4, 8), st.integers(-4, 12), st.booleans())
def test_a_type_holds_the_numbers_of_the_format(integer, fraction, signed):
    if not 1 <= integer + fraction + signed <= 32:
        return
    fmt = FixedPointFormat(integer, fraction, signed)
    assert ends(ap_fixed(fmt)) == (Fraction(fmt.min), Fraction(fmt.max))


def test_the_sign_counts_among_the_integer_bits():
    assert ap_fixed(FixedPointFormat(1, 6)) == "ap_fixed<8,2>"
    assert ap_fixed(FixedPointFormat(1, 6, signed=False)) == "ap_ufixed<7,1>"
    assert ap_fixed(FixedPointFormat(1, 6), "nearest") == "ap_fixed<8,2,AP_RND,AP_SAT>"
    assert ap_fixed(FixedPointFormat(1, 6), "truncate", "wrap") == "ap_fixed<8,2,AP_TRN,AP_WRAP>"


def test_formats_of_channels_become_one_that_holds_all():
    fmt = PerChannelFormat(6, (5, 3))
    low, high = ends(ap_fixed(fmt))
    for one in fmt.formats:
        assert low <= Fraction(one.min)
        assert Fraction(one.max) <= high


def test_symmetric_weights_have_types_that_hold_them():
    assert ap_fixed(FixedPointFormat(0, 1, symmetric=True)) == "ap_fixed<2,1>"
    sign = FixedPointFormat(-3, 3, symmetric=True)
    assert ap_fixed(sign) == "ap_fixed<2,-1>"
    assert ends("ap_fixed<2,-1>") == (Fraction(-1, 4), Fraction(1, 8))
    assert ap_fixed(PerChannelFormat(1, (3, 0), symmetric=True)) == "ap_fixed<5,2>"


def test_stochastic_rounding_is_refused():
    with pytest.raises(NotExportableError, match=r"rounding='stochastic': ap_fixed has no such"):
        ap_fixed(FixedPointFormat(1, 6), "stochastic")


def test_a_model_gets_a_type_for_each_tensor(tmp_path):
    torch.manual_seed(0)
    x = (torch.rand(4, 2, 12) < 0.4).float()
    network = nn.Sequential(
        layer.Linear(12, 8, step_mode="m"),
        neuron.LIFNode(step_mode="m"),
        layer.Linear(8, 3, bias=False, step_mode="m"),
        neuron.IFNode(step_mode="m"),
    )
    plan = calibrate(network, QuantizationPlan.uniform(6).resolve(network, x), x)
    model = device_model(attach(network, plan), x[:, :1])
    config = hls4ml_config(model)
    layers = config["LayerName"]
    formats = {tensor.path: tensor.format for tensor in plan.tensors}
    assert layers["0"]["Precision"]["weight"] == ap_fixed(formats["0.weight"])
    assert layers["0"]["Precision"]["bias"] == ap_fixed(formats["0.bias"])
    assert layers["1"]["Precision"]["membrane"].startswith(ap_fixed(formats["1.v"])[:-1])
    assert set(layers["3"]["Precision"]) == {"membrane", "threshold", "result"}
    assert "bias" not in layers["2"]["Precision"]
    assert json.loads(write_hls4ml(model, tmp_path).read_text()) == config
