"""NIR graphs as SpikingJelly modules: the same outputs as their equations in NumPy give."""

import copy
import pickle
import warnings

import nir
import numpy as np
import pytest
import torch
from spikingjelly.activation_based import functional

from qspinn.export.nir_reading import network_from_nir
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import plan_of, quantize_module
from tests.export.graphs import DT, GRAPHS, chain, f32, i_and_f, lif, random
from tests.reference.nir_graph import Simulator

STEPS, SAMPLES = 12, 3


def inputs(graph, steps=STEPS):
    shape = graph.nodes["in"].input_type["input"]
    return (random(7).random((steps, SAMPLES, *shape)) < 0.5).astype(np.float64)


def outputs(network, x):
    """In float64: a spike must not depend on the order of a sum."""
    functional.reset_net(network)
    with torch.no_grad():
        return network.double()(torch.from_numpy(x)).numpy()


def check(make, **simulation):
    graph = make()
    x = inputs(graph)
    expected = Simulator(graph, dt=DT, **simulation).run(x)
    found = outputs(network_from_nir(graph, dt=DT, **simulation), x)
    assert found.shape == expected.shape
    assert expected.std() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("comparison", [">=", ">"])
@pytest.mark.parametrize("order", ["leak_first", "input_first"])
@pytest.mark.parametrize("method", ["euler", "exact", "exponential_leak"])
@pytest.mark.parametrize("name", GRAPHS)
def test_computes_what_the_equations_say(name, method, order, comparison):
    make, _ = GRAPHS[name]
    check(make, method=method, order=order, comparison=comparison)


@pytest.mark.parametrize("name", [name for name, (_, resets_to_0) in GRAPHS.items() if resets_to_0])
def test_resets_by_subtraction(name):
    check(GRAPHS[name][0], reset="subtract")


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize(("comparison", "steps"), [(">=", [1, 3, 5]), (">", [2, 5])])
def test_at_its_threshold(comparison, steps, reset):
    """A quarter of the current per step, a threshold of a half: all sums are exact."""
    quarters = chain((1,), nir.Linear(f32([[0.25]])), i_and_f((1,), r=1.0, v_threshold=0.5))
    network = network_from_nir(quarters, comparison=comparison, reset=reset)
    with torch.no_grad():
        found = network(torch.ones(6, 1, 1)).flatten()
    if (comparison, reset) == (">", "subtract"):
        steps = [2, 4]  # a quarter is left
    assert found.nonzero().flatten().tolist() == steps


@pytest.mark.parametrize(("comparison", "expected"), [(">=", [0, 1, 1]), (">", [0, 0, 1])])
def test_a_threshold_node_at_its_threshold(comparison, expected):
    network = network_from_nir(chain((1,), nir.Threshold(f32([0.3]))), comparison=comparison)
    values = torch.tensor(f32([0.2, 0.3, 0.31]))[:, None, None]
    with torch.no_grad():
        assert network(values).flatten().tolist() == expected


def test_states_go_on_until_they_are_reset():
    network, x = network_from_nir(lif_alone(), dt=DT), torch.rand(8, 2, 3)
    with torch.no_grad():
        whole = network(x)
        functional.reset_net(network)
        parts = torch.cat([network(x[:3]), network(x[3:])])
    assert torch.equal(whole, parts)
    assert whole.any()


def lif_alone():
    return chain((3,), lif((3,), tau=f32([1.0, 2.0, 3.0])))


def test_moves_copies_and_saves_with_its_constants():
    network = network_from_nir(GRAPHS["image"][0](), dt=DT)
    assert {"layers.1.tau", "layers.1.v_threshold"} <= network.state_dict().keys()
    copied = pickle.loads(pickle.dumps(copy.deepcopy(network)))
    x = torch.from_numpy(inputs(GRAPHS["image"][0]())).float()
    with torch.no_grad():
        assert torch.equal(network(x), copied(x))


@pytest.mark.parametrize("name", GRAPHS)
def test_is_quantised_completely(name):
    graph = GRAPHS[name][0]()
    network = network_from_nir(graph, dt=DT)
    x = torch.from_numpy(inputs(graph)).float()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantized = quantize_module(network, QuantizationPlan.uniform(word_length=8), x)
    charges = {one.charge for one in plan_of(quantized).inventory.layers}
    assert "fallback" not in charges  # every neuron has an exact step in integers
    summary = str(plan_of(quantized).summary())
    assert "100% of the parameters, 100% of the states" in summary, summary
    functional.reset_net(quantized)
    with torch.no_grad():
        assert torch.isfinite(quantized(x)).all()
