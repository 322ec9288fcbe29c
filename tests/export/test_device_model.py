"""Device models from quantised networks: the integer engine computes what the network computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from qspinn.export import IntegerEngine, NotExportableError, device_model, encode
from qspinn.plan import QuantizationPlan, Rule
from qspinn.quantizers import attach, calibrate
from tests.quantizers.zoo import BY_NAME, ZOO
from tests.quantizers.zoo_kinds import KINDS

MULTI = {"step_mode": "m"}
NO_STEP = ("spikformer", "qkformer", "maxformer", "sdt_", "masnn", "att_ms", "ottt")
"""Networks with attention, rectifiers or standardised weights, which no device model says."""
EXPORTED = [one for one in ZOO if not any(word in one.name for word in (*NO_STEP, "SNAS", "DHS"))]


def quantized(net, x, bits=8, **settings):
    functional.reset_net(net)
    net.eval()
    plan = QuantizationPlan.uniform(bits, **settings).resolve(net, x)
    attach(net, calibrate(net, plan, x))
    return net


def output(net, x):
    functional.reset_net(net)
    with torch.no_grad():
        y = net(x)
    functional.reset_net(net)
    return torch.stack(y) if isinstance(y, list | tuple) else y


def check_equal(net, x, axis):
    """Answers of the engine, as real numbers, are the outputs of the network."""
    model = device_model(net, x.narrow(axis, 0, 1))
    answers = IntegerEngine(model).run(encode(model, x, axis))
    values = answers.sums * 2.0**-answers.fraction_bits * float(model.output.scale)
    wanted = output(net, x).double().numpy()
    assert np.allclose(values.reshape(wanted.shape), wanted, rtol=1e-6, atol=1e-6)
    assert np.abs(values).max() > 0
    return model


def check_variant(variant, bits, scale="power_of_two"):
    net, x = variant.network(), variant.inputs()
    settings = {"granularity": "channel" if bits % 2 else "tensor", "scale": scale}
    check_equal(quantized(net, x, bits, **settings), x, 0 if variant.static else 1)


REFUSED_KINDS = ("averages of nine", "attention", "norm after an addition")
JOINED = [name for name in KINDS if not any(word in name for word in REFUSED_KINDS)]


@pytest.mark.few(0.2)
@pytest.mark.parametrize(("name", "bits"), [(n, 8 - 3 * (i % 2)) for i, n in enumerate(JOINED)])
def test_every_way_of_joining_layers(name, bits):
    check_variant(KINDS[name].variant, bits)


def test_a_norm_that_cannot_be_folded_is_refused():
    variant = KINDS["norm after an addition"].variant
    x = variant.inputs()
    with pytest.warns(UserWarning, match="batch norm that is not folded"):
        net = quantized(variant.network(), x)
    with pytest.raises(NotExportableError, match="norm: computes batch norm that is not folded"):
        device_model(net, x[:, :1])


@pytest.mark.parametrize("bits", [4, 3])
def test_networks_of_which_some_layers_have_units_of_their_own(bits):
    """A residual network: its sums of currents share the unit of powers of two."""
    check_variant(BY_NAME["spiking_resnet18"], bits, "free")


@pytest.mark.slow
@pytest.mark.parametrize("bits", [8, 5, 4])
@pytest.mark.parametrize("variant", EXPORTED, ids=lambda one: one.name)
@pytest.mark.campaign
def test_the_model_zoo(variant, bits):
    check_variant(variant, bits)


@pytest.mark.few(0.34, "campaign")
@pytest.mark.slow
@pytest.mark.parametrize("bits", [5, 4])
@pytest.mark.parametrize("name", JOINED)
def test_every_way_of_joining_layers_with_units_of_their_own(name, bits):
    check_variant(KINDS[name].variant, bits, "free")


@pytest.mark.slow
@pytest.mark.parametrize("bits", [5, 4])
@pytest.mark.parametrize("variant", EXPORTED, ids=lambda one: one.name)
@pytest.mark.campaign
def test_the_model_zoo_with_units_of_their_own(variant, bits):
    check_variant(variant, bits, "free")


class Loop(nn.Module):
    """A loop over time in the network, which feeds spikes back through weights."""

    def __init__(self):
        super().__init__()
        self.a, self.n = layer.Linear(12, 16), neuron.LIFNode()
        self.back = layer.Linear(16, 16, bias=False)
        self.b, self.o = layer.Linear(16, 5), neuron.IFNode()

    def forward(self, x):
        total, z = 0.0, torch.zeros(x.shape[1], 16)
        for frame in x:
            z = self.n(self.a(frame) + self.back(z))
            total = total + self.o(self.b(z))
        return total / len(x)


class Potential(nn.Module):
    """Reads the last potential of neurons that never fire."""

    def __init__(self):
        super().__init__()
        self.a, self.n = layer.Linear(12, 16), neuron.LIFNode()
        self.b, self.o = layer.Linear(16, 5), neuron.LIFNode(v_threshold=float("inf"))

    def forward(self, x):
        for frame in x:
            self.o(self.b(self.n(self.a(frame))))
        return self.o.v


def decoded(decode):
    hidden = [nn.Linear(12, 16), neuron.LIFNode(**MULTI), nn.Linear(16, 5)]
    return nn.Sequential(*hidden, neuron.NonSpikingLIFNode(decode=decode))


def row(*middle):
    return nn.Sequential(nn.Linear(12, 16), *middle, nn.Linear(16, 5), neuron.IFNode(**MULTI))


NETWORKS = {
    "loop": (Loop, "sum"),
    "potential": (Potential, "last"),
    "each potential": (lambda: decoded(None), "each"),
    "last potential": (lambda: decoded("last_mem"), "last"),
    "mean potential": (lambda: decoded("mean-mem"), "sum"),
    "filter": (lambda: row(neuron.LIFNode(**MULTI), layer.SynapseFilter(2.0, **MULTI)), "each"),
    "counting": (lambda: row(neuron.ILIFNode(**MULTI)), "each"),
    "parametric": (lambda: row(neuron.ParametricLIFNode(v_reset=None, **MULTI)), "each"),
    "voting": (
        lambda: nn.Sequential(
            layer.SeqToANNContainer(nn.Linear(12, 20), nn.Dropout(0.3)),
            neuron.LIFNode(**MULTI), layer.VotingLayer(4, **MULTI),
        ),
        "each",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_ways_of_reading_and_kinds_of_neurons(name):
    torch.manual_seed(0)
    build, over = NETWORKS[name]
    x = (torch.rand(6, 3, 12) < 0.4).float()
    model = check_equal(quantized(build(), x, 7), x, 1)
    assert model.output.over == over


def plain(*layers):
    return nn.Sequential(*layers, nn.Flatten(2), nn.Linear(32, 4), neuron.IFNode(**MULTI))


def transposed():
    inner = layer.ConvTranspose2d(2, 2, 1, **MULTI)
    return plain(
        layer.Conv2d(2, 2, 1, **MULTI), neuron.LIFNode(**MULTI), inner, neuron.IFNode(**MULTI)
    )


def reflected():
    return plain(
        layer.Conv2d(2, 2, 3, padding=1, padding_mode="reflect", **MULTI), neuron.LIFNode(**MULTI)
    )


def averages():
    first = [layer.Conv2d(2, 2, 1, **MULTI), neuron.LIFNode(**MULTI)]
    return nn.Sequential(
        *first, layer.AvgPool2d(3, padding=1, stride=1, **MULTI), nn.Flatten(2), nn.Linear(32, 4),
        neuron.IFNode(**MULTI),
    )  # fmt: skip


REFUSED = {
    "transposed": (transposed, "2: is a transposed convolution"),
    "reflected": (reflected, "0: padding_mode='reflect'; write 'zeros'"),
    "fallback": (
        lambda: plain(layer.Conv2d(2, 2, 1, **MULTI), neuron.QIFNode(**MULTI)),
        "1: QIFNode has no step in whole numbers; use IF, LIF, PLIF or ILIF",
    ),
    "averages": (averages, "2: multiplies by 1/9, .* average over 2, 4, 8"),
    "input": (
        lambda: plain(neuron.IFNode(**MULTI), layer.Conv2d(2, 2, 1, **MULTI)),
        "0: takes the network's own input",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_device_model_says_is_refused_by_layer_and_reason(name):
    build, message = REFUSED[name]
    x = (torch.rand(4, 2, 2, 4, 4, generator=torch.manual_seed(0)) < 0.5).float()
    net = quantized(build(), x)
    with pytest.raises(NotExportableError, match=message):
        device_model(net, x[:, :1])


def test_tensors_in_float_are_refused_by_name():
    x = (torch.rand(4, 2, 12) < 0.5).float()
    net = row(neuron.LIFNode(**MULTI))
    plan = QuantizationPlan((Rule.from_dict({"role": "weight", "word_length": 8}),)).resolve(net, x)
    attach(net, calibrate(net, plan, x))
    with pytest.raises(NotExportableError, match=r"0\.bias, .* stay in 32-bit floating point"):
        device_model(net, x[:, :1])


def test_a_network_without_quantizers_is_refused():
    with pytest.raises(ValueError, match="quantizers"):
        device_model(row(neuron.LIFNode(**MULTI)), torch.zeros(3, 1, 12))


def test_names_and_origin_are_kept():
    x = (torch.rand(4, 2, 12) < 0.5).float()
    net = quantized(row(neuron.LIFNode(**MULTI)), x)
    model = device_model(net, x[:, :1], name="n", classes=list("abcde"), origin={"by": "me"})
    assert (model.name, model.classes, model.origin) == ("n", tuple("abcde"), {"by": "me"})
    assert device_model(net, x[:, :1]).name == "Sequential"


def test_the_network_is_left_as_it_was():
    x = (torch.rand(4, 2, 12) < 0.5).float()
    net = quantized(row(neuron.LIFNode(**MULTI)), x).train()
    state = {name: one.clone() for name, one in net.state_dict().items()}
    device_model(net, x[:, :1])
    assert net.training
    assert all(torch.equal(one, state[name]) for name, one in net.state_dict().items())


@pytest.mark.parametrize(
    ("shape", "message"), [((3, 2, 13), "are no frames of 12"), ((3, 2, 0), "are no frames of 12")]
)
def test_inputs_of_another_size_are_refused(shape, message):
    x = (torch.rand(4, 2, 12) < 0.5).float()
    model = device_model(quantized(row(neuron.LIFNode(**MULTI)), x), x[:, :1])
    with pytest.raises(ValueError, match=message):
        encode(model, torch.zeros(shape), 1)
    with pytest.raises(ValueError, match="the model takes spikes, 0 or 1"):
        encode(model, x / 2, 1)
    with pytest.raises(ValueError, match=r"write whole numbers \[T, N, 12\]"):
        IntegerEngine(model).run(np.zeros((2, 12), np.int64))


def test_sequences_of_another_length_are_run():
    x = (torch.rand(9, 2, 12) < 0.5).float()
    net = quantized(row(neuron.LIFNode(**MULTI)), x)
    model = device_model(net, x[:3, :1])
    assert model.steps == 3
    answers = IntegerEngine(model).run(encode(model, x, 1))
    assert np.array_equal(answers.sums, output(net, x).numpy())


def test_sums_beyond_the_accumulators_are_counted():
    x = (torch.rand(9, 2, 12) < 0.9).float()
    net = quantized(row(neuron.LIFNode(**MULTI)), x)
    model = device_model(net, x[:3, :1])
    codes = encode(model, x, 1)
    assert IntegerEngine(model, accumulators=32).run(codes).overflows == {}
    assert sum(IntegerEngine(model, accumulators=6).run(codes).overflows.values()) > 0
