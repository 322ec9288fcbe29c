"""Neurons do what their settings say, against the equations in NumPy."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import functional, neuron

from qspinn.networks import NeuronSettings


def simulate(x: np.ndarray, settings: NeuronSettings) -> np.ndarray:
    """Spikes by the equations in the docstring of NeuronSettings, in float64."""
    k = 0.0 if settings.kind == "if" else 1 / settings.tau
    rest = 0.0 if settings.v_reset is None else settings.v_reset
    v = np.full(x.shape[1:], rest)
    spikes = np.zeros_like(x)
    for t, current in enumerate(x):
        if settings.decay_input and settings.kind != "if":
            h = v + k * (current - (v - rest))
        else:
            h = v + current - k * (v - rest)
        spikes[t] = h >= settings.v_threshold
        soft = h - settings.v_threshold * spikes[t]
        v = soft if settings.v_reset is None else np.where(spikes[t] == 1, rest, h)
    return spikes


@pytest.mark.parametrize("kind", ["lif", "plif", "if"])
@pytest.mark.parametrize("v_reset", [None, 0.0, -0.25])
@pytest.mark.parametrize("decay_input", [False, True])
def test_spikes_follow_the_equations(kind: str, v_reset: float | None, decay_input: bool) -> None:
    # tau 4 and currents in 1/64 keep float32 exact, so that spikes can be compared one by one.
    settings = NeuronSettings(kind=kind, tau=4.0, v_reset=v_reset, decay_input=decay_input)
    x = np.random.default_rng(0).integers(-64, 256, (6, 50, 7)) / 64

    spikes = settings.build()(torch.from_numpy(x).float())

    expected = simulate(x, settings)
    assert 0.02 < expected.mean() < 0.95
    np.testing.assert_array_equal(spikes.detach().numpy(), expected)


def test_whole_numbers_are_accepted() -> None:
    node = NeuronSettings(tau=3, v_threshold=2, v_reset=-1).build()  # SpikingJelly refuses ints

    assert isinstance(node, neuron.LIFNode)
    assert (node.tau, node.v_threshold, node.v_reset) == (3.0, 2.0, -1.0)


def test_plif_learns_its_decay_and_starts_at_tau() -> None:
    node = NeuronSettings(kind="plif", tau=5.0).build()

    assert isinstance(node, neuron.ParametricLIFNode)
    assert node.w.sigmoid().item() == pytest.approx(1 / 5)
    node(torch.rand(3, 2, 4)).sum().backward()
    assert node.w.grad is not None


@pytest.mark.parametrize("name", ["atan", "sigmoid", "piecewise_quadratic", "rectangle"])
def test_surrogates_pass_a_gradient_near_the_threshold(name: str) -> None:
    node = NeuronSettings(kind="if", surrogate=name, surrogate_alpha=1.0).build()
    x = torch.tensor([[[0.9, 1.1]]], requires_grad=True)

    spikes = node(x)
    spikes.sum().backward()

    assert spikes.tolist() == [[[0.0, 1.0]]]
    assert x.grad is not None
    assert (x.grad > 0).all()


def test_step_modes_agree() -> None:
    settings = NeuronSettings()
    x = torch.rand(5, 3, 4)
    single = settings.build(step_mode="s")

    assert torch.equal(settings.build()(x), torch.stack([single(step) for step in x]))
    functional.reset_net(single)
    assert single.v == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "izhikevich"}, "kind='izhikevich': write one of lif, plif, if"),
        ({"surrogate": "step"}, "surrogate='step': write one of atan"),
        ({"tau": 1.0}, "tau=1.0: write more than 1"),
        ({"tau": float("nan")}, "tau=nan"),
        ({"surrogate_alpha": 0.0}, "surrogate_alpha=0.0"),
        ({"v_threshold": 0.0}, "v_threshold=0.0: write more than 0.0"),
        ({"v_reset": 1.5}, "v_threshold=1.0: write more than 1.5"),
        ({"v_reset": None, "v_threshold": -1.0}, "v_threshold=-1.0: write more than 0.0"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NeuronSettings(**settings)


def test_settings_are_plain_values() -> None:
    assert NeuronSettings(**asdict(NeuronSettings(kind="if"))) == NeuronSettings(kind="if")
