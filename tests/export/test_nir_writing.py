"""A device model leaves as a NIR graph and comes back as the same network."""

from __future__ import annotations

import nir
import numpy as np
import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

from qspinn.export import NotExportableError, device_model
from qspinn.export.nir_reading import network_from_nir
from qspinn.export.nir_writing import nir_graph, write_nir
from qspinn.export.saving import load_model
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, calibrate, integer_codes

MULTI = {"step_mode": "m"}


def convolutional() -> nn.Module:
    return nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1, stride=2, **MULTI),
        neuron.LIFNode(tau=2.0, **MULTI),
        layer.AvgPool2d(2, **MULTI),
        layer.Conv2d(4, 6, 2, bias=False, **MULTI),
        neuron.IFNode(**MULTI),
        layer.Flatten(**MULTI),
        layer.Linear(24, 10, **MULTI),
        neuron.LIFNode(tau=4.0, decay_input=False, **MULTI),
    )


def spikes(steps: int = 6, samples: int = 3) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return (torch.rand(steps, samples, 2, 12, 12, generator=random) < 0.4).float()


def quantized(network: nn.Module, x: Tensor, word_length: int = 8) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            nn.init.uniform_(parameter, -0.6, 0.8)
    plan = calibrate(network, QuantizationPlan.uniform(word_length).resolve(network, x), x)
    return attach(network, plan)


def test_the_graph_holds_the_numbers_that_the_codes_stand_for():
    x = spikes()
    network = quantized(convolutional(), x)
    graph = nir_graph(device_model(network, x[:, :1]))
    codes = integer_codes(network)
    for node, path in (("0", "0.weight"), ("3", "3.weight"), ("6", "6.weight")):
        held = codes[path]
        values = held.codes.double().numpy() * held.format.step
        np.testing.assert_array_equal(graph.nodes[node].weight, values)
    decay, gain = float(codes["7.decay"].codes), codes["7.decay"].format.step
    assert set(np.unique(graph.nodes["7"].tau)) == {1 / (decay * gain)}
    assert set(np.unique(graph.nodes["7"].r)) == {1 / (decay * gain)}
    assert graph.nodes["4"].metadata["format"] == str(codes_format(network, "4.v"))


def codes_format(network: nn.Module, path: str) -> object:
    from qspinn.quantizers import plan_of

    return next(one.format for one in plan_of(network).tensors if one.path == path)


def test_it_comes_back_as_the_same_network(tmp_path):
    x = spikes(steps=12)
    network = quantized(convolutional(), x, word_length=20)  # roundings hardly matter
    written = write_nir(device_model(network, x[:, :1]), tmp_path)
    back = network_from_nir(written["graph"])
    with torch.no_grad():
        functional.reset_net(network)
        expected, got = network(x), back(x)
    assert expected.mean() > 0.05
    assert (expected != got).float().mean() < 0.01


def test_the_side_car_is_the_device_model(tmp_path):
    x = spikes()
    model = device_model(quantized(convolutional(), x), x[:, :1])
    written = write_nir(model, tmp_path)
    held = load_model(written["side_car"])
    assert held.operations == model.operations
    for name, tensor in model.tensors.items():
        np.testing.assert_array_equal(held.tensors[name].codes, tensor.codes)
    assert nir.read(written["graph"]).metadata["side_car"] == "model.qspinn"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.qspinn", "network.nir"]


def test_time_constants_are_in_the_unit_of_dt():
    x = spikes()
    model = device_model(quantized(convolutional(), x), x[:, :1])
    seconds, steps = nir_graph(model, dt=1e-3), nir_graph(model)
    np.testing.assert_allclose(seconds.nodes["1"].tau, 1e-3 * steps.nodes["1"].tau)
    with pytest.raises(ValueError, match=r"dt=0: write a number above 0"):
        nir_graph(model, dt=0)


def test_what_nir_does_not_have_is_refused_by_its_name():
    x = spikes()
    pooled = nn.Sequential(
        layer.Conv2d(2, 4, 3, **MULTI), neuron.LIFNode(**MULTI), layer.MaxPool2d(2, **MULTI)
    )
    model = device_model(quantized(pooled, x), x[:, :1])
    with pytest.raises(NotExportableError, match=r"2: is a pooling, which NIR does not have"):
        nir_graph(model)
