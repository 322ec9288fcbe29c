"""Stochastic rounding: unbiased, reproducible from a seed, drawn anew at each use."""

from __future__ import annotations

import math

import pytest
import torch

from qspinn.fixed_point import FixedPointFormat, PerChannelFormat, fake_quantize, quantize, rounding
from tests.fixed_point.strategies import OVERFLOWS, identical

FMT = FixedPointFormat(2, 3)


def generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fmt", [FMT, FixedPointFormat(9, -3), FixedPointFormat(0, 24)], ids=str)
@pytest.mark.parametrize("steps", [0.001, 0.25, 0.5, 0.9, 3.3, -0.001, -0.5, -0.75, -2.1])
def test_is_unbiased(
    steps: float, fmt: FixedPointFormat, dtype: torch.dtype, overflow: str
) -> None:
    """The mean over n draws lies within 4.5 standard errors of the number itself."""
    n = 400_000
    value = torch.tensor(steps * fmt.step, dtype=dtype)
    drawn = quantize(value.expand(n), fmt, "stochastic", overflow, generator())
    below = math.floor(value.item() / fmt.step)
    chance = value.item() / fmt.step - below
    assert set((drawn.double() / fmt.step).unique().tolist()) == {below, below + 1}
    ups = int((drawn.double() / fmt.step == below + 1).sum())
    error = abs(ups / n - chance)
    assert error < 4.5 * math.sqrt(chance * (1 - chance) / n)


def test_chances_follow_the_fraction_between_all_neighbours() -> None:
    """A chi-square over 64 fractions at once, in both signs; 99.99% of seeds lie below."""
    n = 20_000
    fractions = (torch.arange(64) + 0.5) / 64
    for sign in (1.0, -1.0):
        x = sign * (fractions + 4) * FMT.step
        drawn = quantize(x.expand(n, 64), FMT, "stochastic", generator=generator())
        ups = (drawn > sign * (4 if sign > 0 else 5) * FMT.step).sum(0).double()
        chance = fractions.double() if sign > 0 else 1 - fractions.double()
        chi = ((ups - n * chance) ** 2 / (n * chance * (1 - chance))).sum().item()
        assert 25 < chi < 118


def test_the_sum_of_many_small_updates_survives() -> None:
    """A hundredth of a step, added 10,000 times: nearest loses all of it."""
    update = FMT.step / 100
    x = torch.zeros(200)
    nearest = torch.zeros(200)
    noise = generator()
    fmt = FixedPointFormat(8, 3)
    for _ in range(10_000):
        x = quantize(x + update, fmt, "stochastic", generator=noise)
        nearest = quantize(nearest + update, fmt)
    assert (nearest == 0).all()
    assert x.mean().item() == pytest.approx(100 * FMT.step, rel=0.03)


def test_resampled_at_each_use() -> None:
    x = torch.full((1000,), FMT.step / 2)
    noise = generator()
    first = quantize(x, FMT, "stochastic", generator=noise)
    second = quantize(x, FMT, "stochastic", generator=noise)
    assert 350 < int((first != second).sum()) < 650
    assert not torch.equal(quantize(x, FMT, "stochastic"), quantize(x, FMT, "stochastic"))
    x.requires_grad_()
    one, two = fake_quantize(x, FMT, "stochastic"), fake_quantize(x, FMT, "stochastic")
    assert not torch.equal(one, two)


@pytest.mark.parametrize("overflow", OVERFLOWS)
def test_reproducible_from_a_seed(overflow: str) -> None:
    x = torch.randn(1000, generator=generator(1))
    fmt = PerChannelFormat(6, (3,) * 1000)
    for one in (FMT, fmt):
        first = quantize(x, one, "stochastic", overflow, generator(7))
        assert identical(first, quantize(x, one, "stochastic", overflow, generator(7)))
        assert not torch.equal(first, quantize(x, one, "stochastic", overflow, generator(8)))


def test_without_a_generator_the_global_one_is_used() -> None:
    x = torch.randn(1000, generator=generator(1))
    state = torch.get_rng_state()
    try:
        torch.manual_seed(7)
        first = quantize(x, FMT, "stochastic")
        torch.manual_seed(7)
        assert identical(first, quantize(x, FMT, "stochastic"))
        before = torch.get_rng_state()
        quantize(x, FMT, "stochastic", generator=generator())
        assert torch.equal(before, torch.get_rng_state()), "an own generator leaves the global one"
        for rounding in ("truncate", "nearest", "toward_zero", "nearest_even", "nearest_away"):
            quantize(x, FMT, rounding)
        assert torch.equal(before, torch.get_rng_state()), "only stochastic draws"
    finally:
        torch.set_rng_state(state)


@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("noise", [0.0, 1.0 - 2.0**-24])
def test_extreme_draws(monkeypatch: pytest.MonkeyPatch, noise: float, overflow: str) -> None:
    """A draw of exactly 0 happens once in 2^24: even then a number of the format stays."""
    monkeypatch.setattr(rounding, "noise_like", lambda x, chance: torch.full_like(x, noise))
    grid = torch.arange(FMT.code_min, FMT.code_max + 1) * FMT.step
    assert identical(quantize(grid, FMT, "stochastic", overflow), grid)
    between = grid[:-1] + FMT.step / 2
    wanted = grid[:-1] if noise == 0 else grid[1:]
    assert identical(quantize(between, FMT, "stochastic", overflow), wanted)
