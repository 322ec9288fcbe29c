"""The DECOLLE network in float: sizes, inputs, step modes, refusals."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import functional
from torch import Tensor

from qspinn.metrics import record_firing
from qspinn.networks import Decolle, DecolleSettings, LayerStep

LIVELY = DecolleSettings(tau_membrane=3.0, tau_synapse=2.0, weight_gain=2.0)


def network(**arguments: Any) -> Decolle:
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "input_shape": (2, 8, 8),
        "num_classes": 3,
        "channels": [4, 5],
        "kernel_sizes": [5, 3],
        "strides": 1,
        "pools": [2, 1],
        "hidden": [7],
        "time_steps": 8,
        "burn_in": 3,
        "settings": LIVELY,
    }
    return Decolle(**{**given, **arguments}).eval()


def scores(net: Decolle, x: Tensor, step_mode: str = "s") -> Tensor:
    functional.set_step_mode(net, step_mode)
    functional.reset_net(net)
    with torch.no_grad():
        result: Tensor = net(x)
    functional.reset_net(net)
    return result


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 2, 8, 8, generator=torch.Generator().manual_seed(1))


class TestSizes:
    def test_layers_follow_each_other(self) -> None:
        net = network(strides=[1, 2])
        shapes = [(one.shape.traces, one.shape.neurons, one.shape.spikes) for one in net.layers]
        assert shapes == [
            ((2, 8, 8), (4, 8, 8), (4, 4, 4)),
            ((4, 4, 4), (5, 2, 2), (5, 2, 2)),
            ((20,), (7,), (7,)),
        ]
        assert [one.readout.shape for one in net.layers] == [(3, 64), (3, 20), (3, 7)]
        assert [one.is_last for one in net.layers] == [False, False, True]

    def test_states_have_the_sizes_that_are_said(self) -> None:
        net = network(input_shape=(2, 9, 7), strides=2, channels=[4], kernel_sizes=5, pools=2)
        net.step(torch.rand(3, 2, 9, 7))
        for layer in net.layers:
            assert layer.q.shape == layer.p.shape == (3, *layer.shape.traces)
            assert layer.r.shape == (3, *layer.shape.neurons)

    def test_how_weights_start(self) -> None:
        layer = network(channels=[256], kernel_sizes=5, pools=1, hidden=[]).layers[0]
        bound = 2.0 * math.sqrt(3 / 50)
        assert 0.99 * bound < float(layer.weight.detach().abs().max()) <= bound
        assert float(layer.weight.detach().std()) == pytest.approx(2.0 / math.sqrt(50), rel=0.02)
        assert not bool(layer.bias.any())
        reach = 1.0 / math.sqrt(256 * 64)
        assert 0.99 * reach < float(layer.readout.abs().max()) <= reach
        assert not layer.readout.requires_grad


class TestDynamics:
    def test_one_neuron_by_hand(self) -> None:
        settings = DecolleSettings(
            tau_membrane=2.0, tau_synapse=1.0, tau_refractory=3.0, refractory=0.75, threshold=0.25
        )
        net = Decolle((1,), 2, [], hidden=[1], time_steps=12, burn_in=0, settings=settings)
        layer = net.layers[0]
        with torch.no_grad():
            layer.weight.fill_(1.5)
            layer.bias.fill_(0.125)
        alpha, beta, gamma = math.exp(-1 / 2), math.exp(-1), math.exp(-1 / 3)
        q = p = r = 0.0
        fired = 0
        for t in range(12):
            x = float(t % 3 != 2)
            step = net.step(torch.full((1, 1), x))[0]
            p, q = alpha * p + (1 - alpha) * q, beta * q + (1 - beta) * x
            u = 1.5 * p + 0.125 - r
            assert float(step.membrane) == pytest.approx(u, abs=1e-6)
            assert float(step.spikes) == float(u >= 0.25)
            r = gamma * r + 0.75 * (u >= 0.25)
            assert (float(layer.q), float(layer.p), float(layer.r)) == pytest.approx((q, p, r))
            fired += u >= 0.25
        assert 0 < fired < 12

    @pytest.mark.parametrize("coding", ["direct", "bernoulli", "binary", "counts"])
    def test_both_step_modes_give_the_same(self, coding: str) -> None:
        net = network(coding=coding)
        found = [scores(net, images(), step_mode) for step_mode in ("s", "m")]
        torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)
        assert (coding == "counts") or bool(found[0].any())

    def test_scores_are_the_mean_readout_after_the_burn_in(self) -> None:
        net, x = network(), images()
        found, total = scores(net, x), torch.zeros(3, 3)
        with torch.no_grad():
            for t, frame in enumerate(net.encoded(x)):
                step = net.step(frame)[-1]
                total += step.readout if t >= 3 else 0.0
        torch.testing.assert_close(found, total / 5, rtol=1e-5, atol=1e-6)

    def test_a_batch_is_as_good_as_its_images(self) -> None:
        net, x = network(), images()
        together = scores(net, x)
        alone = torch.cat([scores(net, one.unsqueeze(0)) for one in x])
        torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)

    def test_states_go_on_until_they_are_reset(self) -> None:
        net, x = network(), images()
        with torch.no_grad():
            first, second = net(x), net(x)
        assert not torch.equal(first, second)
        functional.reset_net(net)
        assert torch.equal(scores(net, x), first)

    def test_it_is_copied_and_saved(self) -> None:
        net = network()
        scores(net, images())
        other = network(num_classes=3)
        with torch.no_grad():
            other.layers[0].weight.zero_()
        other.load_state_dict(net.state_dict())
        assert torch.equal(scores(other, images()), scores(net, images()))
        assert torch.equal(other.layers[1].peaks, net.layers[1].peaks)
        assert torch.equal(scores(copy.deepcopy(net), images()), scores(net, images()))


class TestReadoutDropout:
    SETTINGS = dataclasses.replace(LIVELY, readout_dropout=0.5)

    def steps(self, net: Decolle) -> list[list[LayerStep]]:
        functional.reset_net(net)
        torch.manual_seed(5)
        return [net.step(frame) for frame in net.encoded(images())]

    def test_only_readouts_of_training_miss_spikes(self) -> None:
        whole, dropped = network().train(), network(settings=self.SETTINGS).train()
        differing = 0
        for one, other in zip(self.steps(whole), self.steps(dropped), strict=True):
            for a, b in zip(one, other, strict=True):
                assert torch.equal(a.spikes, b.spikes)
                assert torch.equal(a.membrane, b.membrane)
                differing += not torch.equal(a.readout, b.readout)
        assert differing > 10
        for a, b in zip(whole.layers, dropped.layers, strict=True):
            for name in ("q", "p", "r"):
                assert torch.equal(getattr(a, name), getattr(b, name))

    def test_on_average_readouts_are_those_of_all_spikes(self) -> None:
        draws = 4000
        net = network(settings=self.SETTINGS, hidden=[], channels=[4], kernel_sizes=5, pools=2)
        x = images(1)[0].expand(draws, 2, 8, 8)
        for frame in net.encoded(x):
            all_seen = net.step(frame)[0]
        functional.reset_net(net.train())
        torch.manual_seed(5)
        for frame in net.encoded(x):
            half_seen = net.step(frame)[0].readout.detach()
        fired, readout = all_seen.spikes.detach()[0].flatten(), net.layers[0].readout
        assert 3 < float(fired.sum()) < 64
        # A spike counts twice or not at all, so its variance is the square of its weight.
        variance = (fired * readout.square()).sum(1)
        error = (half_seen.mean(0) - all_seen.readout.detach()[0]).abs()
        assert bool((error < 5 * (variance / draws).sqrt()).all())
        torch.testing.assert_close(half_seen.var(0), variance, rtol=0.15, atol=0.0)

    def test_evaluation_draws_nothing(self) -> None:
        with_dropout, without = network(settings=self.SETTINGS), network()
        for step_mode in ("s", "m"):
            state = torch.get_rng_state()
            found = scores(with_dropout, images(), step_mode)
            assert torch.equal(torch.get_rng_state(), state)
            assert torch.equal(found, scores(without, images(), step_mode))
        steps = zip(self.steps(with_dropout), self.steps(without), strict=True)
        assert all(torch.equal(a[-1].readout, b[-1].readout) for a, b in steps)

    def test_without_it_training_draws_nothing(self) -> None:
        net = network().train()
        torch.manual_seed(5)
        state = torch.get_rng_state()
        self.steps(net)
        assert torch.equal(torch.get_rng_state(), state)


class TestInputs:
    def frames(self, net: Decolle, x: Tensor) -> list[np.ndarray]:
        return [frame.numpy() for frame in net.encoded(x)]

    def test_sequences_last_as_long_as_they_last(self) -> None:
        net, x = network(), torch.rand(3, 11, 2, 8, 8)
        frames = self.frames(net, x)
        assert len(frames) == 11
        assert all(np.array_equal(one, x[:, t].numpy()) for t, one in enumerate(frames))
        assert scores(net, x).shape == (3, 3)

    def test_images_are_shown_for_all_steps(self) -> None:
        frames = self.frames(network(), images())
        assert len(frames) == 8
        assert all(np.array_equal(one, images().numpy()) for one in frames)

    def test_direct_values_are_cut_off(self) -> None:
        x = images() * 4.0 - 1.0
        for one in self.frames(network(input_max=2.0), x):
            assert np.array_equal(one, np.clip(x.numpy(), 0.0, 2.0))

    def test_counts_are_whole_and_cut_off(self) -> None:
        x = torch.tensor([0.0, 0.9, 1.0, 2.5, 7.0]).view(1, 1, 5).expand(1, 4, 5)
        net = Decolle((5,), 2, [], hidden=[2], burn_in=0, coding="counts", input_max=3)
        assert all(one.tolist() == [[0, 0, 1, 2, 3]] for one in self.frames(net, x))

    def test_binary_spikes_are_where_something_is(self) -> None:
        x = torch.tensor([[0.0, 0.25, 7.0]])
        net = Decolle((3,), 2, [], hidden=[2], coding="binary")
        assert all(one.tolist() == [[0, 1, 1]] for one in self.frames(net, x))

    def test_bernoulli_spikes_have_the_rate_of_the_pixel(self) -> None:
        net = Decolle((3,), 2, [], hidden=[2], time_steps=40, coding="bernoulli").train()
        x = torch.tensor([[0.0, 0.3, 1.0]]).expand(500, 3)
        mean = np.mean(self.frames(net, x), axis=(0, 1))
        assert (mean[0], mean[2]) == (0.0, 1.0)
        assert abs(mean[1] - 0.3) < 5 * math.sqrt(0.21 / 20000)
        assert not np.array_equal(self.frames(net, x), self.frames(net, x))

    def test_bernoulli_spikes_repeat_outside_of_training(self) -> None:
        net = network(coding="bernoulli")
        state = torch.get_rng_state()
        assert np.array_equal(self.frames(net, images()), self.frames(net, images()))
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"channels": [], "kernel_sizes": 3, "pools": 1, "hidden": []},
            r"channels=\[\] and hidden=\[\]: write the size",
        ),
        ({"channels": [4], "kernel_sizes": [3, 3]}, r"kernel_sizes=\[3, 3\]: write one number"),
        ({"kernel_sizes": 4}, "kernel_sizes=4: write an odd number"),
        ({"pools": [4, 4]}, "pools=4: the layer is 2x2 before it"),
        ({"pools": 0}, "pool=0: write 1 or more"),
        ({"hidden": [0]}, "outputs=0: write 1 or more"),
        ({"input_shape": (8, 8)}, r"input_shape=\[8, 8\]: a convolution takes \[C, H, W\]"),
        ({"num_classes": 0}, "num_classes=0"),
        ({"burn_in": -1}, "burn_in=-1: write 0 or more"),
        ({"time_steps": 3}, "time_steps=3: write more than burn_in=3"),
        ({"coding": "rate"}, "coding='rate': write one of direct, bernoulli, binary, counts"),
        ({"input_max": 0.0}, "input_max=0.0: write a finite number above 0"),
        ({"coding": "binary", "input_max": 2}, "input_max=2: coding=binary makes spikes; write 1"),
        ({"coding": "counts", "input_max": 1.5}, "input_max=1.5: coding=counts; write a whole"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(**arguments)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tau_membrane", 0.0), ("tau_synapse", -1.0), ("tau_refractory", math.nan),
        ("time_step", math.inf), ("refractory", -0.5), ("threshold", math.nan),
        ("surrogate", "box"), ("surrogate_alpha", 0.0), ("weight_gain", 0.0),
        ("readout_gain", -1.0), ("readout_dropout", -0.1), ("readout_dropout", 1.0),
        ("readout_dropout", math.nan),
    ],
)  # fmt: skip
def test_bad_settings_are_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"settings {name}="):
        DecolleSettings(**{name: value})


@pytest.mark.parametrize("shape", [(3, 2, 8, 7), (3, 11, 2, 8, 7), (2, 8, 8), (3, 8, 8)])
def test_another_shape_says_which_is_taken(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \['N', 2, 8, 8\] or \['N', 'T', 2, 8, 8\]"):
        network()(torch.rand(shape))


def test_sequences_shorter_than_the_burn_in_are_refused() -> None:
    with pytest.raises(ValueError, match=r"has T=3 steps: write network\.burn_in below that"):
        network()(torch.rand(1, 3, 2, 8, 8))


class TestWatchers:
    @pytest.mark.parametrize("mode", ["m", "s"])
    def test_whoever_watches_gets_the_spikes_that_are_passed_on(self, mode: str) -> None:
        net = network()
        alone = scores(net, images(), mode)
        passed: list[Tensor] = []
        handle = net.layers[0].register_forward_hook(lambda _, __, out: passed.append(out))
        with record_firing(net) as firing:
            watched = scores(net, images(), mode)
        handle.remove()

        assert torch.equal(watched, alone)
        assert list(firing) == ["layers.0", "layers.1", "layers.2"]
        expected = passed[0] if mode == "m" else torch.stack(passed)
        assert torch.equal(firing["layers.0"].spikes, expected != 0)
        assert [tuple(one.spikes.shape) for one in firing.values()] == [
            (8, 3, 4, 4, 4),
            (8, 3, 5, 4, 4),
            (8, 3, 7),
        ]
        assert all(one.spikes.any() for one in firing.values())
        assert all(layer.spike_watcher is None for layer in net.layers)

    def test_a_step_of_learning_shows_them_too(self) -> None:
        net = network()
        with record_firing(net) as firing:
            taken = [net.step(x) for x in net.encoded(images())]
        functional.reset_net(net)

        expected = torch.stack([step[1].spikes for step in taken])
        assert torch.equal(firing["layers.1"].spikes, expected != 0)
