"""Whoever watches the spikes gets those that the network computes, and changes nothing."""

import pytest
import torch
from spikingjelly.activation_based import functional
from torch import Tensor

from qspinn.metrics import ShowsSpikes, record_firing
from qspinn.networks import DiehlCook


def network(backend: str = "auto") -> DiehlCook:
    torch.manual_seed(0)
    return DiehlCook((1, 6, 6), neurons=7, time_steps=70, backend=backend)


def images(count: int = 5) -> Tensor:
    return torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("backend", ["reference", "numba", "torch"])
def test_a_presentation_shows_the_spikes_that_it_counts(backend: str) -> None:
    net = network(backend)
    assert isinstance(net, ShowsSpikes)
    expected = net.present(images(), record=True)
    alone = net.present(images())

    with record_firing(net) as firing:
        shown = net.present(images())

    assert expected.spikes is not None
    assert expected.spikes.any()
    assert torch.equal(firing[""].spikes, expected.spikes)
    assert firing[""].potentials is None
    assert torch.equal(shown.spike_counts, alone.spike_counts)
    assert shown.spikes is None
    assert net.spike_watcher is None


@pytest.mark.parametrize("mode", ["m", "s"])
def test_a_layer_shows_its_spikes_in_both_step_modes(mode: str) -> None:
    net = network()
    net.step_mode = mode
    x = (torch.rand(20, 3, 36, generator=torch.Generator().manual_seed(2)) < 0.5).float()

    with record_firing(net) as firing:
        out = net(x) if mode == "m" else torch.stack([net(step) for step in x])

    functional.reset_net(net)
    assert torch.equal(firing[""].spikes, out != 0)
    assert out.any()


def test_learning_is_the_same_with_and_without() -> None:
    watched, alone = network(), network()
    with record_firing(watched) as firing:
        watched.present(images(), learning=True)
    alone.present(images(), learning=True)

    assert torch.equal(watched.weight, alone.weight)
    assert firing[""].spikes.shape == (70, 5, 7)
