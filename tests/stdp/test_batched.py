"""The batched backend equals the step-by-step reference: bit for bit on grids, closely in float."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from qspinn.fixed_point import PerChannelFormat
from qspinn.networks import STDP, DiehlCook, DiehlCookSettings
from qspinn.stdp import batched
from qspinn.steps.exactness import spike_product_dtype
from tests.stdp.cases import ROUNDINGS, images, quantizers

INPUTS, NEURONS, STEPS, IMAGES = 60, 20, 40, 4


def network(steps: int = STEPS, **changes: Any) -> DiehlCook:
    """Weights start on a coarse grid, so that sums of them are exact in float as well."""
    of_settings = {"max_rate": 200.0, "inhibition": 20.0, "theta_plus": 0.3}
    of_stdp: dict[str, Any] = {"rate_post": 0.05, "weight_sum": 20.0}
    for name, value in changes.items():
        (of_stdp if name in STDP.__dataclass_fields__ else of_settings)[name] = value
    settings, stdp = DiehlCookSettings(**of_settings), STDP(**of_stdp)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        one = DiehlCook((INPUTS,), NEURONS, steps, settings, stdp)
    one.weight.copy_((one.weight * 256).round() / 256)
    return one


def shown_by(
    one: DiehlCook, backend: str, learning: bool, count: int = IMAGES
) -> tuple[DiehlCook, Any]:
    """A copy of the network, and what comes of showing it images."""
    one = copy.deepcopy(one)
    one.backend = backend
    return one, one.present(images(count, inputs=INPUTS), learning, record=True)


def check_same(
    one: DiehlCook,
    learning: bool,
    backend: str = "torch",
    exact: bool = True,
    count: int = IMAGES,
) -> Any:
    """Backend and reference come to the same; what that is."""
    expected, wanted = shown_by(one, "reference", learning, count)
    got, found = shown_by(one, backend, learning, count)
    assert torch.equal(found.spikes, wanted.spikes)
    assert torch.equal(found.spike_counts, wanted.spike_counts)
    assert found.spike_counts.dtype == torch.int32
    counts = (found.input_spikes, found.updates, found.underflows)
    if exact:
        assert counts == (wanted.input_spikes, wanted.updates, wanted.underflows)
        for name, value in expected.state_dict().items():
            assert torch.equal(got.state_dict()[name], value), name
    else:
        assert counts[:2] == (wanted.input_spikes, wanted.updates)
        torch.testing.assert_close(got.weight, expected.weight, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(got.theta, expected.theta, rtol=1e-6, atol=1e-6)
    assert int(wanted.spike_counts.sum()) > count
    assert (wanted.updates > 0) == learning
    return wanted


@pytest.mark.few(0.2, "campaign")
@pytest.mark.parametrize("rounding", [None, *ROUNDINGS])
@pytest.mark.parametrize("one_winner", [True, False])
@pytest.mark.parametrize("rates", [(0.0, 0.0), (1e-2, 0.1)], ids=["post", "pre_and_target"])
@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("update", ["online", "deferred"])
def test_every_way_to_learn(
    update: str, parallel: int, rates: tuple[float, float], one_winner: bool, rounding: str | None
) -> None:
    pre, target = rates
    changes = {"rate_pre": pre, "trace_target": target, "one_winner": one_winner}
    one = network(update=update, parallel=parallel, inhibition_delay=1 + (parallel > 1), **changes)
    if rounding is not None:
        one.use_fixed_point(quantizers(one, 10, rounding, weight=6))
    check_same(one, learning=True, exact=rounding is not None)


@pytest.mark.parametrize("rounding", [None, *ROUNDINGS])
@pytest.mark.parametrize("inhibition_delay", [1, 2, STEPS + 1])
@pytest.mark.parametrize("one_winner", [True, False])
def test_inference(one_winner: bool, inhibition_delay: int, rounding: str | None) -> None:
    one = network(one_winner=one_winner, inhibition_delay=inhibition_delay)
    if rounding is not None:
        one.use_fixed_point(quantizers(one, 10, rounding, weight=6))
    check_same(one, learning=False)


@pytest.mark.few(0.2, "campaign")
@pytest.mark.parametrize("rounding", [None, *ROUNDINGS])
@pytest.mark.parametrize("update", ["online", "deferred"])
@pytest.mark.parametrize("parallel", [1, 3])
def test_normalisation_at_updates(parallel: int, update: str, rounding: str | None) -> None:
    one = network(update=update, parallel=parallel, normalise="update", rate_pre=1e-2)
    if rounding is not None:
        one.use_fixed_point(quantizers(one, 10, rounding, weight=6))
    check_same(one, learning=True, exact=rounding is not None)


@pytest.mark.parametrize("update", ["online", "deferred"])
@pytest.mark.parametrize("word_length", [3, 8, 9, 16, 24])
def test_codes_of_every_width(word_length: int, update: str) -> None:
    one = network(update=update, rate_pre=1e-2)
    one.use_fixed_point(quantizers(one, 16, "stochastic", weight=word_length))
    check_same(one, learning=True)


@pytest.mark.parametrize("update", ["online", "deferred"])
def test_formats_per_neuron(update: str) -> None:
    one = network(update=update, rate_pre=1e-2, parallel=2)
    fmt = PerChannelFormat(8, tuple(6 + j % 3 for j in range(NEURONS)), signed=False, axis=1)
    one.use_fixed_point(quantizers(one, 10, "nearest", weight=fmt))
    check_same(one, learning=True)


@pytest.mark.parametrize("update", ["online", "deferred"])
def test_overflow_that_wraps(update: str) -> None:
    one = network(update=update, rate_pre=1e-2, inhibition=100.0)
    one.use_fixed_point(quantizers(one, 9, "nearest", "wrap", v="Q4.4"))
    check_same(one, learning=True)


def test_without_normalisation() -> None:
    check_same(network(weight_sum=None, update="deferred"), learning=True, exact=False)


@pytest.mark.parametrize("learning", [True, False])
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, learning: bool) -> None:
    """Memory for one presentation, and for currents of one step, is enough."""
    one = network(update="deferred", parallel=3, rate_pre=1e-2)
    one.use_fixed_point(quantizers(one, 9, "stochastic"))
    monkeypatch.setattr(batched, "ELEMENTS", {"cpu": 1})
    check_same(one, learning)


def test_memory_bounds_the_presentations_held(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []

    def steps(plasticity: Any, inputs: Tensor, keys: Tensor) -> Tensor:
        held.append(len(keys))
        return torch.zeros(len(inputs), len(keys), NEURONS, dtype=torch.bool)

    monkeypatch.setattr(batched, "ELEMENTS", {"cpu": 2 * STEPS * (INPUTS + NEURONS)})
    monkeypatch.setattr(batched, "torch_steps", steps)
    shown_by(network(), "torch", learning=False, count=5)
    assert held == [2, 2, 1]


@pytest.mark.parametrize("update", ["online", "deferred"])
@pytest.mark.parametrize("learning", [True, False])
def test_no_image_and_no_spike(learning: bool, update: str) -> None:
    one = network(update=update, rate_pre=1e-2)
    one.backend = "torch"
    before = one.weight.clone()
    found = one.present(torch.zeros(0, INPUTS), learning, record=True)
    assert found.spikes is not None
    assert found.spikes.shape == (STEPS, 0, NEURONS)
    assert found.spike_counts.shape == (0, NEURONS)
    found = one.present(torch.zeros(2, INPUTS), learning)
    assert found.spikes is None
    assert (found.input_spikes, found.updates, int(found.spike_counts.sum())) == (0, 0, 0)
    assert torch.equal(one.weight, before)


@pytest.mark.parametrize(
    ("largest", "terms", "expected"),
    [
        (256, 65536, torch.float32),
        (256, 65537, torch.float64),
        (257, 1, torch.float64),  # TF32 and bfloat16 would shorten it
        (1 << 24, 1 << 29, torch.float64),
    ],
)
def test_products_are_computed_where_they_are_exact(
    largest: int, terms: int, expected: torch.dtype
) -> None:
    assert spike_product_dtype(largest, terms) == expected


def test_no_float_holds_sums_of_54_bits() -> None:
    with pytest.raises(ValueError, match=r"exceed 53 bits.*backend='reference'"):
        spike_product_dtype(1 << 24, (1 << 29) + 1)
