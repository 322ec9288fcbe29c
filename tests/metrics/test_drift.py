"""How far two networks differ, against a reference that goes neuron by neuron."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

from qspinn.metrics import Drift, DriftMeter, Firing, FiringDrift, LayerDrift, record_firing
from qspinn.metrics.drift import one_line
from tests.reference.drift import drift, earth_movers


def trains(seed: int, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """A train whose neurons fire at rates from 0 to 1, and another with some spikes flipped."""
    rng = np.random.default_rng(seed)
    rates = rng.choice([0.0, 0.02, 0.3, 0.95, 1.0], shape[2:])
    reference = rng.random(shape) < rates
    flipped = rng.random(shape) < 0.02
    flipped[:2] = False
    silenced = rng.random(shape[2:]) < (0.0 if seed == 1 else 0.2)
    return (reference ^ flipped) & ~silenced, reference


def firing(spikes: np.ndarray | Tensor, potentials: Tensor | None = None) -> Firing:
    one = Firing(threshold=2.0)
    one.add(torch.as_tensor(spikes).float(), potentials)
    return one


def layer_drift(spikes: np.ndarray, reference: np.ndarray, parts: int = 1) -> LayerDrift:
    meter = DriftMeter()
    for index in np.array_split(np.arange(spikes.shape[1]), parts):
        meter.update(
            {"a": firing(spikes[:, index])},
            {"a": firing(reference[:, index])},
            None,
            None,
            samples=len(index),
        )
    return meter.compute().layers[0]


@pytest.mark.parametrize("shape", [(9, 5, 40), (20, 4, 3, 5, 2), (1, 1, 1)])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("parts", [1, 3])
def test_a_layer_is_measured_as_neuron_by_neuron(
    shape: tuple[int, ...], seed: int, parts: int
) -> None:
    spikes, reference = trains(seed, *shape)

    found = layer_drift(spikes, reference, min(parts, shape[1]))

    expected = drift(spikes, reference)
    assert (found.first_step, found.first_neuron) == (
        expected.pop("first_step"),
        expected.pop("first_neuron"),
    )
    shown = {name: getattr(found, name) for name in expected}
    assert shown == pytest.approx(expected, abs=1e-6)
    assert found.neurons == np.prod(shape[2:])


def test_the_cases_that_are_drawn_hold_all_kinds_of_neurons() -> None:
    expected = [drift(*trains(seed, 20, 4, 3, 5, 2)) for seed in range(5)]

    for name in ("reference_silent", "saturated", "reference_saturated", "rate_distance"):
        assert max(one[name] for one in expected) > 0.01, name
    assert sum(one["silent"] > one["reference_silent"] for one in expected) > 2
    assert {one["first_step"] for one in expected} != {0}


def test_the_distance_of_rates_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    spikes, reference = trains(7, 30, 6, 50)

    rates, others = spikes.mean((0, 1)), reference.mean((0, 1))
    expected = stats.wasserstein_distance(rates, others)

    assert earth_movers(rates, others) == pytest.approx(expected)
    assert layer_drift(spikes, reference).rate_distance == pytest.approx(expected, abs=1e-6)


def test_neurons_that_swap_their_parts_leave_the_rates_alone() -> None:
    spikes = np.zeros((4, 1, 2))
    spikes[:, :, 0] = 1

    found = layer_drift(spikes, spikes[:, :, ::-1].copy())

    assert found.rate_distance == 0
    assert found.agreement == 0
    assert (found.first_step, found.first_neuron) == (0, (0,))


def test_the_limit_of_saturation_is_95_percent_of_all_steps() -> None:
    spikes = np.ones((20, 5, 3))
    spikes[0, :, 0] = 0  # 95 of 100
    spikes[:6, 0, 1] = 0  # 94 of 100

    assert layer_drift(spikes, spikes).saturated == pytest.approx(2 / 3)


def test_potentials_are_compared_in_thresholds() -> None:
    rng = np.random.default_rng(0)
    spikes = np.zeros((4, 3, 5))
    first, second = rng.normal(size=(2, 4, 3, 5))
    meter = DriftMeter()

    meter.update(
        {"a": firing(spikes, torch.tensor(first))},
        {"a": firing(spikes, torch.tensor(second))},
        None,
        None,
        samples=3,
    )

    expected = np.sqrt(np.mean((first - second) ** 2)) / 2
    assert meter.compute().layers[0].membrane_distance == pytest.approx(expected, rel=1e-5)


def test_potentials_that_are_not_finite_count_as_not_known() -> None:
    meter = DriftMeter()
    spikes = np.ones((1, 1, 2))
    infinite = torch.full((1, 1, 2), torch.inf)
    meter.update(
        {"a": firing(spikes, infinite)}, {"a": firing(spikes, infinite)}, None, None, samples=1
    )

    assert meter.compute().layers[0].membrane_distance is None


def test_agreement_is_the_share_of_samples_of_one_class() -> None:
    meter = DriftMeter()
    meter.update({}, {}, torch.eye(3), torch.eye(3))
    meter.update({}, {}, torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]]))

    found = meter.compute()

    assert (found.samples, found.agreement, found.layers) == (4, 0.75, ())
    assert found.first_layer is None
    assert "no layer shows its spikes" in found.notes[0]


def test_without_scores_it_says_so() -> None:
    meter = DriftMeter()
    spikes = np.ones((2, 3, 4))
    meter.update({"a": firing(spikes)}, {"a": firing(spikes)}, None, None, samples=3)

    found = meter.compute()

    assert found.agreement is None
    assert "no class scores" in found.notes[0]
    assert "agreement" not in found.metrics()


def test_a_layer_that_cannot_be_compared_is_left_out_and_told() -> None:
    spikes = np.ones((2, 3, 4))
    reference = {name: firing(spikes) for name in ("gone", "changed", "kept")}
    given = {"changed": firing(np.ones((2, 3, 5))), "kept": firing(spikes)}
    meter = DriftMeter()

    meter.update(given, reference, torch.eye(3), torch.eye(3))

    found = meter.compute()
    assert [one.layer for one in found.layers] == ["kept"]
    assert found.notes[0] == (
        "layer gone is not compared: the quantised network shows no spikes of it"
    )
    assert "changed" in found.notes[1]
    assert "differ in shape" in found.notes[1]


def test_warnings_name_the_layer_the_shares_and_what_to_do() -> None:
    reference = np.ones((4, 2, 10))
    reference[1:] = 0
    quiet = reference.copy()
    quiet[:, :, :4] = 0
    loud = np.ones_like(reference)
    meter = DriftMeter({"quiet": "weight"})

    meter.update(
        {"fine": firing(reference), "quiet": firing(quiet), "loud": firing(loud)},
        {name: firing(reference) for name in ("fine", "quiet", "loud")},
        torch.eye(2),
        torch.eye(2),
    )

    found = meter.compute()
    assert found.warnings == (
        "layer quiet: 40% silent, 0% before; give weight 2 bits more",
        "layer loud: 100% saturated, 0% before; give membrane 2 bits more",
    )
    assert found.first_layer == "quiet"


def test_a_tenth_more_of_silent_neurons_is_no_warning_yet() -> None:
    reference = np.ones((4, 2, 10))
    quiet = reference.copy()
    quiet[:, :, 0] = 0

    assert layer_drift(quiet, reference).warnings == ()
    quiet[:, :, 1] = 0
    assert len(layer_drift(quiet, reference).warnings) == 1


def test_the_dictionary_is_of_plain_types() -> None:
    spikes, reference = trains(0, 9, 5, 2, 3)
    meter = DriftMeter()
    meter.update({"a": firing(spikes)}, {"a": firing(reference)}, torch.eye(5), torch.eye(5))
    found = meter.compute()

    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))

    assert written == found.to_dict()
    assert written["layers"][0]["layer"] == "a"
    assert written["layers"][0]["rate"] == found.layers[0].rate
    assert found.metrics()["a/silent"] == found.layers[0].silent
    assert "a/role" not in found.metrics()


def test_errors_become_lines_that_a_record_takes() -> None:
    assert one_line("a\n  b\x1b[2J") == "a b?[2J"
    assert one_line("x" * 1000) == "x" * 200 + "..."


def test_what_cannot_be_is_refused() -> None:
    meter = DriftMeter()
    with pytest.raises(ValueError, match=r"expected \[N, classes\] of both"):
        meter.update({}, {}, torch.eye(3), torch.eye(4))
    with pytest.raises(ValueError, match="give the number of samples"):
        meter.update({}, {}, None, torch.eye(4))
    with pytest.raises(ValueError, match="samples=0"):
        meter.compute()
    with pytest.raises(ValueError, match=r"expected \[T, N, \*\]"):
        FiringDrift().update(torch.ones(2, 2), torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"agreement=1\.5"):
        Drift(samples=1, agreement=1.5)
    names = (
        *("rate", "reference_rate", "silent", "reference_silent", "saturated"),
        *("reference_saturated", "rate_distance", "agreement", "overlap"),
    )
    numbers: dict[str, Any] = dict.fromkeys(names, 0.0)
    with pytest.raises(ValueError, match=r"a\.silent=nan"):
        LayerDrift("a", 3, **{**numbers, "silent": float("nan")})
    with pytest.raises(ValueError, match="both or neither"):
        LayerDrift("a", 3, **numbers, first_step=1)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        layer.Linear(4, 6), neuron.LIFNode(v_threshold=0.5), layer.Linear(6, 3), neuron.IFNode()
    )


class Own(nn.Module):
    """Fires where its input is positive, and shows it."""

    spike_watcher: Any = None

    def forward(self, x: Tensor) -> Tensor:
        spikes = (x > 0).float()
        if self.spike_watcher is not None:
            self.spike_watcher(spikes)
        return spikes


@pytest.mark.parametrize("mode", ["m", "s"])
@pytest.mark.parametrize("potentials", [True, False])
def test_spikes_are_recorded_in_both_step_modes(mode: str, potentials: bool) -> None:
    net = network()
    functional.set_step_mode(net, mode)
    x = torch.rand(7, 2, 4, generator=torch.Generator().manual_seed(1)) * 3
    with torch.no_grad(), record_firing(net, potentials) as recorded:
        out = net(x) if mode == "m" else torch.stack([net(step) for step in x])

    assert list(recorded) == ["1", "3"]
    assert torch.equal(recorded["3"].spikes, out != 0)
    assert recorded["1"].spikes.dtype == torch.bool
    assert 0 < recorded["1"].spikes.float().mean() < 1
    assert recorded["1"].threshold == 0.5
    assert recorded["1"].values == 7 * 2 * 6
    shown = recorded["1"].potentials
    assert (shown is not None) == potentials
    if shown is not None:
        assert torch.equal(shown[-1], net[1].v)
    assert not net[1].store_v_seq
    assert not net[1]._forward_hooks


def test_layers_come_in_the_order_in_which_they_compute() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.second, self.first = neuron.IFNode(), Own()

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    net = Turned()
    with record_firing(net) as recorded:
        net(torch.ones(2, 3))

    assert list(recorded) == ["first", "second"]
    assert recorded["first"].potentials is None


def test_own_neurons_are_recorded_and_let_go_even_after_an_error() -> None:
    net = Own()
    x = torch.tensor([[[1.0, -1.0]]])
    with record_firing(net) as recorded:
        net(x)
    assert torch.equal(recorded[""].spikes, x > 0)
    assert net.spike_watcher is None
    with pytest.raises(TypeError), record_firing(net):
        net(None)
    assert net.spike_watcher is None
