"""Rates that fall while the network learns: when, by how much, and what a device makes of them."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qspinn.networks import STDP, DiehlCook
from tests.stdp.cases import images, lively, quantizers

FALLING = {"halve_after": 3, "halvings": 2}


def learner(backend: str, rounding: str | None, **changes: Any) -> DiehlCook:
    network = lively(backend, weight_sum=None, **changes)
    if rounding is not None:
        network.use_fixed_point(quantizers(network, 10, rounding))
    return network


def same(a: DiehlCook, b: DiehlCook) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@given(
    every=st.integers(1, 9),
    halvings=st.integers(1, 4),
    first=st.integers(0, 50),
    count=st.integers(0, 50),
)
def test_runs_share_their_rates(every: int, halvings: int, first: int, count: int) -> None:
    stdp = STDP(rate_pre=0.5, rate_post=1.0, halve_after=every, halvings=halvings)
    rates = [1.0, *(0.5**k for k in range(1, halvings + 1))]
    wanted = [rate for rate in rates[:-1] for _ in range(every)] + [rates[-1]] * (first + count)
    sizes = stdp.spans(first, count)
    assert sum(sizes) == count
    found: list[float] = []
    for size in sizes:
        now = stdp.after(first + len(found))
        assert now.rate_pre == now.rate_post / 2
        found += [now.rate_post] * size
    assert found == wanted[first : first + count]
    assert stdp.after(stdp.settles_after).rate_post == rates[-1]
    assert stdp.after(stdp.settles_after - 1).rate_post == rates[-2]


@pytest.mark.few(0.17)
@pytest.mark.parametrize("rounding", [None, "stochastic"])
@pytest.mark.parametrize("backend", ["reference", "numba", "torch"])
def test_each_image_is_learned_with_the_rates_of_its_turn(
    backend: str, rounding: str | None
) -> None:
    """What a network learns whose rates somebody else halves, whatever images come in one call."""
    shown = images(8)
    steady, falling = learner(backend, rounding), learner(backend, rounding, **FALLING)
    others = copy.deepcopy(falling)
    counts = []
    for k, one in enumerate(shown.split(1)):
        share = 0.5 ** min(k // 3, 2)
        rates = {name: getattr(falling.stdp, name) * share for name in ("rate_pre", "rate_post")}
        steady.stdp = replace(steady.stdp, **rates)
        counts.append(steady.present(one, learning=True).spike_counts)
    found = falling.present(shown, learning=True, record=True)
    assert torch.equal(found.spike_counts, torch.cat(counts))
    assert found.spikes is not None
    assert torch.equal(found.spikes.sum(0, dtype=torch.int32), found.spike_counts)
    assert found.updates > found.underflows
    for part in shown.split([2, 5, 1]):
        others.present(part, learning=True)
    assert same(falling, steady)
    assert same(falling, others)
    assert not same(falling, _learned(learner(backend, rounding), shown))


def _learned(network: DiehlCook, shown: torch.Tensor) -> DiehlCook:
    network.present(shown, learning=True)
    return network


def test_what_is_shown_alone_changes_no_rate() -> None:
    network = learner("numba", "nearest", **FALLING)
    network.present(images(8))
    assert network.numbers() is network.numbers()
    before = int(network.numbers().weight.rate_post[0])
    network.present(images(3), learning=True)
    assert int(network.numbers().weight.rate_post[0]) == pytest.approx(before / 2, abs=1)


def test_a_device_learns_with_the_last_rates_alone() -> None:
    network = learner("numba", "nearest", **FALLING)
    network.present(images(4), learning=True)
    wanted = "stdp.halve_after=3: after 4 images .* up to 2 times.*train on 6 images, or export"
    with pytest.raises(ValueError, match=wanted):
        network.device_learning()
    network.present(images(2), learning=True)
    last = network.device_learning()["weight"]["rate_post"]
    assert last == (int(network.numbers().weight.rate_post[0]),)


def test_rates_that_would_not_fit_later_are_refused_before_learning() -> None:
    network = lively(rate_pre=0.0, rate_post=2.0**-30, halve_after=5, halvings=32)
    with pytest.raises(ValueError, match=re.escape(f"the rate {2.0**-62}")):
        network.use_fixed_point(quantizers(network, 20, "nearest"))
