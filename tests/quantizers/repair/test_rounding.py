"""Weights rounded together, against NumPy and against all weights that there are."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qspinn.fixed_point import FixedPointFormat, PerChannelFormat, quantize
from qspinn.quantizers.repair.grids import nearest_in
from qspinn.quantizers.repair.moments import Moments
from qspinn.quantizers.repair.rounding import (
    DAMPINGS,
    chosen_damping,
    descended,
    error_of,
    rounded_together,
)

FMT = FixedPointFormat(0, 1)  # -1, -0.5, 0, 0.5


def seen(floats: Tensor, held: Tensor) -> Moments:
    """Moments of one group."""
    n = len(held)
    return Moments((held.T @ held / n)[None], (floats.T @ held / n)[None], n)


def drawn(seed: int, channels: int, inputs: int, samples: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights ``[1, C, K]`` and the inputs ``[samples, K]`` of both networks: spikes."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(1, channels, inputs, generator=generator).double() * 0.5
    floats = (torch.rand(samples, inputs, generator=generator) < 0.4).double()
    flips = torch.rand(samples, inputs, generator=generator) < 0.1
    return weight, floats, torch.where(flips, 1.0 - floats, floats)


def squared(rounded: Tensor, weight: Tensor, floats: Tensor, held: Tensor) -> np.ndarray:
    """Mean squared difference of the outputs of each channel, by NumPy."""
    wanted, sent = floats.numpy() @ weight[0].numpy().T, held.numpy() @ rounded[0].numpy().T
    found: np.ndarray = ((wanted - sent) ** 2).mean(0)
    return found


def plain_of(weight: Tensor) -> Tensor:
    return quantize(weight, FMT)


@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 6), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_no_channel_gets_worse_and_all_lies_on_the_grid(seed, channels, inputs, samples):
    weight, floats, held = drawn(seed, channels, inputs, samples)
    batches = [seen(floats[i::2], held[i::2]) for i in range(min(2, samples))]
    plain, grids = plain_of(weight), [nearest_in(FMT)] * inputs
    found = rounded_together(weight, plain, batches, grids)
    assert torch.equal(quantize(found, FMT), found)
    whole = [torch.cat([x[i::2] for i in range(min(2, samples))]) for x in (floats, held)]
    before, after = squared(plain, weight, *whole), squared(found, weight, *whole)
    assert (after <= before + 1e-9).all()
    assert torch.equal(rounded_together(weight, plain, batches, grids), found)


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_the_error_is_that_of_the_outputs_but_for_a_constant(seed):
    weight, floats, held = drawn(seed, 2, 4, 30)
    moments, one, other = seen(floats, held), plain_of(weight), torch.zeros_like(weight)
    ours = error_of(one, weight, moments) - error_of(other, weight, moments)
    direct = squared(one, weight, floats, held) - squared(other, weight, floats, held)
    np.testing.assert_allclose(ours[0].numpy(), direct, rtol=1e-9, atol=1e-12)


def test_close_to_the_best_weights_that_there_are():
    values = [-1.0, -0.5, 0.0, 0.5]
    every = torch.tensor(list(itertools.product(values, repeat=4))).double()[None]
    excess, saved = 0.0, 0.0
    for seed in range(40):
        weight, floats, held = drawn(seed, 1, 4, 200)
        moments = seen(floats, held)
        best = float(error_of(every, weight.expand(1, 1, 4), moments).min())
        plain, grids = plain_of(weight), [nearest_in(FMT)] * 4
        found = rounded_together(weight, plain, [moments, moments], grids)
        excess += float(error_of(found, weight, moments)) - best
        saved += float(error_of(plain, weight, moments)) - best
    assert excess < 0.15 * saved


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_descent_ends_where_no_single_weight_can_be_better(seed):
    weight, floats, held = drawn(seed, 2, 5, 40)
    second = seen(floats, held).second + 0.1 * torch.eye(5).double()
    linear = weight @ second
    found = descended(plain_of(weight), linear, second, [nearest_in(FMT)] * 5)

    def value(rows: np.ndarray) -> np.ndarray:
        h, b = second[0].numpy(), linear[0].numpy()
        total: np.ndarray = ((rows @ h - 2 * b) * rows).sum(-1)
        return total

    rows = found[0].numpy()
    for place in range(5):
        for other in (-1.0, -0.5, 0.0, 0.5):
            moved = rows.copy()
            moved[:, place] = other
            assert (value(moved) >= value(rows) - 1e-9).all()


def test_equal_inputs_share_what_must_be_rounded():
    """Four synapses that always spike together: only their sum counts."""
    spikes = (torch.rand(100, 1, generator=torch.Generator().manual_seed(1)) < 0.5).double()
    x = spikes.expand(100, 4)
    weight = torch.full((1, 1, 4), 0.2).double()
    moments = seen(x, x)
    plain = plain_of(weight)
    assert plain.sum() == 0.0
    found = rounded_together(weight, plain, [moments, moments], [nearest_in(FMT)] * 4)
    assert found.sum() == 1.0  # of 0.8, the nearest that there is


def test_a_bias_makes_good_what_the_inputs_lack_on_its_own_grid():
    """The quantised network's inputs never spike; only the bias is left."""
    floats = torch.tensor([[1.0, 1.0], [0.0, 1.0]]).double()
    held = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).double()
    weight = torch.tensor([[[0.5, 0.0]]]).double()
    fine = nearest_in(FixedPointFormat(0, 4))
    moments = seen(floats, held)
    found = rounded_together(weight, weight.clone(), [moments, moments], [nearest_in(FMT), fine])
    assert float(found[0, 0, 1]) == pytest.approx(0.25, abs=0.07)


def test_damping_is_strong_where_samples_are_few():
    weight, floats, held = drawn(3, 8, 60, 20_000)
    grids = [nearest_in(FixedPointFormat(0, 2))] * 60
    many = chosen_damping(weight, [seen(floats[i::2], held[i::2]) for i in (0, 1)], grids)
    few = [seen(floats[i : i + 20], held[i : i + 20]) for i in (0, 20)]
    assert many < chosen_damping(weight, few, grids)
    assert chosen_damping(weight, few[:1], grids) in DAMPINGS


def test_formats_per_channel_and_groups():
    """Two groups of two channels, each channel with its own step; against each group alone."""
    fmt = PerChannelFormat(3, (0, 1, 2, 3), axis=0)
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(2, 2, 5, generator=generator).double()
    x = (torch.rand(2, 50, 5, generator=generator) < 0.5).double()
    moments = Moments(x.mT @ x / 50, x.mT @ x / 50, 50)
    plain = quantize(weight.reshape(4, 5), fmt).reshape(2, 2, 5)
    found = rounded_together(weight, plain, [moments, moments], [nearest_in(fmt)] * 5)
    assert torch.equal(quantize(found.reshape(4, 5), fmt).reshape(2, 2, 5), found)
    for group in (0, 1):
        one = Moments(moments.second[group : group + 1], moments.cross[group : group + 1], 50)
        own = PerChannelFormat(3, fmt.fraction_bits[2 * group : 2 * group + 2], axis=0)
        alone = descended(
            plain[group : group + 1],
            weight[group : group + 1] @ one.cross + 0.0,
            one.second + 0.1 * torch.eye(5).double(),
            [nearest_in(own)] * 5,
        )
        both = descended(
            plain,
            weight @ moments.cross,
            moments.second + 0.1 * torch.eye(5).double(),
            [nearest_in(fmt)] * 5,
        )
        assert torch.equal(alone[0], both[group])


def test_float_stays_float():
    values = torch.randn(1, 3).double()
    assert nearest_in(None)(values) is values


def test_nearest_saturates_whatever_the_overflow():
    assert nearest_in(FMT)(torch.tensor([[9.0, -9.0]]).double()).tolist() == [[0.5, -1.0]]
