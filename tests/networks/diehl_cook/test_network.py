"""The network as a module: step modes, states, copies, what is saved, errors, what it declares."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from qspinn.networks import STDP, DiehlCook, DiehlCookSettings
from qspinn.plan import QuantizationPlan, footprint
from qspinn.quantizers import attach, calibrate, detach
from qspinn.stdp import kernel
from qspinn.stdp.encoding import content_keys, poisson_spikes, spike_probabilities
from tests.stdp.cases import images, lively, quantizers

FLOAT_OR_FIXED = pytest.mark.parametrize("rounding", [None, "nearest", "stochastic"])


def held(network: DiehlCook, rounding: str | None) -> DiehlCook:
    if rounding is not None:
        network.use_fixed_point(quantizers(network, 10, rounding))
    return network


def spikes_for(network: DiehlCook, shown: Tensor) -> Tensor:
    """The input spikes [T, M, I] of an evaluation."""
    p = spike_probabilities(shown.flatten(1), network.settings.max_rate)
    return poisson_spikes(p, content_keys(int(network.seed), p), network.time_steps)


def same_state(a: nn.Module, b: nn.Module) -> bool:
    other = b.state_dict()
    return all(torch.equal(value, other[name]) for name, value in a.state_dict().items())


class TestForward:
    @FLOAT_OR_FIXED
    def test_step_modes_are_equal(self, rounding: str | None) -> None:
        network = held(lively(), rounding)
        x = spikes_for(network, images())
        many = network(x)
        network.reset()
        network.step_mode = "s"
        assert torch.equal(torch.stack([network(row) for row in x]), many)
        assert many.shape == (network.time_steps, 4, 4)
        assert set(many.unique().tolist()) == {0.0, 1.0}

    def test_the_neurons_of_present(self) -> None:
        """On the same input spikes; without draws among neurons, whose keys are others."""
        network = lively(one_winner=False)
        network.present(images(), learning=True)
        network.use_fixed_point(quantizers(network, 10, "nearest"))
        found = network.present(images(), record=True).spikes
        assert found is not None
        assert torch.equal(network(spikes_for(network, images())).bool(), found)
        assert found.any()

    @FLOAT_OR_FIXED
    def test_reset_clears_states_alone(self, rounding: str | None) -> None:
        network = held(lively(), rounding)
        network.present(images(), learning=True)
        before = copy.deepcopy(network.state_dict())
        x = spikes_for(network, images())
        first, second = network(x), network(x)
        assert not torch.equal(first, second)
        functional.reset_net(network)
        assert network.state is None
        assert torch.equal(network(x), first)
        assert network.theta.any()
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

    def test_present_leaves_states_alone(self) -> None:
        network = lively()
        x = spikes_for(network, images())
        network(x)
        other = copy.deepcopy(network)
        network.present(images(), learning=False)
        assert torch.equal(network(x), other(x))

    def test_formats_clear_states(self) -> None:
        network = lively()
        network(spikes_for(network, images()))
        network.use_fixed_point(quantizers(network))
        assert network.state is None

    @pytest.mark.parametrize("shape", [(4, 5), (6,), (4, 6, 1)])
    def test_spikes_of_another_shape(self, shape: tuple[int, ...]) -> None:
        network = lively()
        network.step_mode = "s"
        with pytest.raises(ValueError, match=r"spikes .* of a step: DiehlCook takes \[N, 6\]"):
            network(torch.zeros(shape))

    def test_nothing_gets_a_gradient(self) -> None:
        network = lively()
        assert not network.weight.requires_grad
        assert not network(spikes_for(network, images())).requires_grad


@FLOAT_OR_FIXED
@pytest.mark.parametrize("backend", ["reference", "numba"])
class TestCopies:
    """Whatever way a network is kept in the middle of learning, it goes on bit for bit."""

    def go_on(self, network: DiehlCook) -> tuple[DiehlCook, Tensor]:
        found = network.present(images(3, seed=9), learning=True, record=True)
        assert found.spikes is not None
        return network, found.spikes

    def check(self, network: DiehlCook, other: DiehlCook) -> None:
        assert network is not other
        (a, spikes), (b, others) = self.go_on(network), self.go_on(other)
        assert torch.equal(spikes, others)
        assert same_state(a, b)
        assert spikes.any()

    def test_deepcopy(self, backend: str, rounding: str | None) -> None:
        network = held(lively(backend), rounding)
        network.present(images(), learning=True)
        self.check(network, copy.deepcopy(network))

    def test_pickle(self, backend: str, rounding: str | None) -> None:
        network = held(lively(backend), rounding)
        network.present(images(), learning=True)
        self.check(network, pickle.loads(pickle.dumps(network)))

    def test_a_checkpoint(self, backend: str, rounding: str | None) -> None:
        network = held(lively(backend), rounding)
        network.present(images(), learning=True)
        file = io.BytesIO()
        torch.save(network.state_dict(), file)
        file.seek(0)
        fresh = held(lively(backend, seed=1), rounding)
        assert not torch.equal(fresh.weight, network.weight)
        fresh.load_state_dict(torch.load(file, weights_only=True))
        assert int(fresh.presentations) == 4
        self.check(network, fresh)

    def test_a_deepcopy_in_the_middle_of_a_forward_pass(
        self, backend: str, rounding: str | None
    ) -> None:
        network = held(lively(backend), rounding)
        x = spikes_for(network, images())
        network(x)
        other = copy.deepcopy(network)
        assert torch.equal(network(x), other(x))


def test_what_is_saved() -> None:
    assert set(lively().state_dict()) == {"weight", "theta", "presentations", "turns", "seed"}


class TestRandomness:
    def test_weights_and_seed_come_from_torch(self) -> None:
        assert same_state(lively(seed=3), lively(seed=3))
        assert not torch.equal(lively(seed=3).weight, lively(seed=4).weight)
        assert int(lively(seed=3).seed) != int(lively(seed=4).seed)

    def test_nothing_is_drawn_from_torch_afterwards(self) -> None:
        network = held(lively(), "stochastic")
        before = torch.get_rng_state()
        network.present(images(), learning=True)
        network(spikes_for(network, images()))
        assert torch.equal(torch.get_rng_state(), before)

    def test_an_image_gets_the_same_spikes_in_every_evaluation(self) -> None:
        network = held(lively(), "stochastic")
        shown = images(6)
        whole = network.present(shown, record=True).spikes
        parts = [network.present(part, record=True).spikes for part in shown.split((1, 3, 2))]
        assert whole is not None
        assert torch.equal(torch.cat([part for part in parts if part is not None], 1), whole)

    def test_an_image_gets_new_spikes_in_every_training(self) -> None:
        network = lively(rate_post=0.0, rate_pre=0.0, theta_plus=0.0, weight_sum=None)
        first = network.present(images(), learning=True, record=True).spikes
        second = network.present(images(), learning=True, record=True).spikes
        assert first is not None
        assert second is not None
        assert not torch.equal(first, second)

    def test_first_weights(self) -> None:
        network = DiehlCook(neurons=20)
        assert torch.allclose(network.weight.sum(0), torch.full((20,), 78.4))
        assert float(network.weight.amax()) <= 1.0
        assert float(network.weight.amin()) >= 0.0


class TestRevision:
    def test_it_changes_when_it_must(self) -> None:
        network = lively()
        seen = [network.revision]
        network.present(images(), learning=True)
        seen.append(network.revision)
        network.use_fixed_point(quantizers(network))
        seen.append(network.revision)
        network.use_fixed_point(None)
        seen.append(network.revision)
        network.load_state_dict(network.state_dict())
        seen.append(network.revision)
        assert len(set(seen)) == 5

    def test_it_stays_when_it_may(self) -> None:
        network = lively()
        before = network.revision
        network.present(images())
        network(spikes_for(network, images()))
        network.reset()
        network.state_dict()
        copy.deepcopy(network)
        network.train(False)
        assert network.revision == before

    def test_loading_into_a_parent_counts(self) -> None:
        parent = nn.Sequential(lively())
        before = parent[0].revision
        parent.load_state_dict(parent.state_dict())
        assert parent[0].revision != before


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"input_shape": ()}, r"input_shape=\(\): write sizes of 1 or more"),
            ({"input_shape": (1, 0, 3)}, r"input_shape=\(1, 0, 3\): write sizes of 1 or more"),
            ({"neurons": 0}, "neurons=0: write 1 or more"),
            ({"time_steps": 0}, "time_steps=0: write 1 or more"),
            ({"backend": "cuda"}, "backend='cuda': write one of auto, reference, numba, torch"),
        ],
    )
    def test_arguments(self, arguments: Any, message: str) -> None:
        with pytest.raises(ValueError, match=f"^{message}"):
            DiehlCook(**arguments)

    def test_a_step_mode_that_there_is_not(self) -> None:
        with pytest.raises(ValueError, match="step_mode"):
            DiehlCook((6,), 4, step_mode="x")

    @pytest.mark.parametrize(
        ("name", "bad", "message"),
        [
            ("rest", float("nan"), "a number"),
            ("rest", True, "a number"),
            ("threshold", -65.0, r"more than rest=-65\.0"),
            ("threshold", "13", "a number"),
            ("reset", -52.0, r"less than threshold=-52\.0"),
            ("tau", 0.0, "more than 0"),
            ("refractory", -1, "0 to 255"),
            ("refractory", 256, "0 to 255"),
            ("inhibition", -1.0, "0 or more"),
            ("inhibition", float("inf"), "a number"),
            ("inhibition_delay", 0, r"1 \(direct\) or more"),
            ("inhibition_delay", 256, r"1 \(direct\) or more"),
            ("theta_plus", -0.1, "0 or more"),
            ("theta_tau", 0, "more than 0"),
            ("theta_max", 0.0, "more than 0"),
            ("max_rate", 0.0, "more than 0 and at most 1000"),
            ("max_rate", 1000.5, "more than 0 and at most 1000"),
        ],
    )
    def test_settings(self, name: str, bad: Any, message: str) -> None:
        with pytest.raises(ValueError, match=f"^DiehlCookSettings: {name}=.*: write {message}"):
            DiehlCookSettings(**{name: bad})

    @pytest.mark.parametrize(
        ("name", "bad", "message"),
        [
            ("rate_pre", -1e-9, "0 to 1"),
            ("rate_post", 1.1, "0 to 1"),
            ("rate_post", None, "a number"),
            ("trace_target", 1.0, "0 to less than 1"),
            ("trace_target", -0.1, "0 to less than 1"),
            ("tau_pre", 0.0, "more than 0"),
            ("tau_post", -20.0, "more than 0"),
            ("weight_max", 0.0, "more than 0"),
            ("weight_sum", 0.0, "more than 0 .*or null"),
            ("parallel", 0, "1 or more"),
            ("update", "later", "one of online, deferred"),
            ("normalise", "never", "one of presentation, update"),
        ],
    )
    def test_plasticity(self, name: str, bad: Any, message: str) -> None:
        with pytest.raises(ValueError, match=f"^STDP: {name}=.*: write {message}"):
            STDP(**{name: bad})

    @pytest.mark.parametrize("shape", [(2, 28, 28), (2, 1, 28), (784,), (2, 3, 28, 28)])
    def test_images_of_another_shape(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"images \[.*input_shape=\[1, 28, 28\].*'M', 1, 28"):
            DiehlCook(neurons=2).present(torch.zeros(shape))

    @pytest.mark.parametrize("bad", [-0.5, 255.0, float("nan")])
    @pytest.mark.parametrize("learning", [True, False])
    def test_images_outside_0_to_1(self, bad: float, learning: bool) -> None:
        network = lively()
        shown = images()
        shown[2, 3] = bad
        before = copy.deepcopy(network.state_dict())
        with pytest.raises(ValueError, match=r"scale them to \[0, 1\].*max_rate"):
            network.present(shown, learning)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

    def test_frozen_settings(self) -> None:
        with pytest.raises(AttributeError):
            DiehlCookSettings().tau = 3.0  # type: ignore[misc]


class TestFixedPoint:
    @pytest.mark.parametrize("rounding", ["truncate", "stochastic"])
    def test_detached_before_it_learns_it_is_what_it_was(self, rounding: str) -> None:
        network = lively("numba")
        network.present(images(), learning=True)
        before = copy.deepcopy(network)
        plan = QuantizationPlan.uniform(8, rounding).resolve(network)
        attach(network, calibrate(network, plan))
        quantised = network.present(images(40), record=True)
        assert same_state(network, before)
        detach(network)
        assert type(network) is DiehlCook
        assert same_state(network, before)
        a, b = network.present(images(40)), before.present(images(40))
        assert torch.equal(a.spike_counts, b.spike_counts)
        assert not torch.equal(quantised.spike_counts, b.spike_counts)

    def test_after_learning_the_weights_stay_on_their_grid(self) -> None:
        network = lively("numba")
        plan = QuantizationPlan.uniform(8).resolve(network)
        attach(network, calibrate(network, plan, learning=True))
        network.present(images(), learning=True)
        learned = network.weight.clone()
        detach(network)
        assert torch.equal(network.weight, learned)
        steps = learned * 256
        assert torch.equal(steps, steps.round())

    def test_an_attached_network_that_is_copied(self) -> None:
        network = lively("numba")
        plan = QuantizationPlan.uniform(8, "stochastic").resolve(network)
        attach(network, calibrate(network, plan, learning=True))
        network.present(images(), learning=True)
        for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            a = copy.deepcopy(network)
            a.present(images(3, seed=2), learning=True)
            other.present(images(3, seed=2), learning=True)
            assert same_state(a, other)

    def test_updates_that_rounding_swallows(self) -> None:
        """Of 2 bits, a change of at most 0.1 moves no weight under nearest; random ones do."""
        shares = {}
        for rounding in ("nearest", "stochastic"):
            network = lively("numba", rate_pre=0.0, trace_target=0.0, weight_sum=None)
            network.use_fixed_point(quantizers(network, 12, rounding, weight=2))
            found = network.present(images(60), learning=True)
            assert found.updates > 100
            shares[rounding] = found.underflows / found.updates
        assert shares["nearest"] == 1.0
        assert 0.6 < shares["stochastic"] < 0.98

    def test_nothing_is_swallowed_in_float(self) -> None:
        found = lively("numba").present(images(20), learning=True)
        assert found.updates > 100
        assert found.underflows == 0


def test_the_footprint_by_hand() -> None:
    """10 inputs, 3 neurons; all 8 bits but the counters and the constants of the rule."""
    network = DiehlCook((10,), 3)
    cost = footprint(network, QuantizationPlan.uniform(8))
    weights, thetas, potentials, constants = 30, 3, 3, 4
    refractory, pending = 3 * 3, 2 * 3  # 0 to 5 in 3 bits; two steps' spikes
    inference = 8 * (weights + thetas + potentials + constants) + refractory + pending
    assert cost.inference_bits == inference
    traces, leaks = 13, 2
    turns, rule = 3 * 16, 6 * 32
    assert cost.training_bits == inference + 8 * (traces + leaks) + turns + rule
    baseline = 32 * (weights + thetas + potentials + constants) + refractory + pending
    assert cost.baseline_inference_bits == baseline


@pytest.mark.parametrize(
    ("refractory", "bits"), [(0, None), (1, 1), (3, 2), (4, 3), (5, 3), (255, 8)]
)
def test_bits_of_the_refractory_counter(refractory: int, bits: int | None) -> None:
    network = lively(refractory=refractory)
    declared = {one["name"]: one for one in network.device_tensors()}
    assert declared.get("refractory", {}).get("word_length") == bits


@pytest.mark.parametrize("delay", [1, 2, 7])
def test_spikes_on_their_way_are_held(delay: int) -> None:
    declared = {one["name"]: one for one in lively(inhibition_delay=delay).device_tensors()}
    assert declared["pending_spikes"]["shape"] == (delay, 4)


def test_what_is_declared_follows_what_is_held() -> None:
    network = lively("numba")
    network.present(images(), learning=True)
    declared = {one["name"]: one for one in network.device_tensors()}
    assert torch.equal(declared["weight"]["value"], network.weight)
    assert torch.equal(declared["theta"]["value"], network.theta)
    assert declared["weight"]["channel_axis"] == 1
    for name in ("weight", "theta"):
        one = declared[name]
        assert one["low"] <= float(one["value"].min())
        assert float(one["value"].max()) <= one["high"]


def test_images_of_any_memory_layout() -> None:
    network = lively("numba")
    shown = images(6)
    strided = shown.t().contiguous().t()
    assert not strided.is_contiguous()
    expected = network.present(shown).spike_counts
    assert torch.equal(network.present(strided).spike_counts, expected)
    repeated = network.present(shown[:1].expand(3, 6)).spike_counts
    assert torch.equal(repeated, expected[:1].expand(3, 4))


def test_no_layout_is_compiled_for() -> None:
    """Compiling takes seconds: strided images must not be another type to the kernel."""
    network = lively("numba")
    network.present(images(6))
    compiled = len(kernel.run.signatures)
    network.present(images(6).t().contiguous().t())
    assert len(kernel.run.signatures) == compiled


def test_it_says_what_it_is() -> None:
    assert "inputs=6, neurons=4, time_steps=30, backend=numba, step_mode=m" in repr(lively("numba"))
