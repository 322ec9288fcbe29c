"""The network equals its twin in exact rationals: every spike, weight, theta and count."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qspinn.fixed_point import PerChannelFormat, TensorQuantizer
from qspinn.networks import DiehlCook
from tests.stdp.cases import (
    NEURONS,
    ROUNDINGS,
    images,
    input_spikes,
    lively,
    quantizers,
    twin_of,
)

BACKENDS = ("reference", "numba")


def agree(
    network: DiehlCook, held: Mapping[str, TensorQuantizer] | None, calls: int = 2, count: int = 3
) -> tuple[int, int]:
    """Teaches the network on each backend, and its twin; the spikes and the updates there were."""
    network.use_fixed_point(held)
    twin = twin_of(network, held)
    on_backends = [copy.deepcopy(network) for _ in BACKENDS]
    spikes = updates = 0
    for call in range(calls):
        shown, before = images(count, seed=call), (twin.updates, twin.underflows)
        inputs = input_spikes(on_backends[0], shown)
        expected = twin.present(inputs, True, call * count)
        for one, backend in zip(on_backends, BACKENDS, strict=True):
            one.backend = backend
            found = one.present(shown, learning=True, record=True)
            assert found.spikes is not None
            raster = [[t.nonzero()[:, 0].tolist() for t in m] for m in found.spikes.unbind(1)]
            assert raster == expected
            assert found.spike_counts.tolist() == found.spikes.sum(0).tolist()
            assert one.weight.tolist() == [[float(w) for w in row] for row in twin.weight]
            assert one.turns.tolist() == twin.turns
            assert one.theta.tolist() == [float(x) for x in twin.theta]
            counts = (found.updates, found.underflows)
            assert counts == (twin.updates - before[0], twin.underflows - before[1])
            assert found.input_spikes == sum(len(t) for m in inputs for t in m)
        spikes += int(found.spike_counts.sum())
        updates += found.updates
    return spikes, updates


@pytest.mark.few(0.2, "campaign")
@pytest.mark.parametrize("one_winner", [True, False])
@pytest.mark.parametrize("parallel", [1, 2])
@pytest.mark.parametrize("update", ["online", "deferred"])
@pytest.mark.parametrize("normalise", ["presentation", "update"])
@pytest.mark.parametrize("rounding", [None, *ROUNDINGS])
def test_every_way_to_run(
    one_winner: bool,
    parallel: int,
    update: str,
    normalise: str,
    rounding: str | None,
) -> None:
    network = lively(
        normalise=normalise,
        one_winner=one_winner,
        inhibition_delay=2 if one_winner else 1,
        parallel=parallel,
        update=update,
    )
    held = None if rounding is None else quantizers(network, 9, rounding)
    spikes, updates = agree(network, held)
    assert spikes > 8
    assert updates > 20


@pytest.mark.few(0.25)
@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_ranges_that_are_left(overflow: str, rounding: str) -> None:
    network = lively(rate_post=0.9, rate_pre=0.5, inhibition=9.0, weight_sum=5.0)
    small = {"v": "Q2.3", "theta": "UQ1.5", "weight": "UQ0.4"}
    assert agree(network, quantizers(network, 8, rounding, overflow, **small))[1] > 8


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("update", ["online", "deferred"])
@pytest.mark.parametrize("normalise", ["presentation", "update"])
def test_a_format_per_neuron(rounding: str, update: str, normalise: str) -> None:
    network = lively(update=update, normalise=normalise)
    fmt = PerChannelFormat(6, (6, 4, 7, 5), signed=False, axis=1)
    assert agree(network, quantizers(network, 12, rounding, weight=fmt))[1] > 20


@pytest.mark.few(0.25)
@pytest.mark.parametrize("changes", [
    {"rate_pre": 0.0}, {"trace_target": 0.0}, {"weight_sum": None}, {"refractory": 0},
    {"rate_post": 0.0, "rate_pre": 0.0}, {"theta_plus": 0.0}, {"inhibition": 0.0},
    {"weight_max": 0.6}, {"reset": -70.0}, {"tau_pre": 1.0, "tau_post": 300.0}, {"rest": 0.5},
])  # fmt: skip
@pytest.mark.parametrize("rounding", [None, "truncate", "stochastic"])
def test_constants_at_their_ends(changes: Any, rounding: str | None) -> None:
    if "rest" in changes:
        changes = {"rest": 0.0, "threshold": 2.0, "reset": 0.0}
    network = lively(**changes)
    agree(network, None if rounding is None else quantizers(network, 10, rounding))


@pytest.mark.parametrize("changes", [
    {"trace_target": 2.0**-14}, {"trace_target": 5 * 2.0**-14}, {"theta_plus": 2.0**-40},
])  # fmt: skip
def test_constants_that_lie_between_two_codes(changes: Any) -> None:
    """Halves go up, also where the code above is odd."""
    network = lively(**changes)
    agree(network, quantizers(network, 8, "nearest", trace_pre=13, theta=15))


@pytest.mark.slow
def test_weights_of_few_bits_beside_numbers_of_24() -> None:
    network = lively()
    assert agree(network, quantizers(network, 24, "stochastic", weight=3))[1] > 20


WORD_LENGTHS = {
    "weight": st.integers(2, 24),
    "theta": st.integers(4, 24),
    "v": st.integers(6, 24),
    "trace_pre": st.integers(2, 24),
    "trace_post": st.integers(2, 24),
    "threshold": st.integers(3, 24),
    "reset": st.integers(3, 24),
    "inhibition": st.integers(3, 24),
    "leak": st.integers(3, 16),
    "leak_pre": st.integers(3, 16),
    "leak_post": st.integers(3, 16),
}


@st.composite
def networks_and_formats(draw: Any) -> tuple[DiehlCook, dict[str, TensorQuantizer]]:
    changes = {
        "inhibition_delay": draw(st.integers(1, 3)),
        "one_winner": draw(st.booleans()),
        "parallel": draw(st.integers(1, 4)),
        "update": draw(st.sampled_from(("online", "deferred"))),
        "normalise": draw(st.sampled_from(("presentation", "update"))),
        "refractory": draw(st.integers(0, 4)),
        "rate_pre": draw(st.sampled_from((0.0, 0.3)) | st.floats(0, 0.2)),
        "rate_post": draw(st.floats(0.01, 1.0)),
        "trace_target": draw(st.sampled_from((0.0, 0.3)) | st.floats(0, 0.9)),
        "weight_sum": draw(st.none() | st.floats(0.5, 5.0)),
        "theta_plus": draw(st.floats(0.0, 2.0)),
        "theta_tau": draw(st.floats(20.0, 1e7)),
    }
    network = lively(seed=draw(st.integers(0, 2**31)), **changes)
    held = {}
    for name, lengths in WORD_LENGTHS.items():
        held[name] = {
            "format": draw(lengths),
            "rounding": draw(st.sampled_from(ROUNDINGS)),
            "overflow": draw(st.sampled_from(("saturate", "wrap"))),
        }
    if draw(st.booleans()):
        bits = draw(st.lists(st.integers(-2, 9), min_size=NEURONS, max_size=NEURONS))
        held["weight"]["format"] = PerChannelFormat(8, tuple(bits), signed=False, axis=1)
    return network, quantizers(network, 8, **held)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(networks_and_formats())
def test_any_formats(drawn: tuple[DiehlCook, dict[str, TensorQuantizer]]) -> None:
    network, held = drawn
    try:
        network.use_fixed_point(held)
    except ValueError as error:
        assert "net." in str(error)  # which tensor; test_formats.py says what for
        return
    agree(network, held, calls=1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_learned_in_evaluation(backend: str) -> None:
    network = lively(backend)
    network.use_fixed_point(quantizers(network, 8, "stochastic"))
    before = network.weight.clone()
    found = network.present(images())
    assert found.updates == found.underflows == 0
    assert found.spikes is None
    assert torch.equal(network.weight, before)
    assert not network.theta.any()
    assert int(network.presentations) == 0
    assert int(found.spike_counts.sum()) > 0
