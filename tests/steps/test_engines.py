"""One step in every engine, against exact rationals: integers, arrays, tensors, numba, floats."""

from __future__ import annotations

import functools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

import qspinn.steps.targets.numba  # noqa: F401  (lets compiled functions call steps)
from qspinn.fixed_point import OVERFLOWS, ROUNDINGS, FixedPointFormat, quantize
from qspinn.steps import neurons, traces
from qspinn.steps.lowering import (
    FilterNumbers,
    FollowingNumbers,
    LeakyNumbers,
    PotentialNumbers,
    filter_numbers,
    following_numbers,
    leaky_numbers,
    rounding_of,
)
from tests.reference.fixed_point import limited, rounded

FRACTIONS = st.integers(-2, 8)
CODES = st.integers(-300, 300)


@njit
def leaking(v, x, random, n):
    return neurons.leak(v, x, random, n)


@njit
def leaking_only(v, x, random, n):
    return neurons.leak_only(v, x, random, n)


@njit
def integrating(v, x, random, n):
    return neurons.integrate(v, x, random, n)


@njit
def follows(v, x, random, n):
    return traces.following(v, x, random, n)


@njit
def filters(v, x, random, n):
    return traces.filtered(v, x, random, n)


COMPILED = {
    neurons.leak: leaking,
    neurons.leak_only: leaking_only,
    neurons.integrate: integrating,
    traces.following: follows,
    traces.filtered: filters,
}


@st.composite
def grids(draw: Any) -> tuple[FixedPointFormat, str, str, int]:
    """A state's format, rounding and overflow, and fraction bits of what drives it."""
    length = draw(st.integers(2, 12))
    signed = draw(st.booleans())
    fraction = draw(FRACTIONS)
    fmt = FixedPointFormat(length - int(signed) - fraction, fraction, signed)
    rounding = draw(st.sampled_from([one for one in ROUNDINGS if one != "stochastic"]))
    return fmt, rounding, draw(st.sampled_from(OVERFLOWS)), draw(st.integers(0, 6))


def check(
    step: Any, n: Any, real: Any, fmt: FixedPointFormat, held: tuple[str, str], codes: Any,
    x_bits: int, exact: Fraction,
) -> None:  # fmt: skip
    """All engines give the code of an exact value."""
    rounding, overflow = held
    expected = expected_code(exact, fmt, rounding, overflow)
    v, x = codes
    assert step(v, x, 0, n) == expected
    for array in (np.array([v]), torch.tensor([v])):
        other = np.array([x]) if isinstance(array, np.ndarray) else torch.tensor([x])
        assert step(array, other, 0, n).tolist() == [expected]
    assert COMPILED[step](v, x, np.uint64(0), n) == expected
    values = [torch.tensor([code], dtype=torch.float64) for code in codes]
    v_real, x_real = values[0] * fmt.step, values[1] * 2.0**-x_bits
    keeps = functools.partial(quantize, fmt=fmt, rounding=rounding, overflow=overflow)
    assert (step(v_real, x_real, None, real(keeps)) / fmt.step).tolist() == [expected]


def expected_code(exact: Fraction, fmt: FixedPointFormat, rounding: str, overflow: str) -> int:
    code = rounded(exact / Fraction(fmt.step), rounding)
    return limited(code, fmt.code_min, fmt.code_max, overflow)


def code_in(fmt: FixedPointFormat, code: int) -> int:
    return min(max(code, fmt.code_min), fmt.code_max)


@given(grids(), CODES, CODES, st.integers(1, 255), st.integers(-20, 20), st.booleans())
def test_leaks(grid: Any, v: int, x: int, leak: int, rest: int, decay_input: bool) -> None:
    fmt, rounding, overflow, x_bits = grid
    v, rest = code_in(fmt, v), code_in(fmt, rest)
    k, low = Fraction(leak, 256), Fraction(rest) * Fraction(fmt.step)
    to = rounding_of(fmt, rounding, overflow)
    n = leaky_numbers(fmt, to, x_bits, float(k), float(low), decay_input)
    state, current = v * Fraction(fmt.step), Fraction(x, 2**x_bits)
    above = state - low
    exact = state + k * (current - above) if decay_input else state + current - k * above
    check(
        neurons.leak if decay_input else neurons.leak_only, n,
        lambda keeps: LeakyNumbers(keeps, float(k), float(low)),
        fmt, (rounding, overflow), (v, x), x_bits, exact,
    )  # fmt: skip


@given(grids(), CODES, CODES)
def test_integrates(grid: Any, v: int, x: int) -> None:
    fmt, rounding, overflow, x_bits = grid
    v = code_in(fmt, v)
    n = leaky_numbers(fmt, rounding_of(fmt, rounding, overflow), x_bits)
    exact = v * Fraction(fmt.step) + Fraction(x, 2**x_bits)
    held = rounding, overflow
    check(neurons.integrate, n, LeakyNumbers, fmt, held, (v, x), x_bits, exact)


@given(grids(), CODES, CODES, st.integers(1, 256), st.integers(0, 64))
def test_traces(grid: Any, x: int, target: int, leak: int, gain: int) -> None:
    """Those that follow, and those that spikes add to."""
    fmt, rounding, overflow, target_bits = grid
    x = code_in(fmt, x)
    k, g = Fraction(leak, 256), Fraction(gain, 32)
    n = following_numbers(
        fmt, rounding_of(fmt, rounding, overflow), target_bits, float(k), float(g)
    )
    exact = x * Fraction(fmt.step) * (1 - k) + Fraction(target, 2**target_bits) * g
    check(
        traces.following, n, lambda keeps: FollowingNumbers(keeps, float(1 - k), float(g)),
        fmt, (rounding, overflow), (x, target), target_bits, exact,
    )  # fmt: skip


@given(grids(), CODES, CODES, st.integers(1, 256))
def test_filters(grid: Any, trace: int, x: int, leak: int) -> None:
    fmt, rounding, overflow, x_bits = grid
    trace = code_in(fmt, trace)
    k, state, given_x = Fraction(leak, 256), trace * Fraction(fmt.step), Fraction(x, 2**x_bits)
    n = filter_numbers(fmt, rounding_of(fmt, rounding, overflow), x_bits, float(k))
    exact = state - (1 - given_x) * k * state + given_x
    check(
        traces.filtered, n, lambda keeps: FilterNumbers(keeps, float(k)),
        fmt, (rounding, overflow), (trace, x), x_bits, exact,
    )  # fmt: skip


@given(grids(), CODES, CODES, st.integers(0, 4))
def test_potentials(grid: Any, current: int, r: int, r_bits: int) -> None:
    fmt, rounding, overflow, bits = grid
    total = max(bits, r_bits, fmt.fraction_bits)
    to = rounding_of(fmt, rounding, overflow)
    n = PotentialNumbers(to, total - bits, total - r_bits, total - fmt.fraction_bits)
    exact = Fraction(current, 2**bits) - Fraction(r, 2**r_bits)
    expected = expected_code(exact, fmt, rounding, overflow)
    assert traces.potential(current, r, 0, n) == expected


@pytest.mark.parametrize("reset", [0.0, -0.5])
def test_resets_pass_gradients_on(reset: float) -> None:
    """As written out: h (1 - s) + s reset, and h - s threshold."""
    h = torch.tensor([0.25, 1.5], requires_grad=True)
    spike = torch.sigmoid(h)
    after = neurons.reset_to(h, spike, reset)
    assert torch.equal(after, h * (1.0 - spike) + spike * reset)
    assert after.requires_grad
    assert neurons.reset_to(7, True, -3) == -3
    assert neurons.reset_to(7, False, -3) == 7
    assert neurons.reset_by(7, True, 5) == 2
