"""Charges and traces of the kernel, in 32 and in 64 bits, against the whole numbers of Python."""

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from numba import njit

from qspinn.fixed_point import random_bits
from qspinn.networks import DiehlCook
from qspinn.plan import QuantizationPlan
from qspinn.quantizers import attach, calibrate
from qspinn.stdp import kernel_charge, kernel_traces
from qspinn.stdp.kernel_memory import fits_int32, types_of
from qspinn.stdp.numbers import NeuronNumbers, TraceNumbers
from qspinn.steps.words import (
    NEAREST,
    NEAREST_AWAY,
    NEAREST_EVEN,
    STOCHASTIC,
    TOWARD_ZERO,
    TRUNCATE,
    Rounding,
)

WORD = (1 << 64) - 1
GOLDEN, MIX_1, MIX_2 = (getattr(random_bits, name) & WORD for name in ("GOLDEN", "MIX_1", "MIX_2"))
HIGHEST = 64 * 255
"""The largest current."""


@njit
def charged(numbers, v, current, lowered, inhibits, total, ready, key, t):
    codes = kernel_charge.for_charge(numbers, v)
    return kernel_charge.charge(codes, v, current, lowered, inhibits, total, ready, key, t)


@njit
def inhibition(numbers, v, spikes):
    return kernel_charge.inhibited(kernel_charge.for_charge(numbers, v), spikes)


@njit
def stepped(trace, values, draws, t):
    kernel_traces.step_all(trace, values, draws, t)


def mixed(z):
    z = (z ^ (z >> 30)) * MIX_1 & WORD
    z = (z ^ (z >> 27)) * MIX_2 & WORD
    return z ^ (z >> 31)


def rounded(exact, bits, mode, random):
    """``exact / 2^bits``, by the definitions of the roundings."""
    if bits == 0:
        return exact
    floor, rest = exact >> bits, exact & ((1 << bits) - 1)
    up = {
        TRUNCATE: False,
        NEAREST: 2 * rest >= 1 << bits,
        STOCHASTIC: rest + (random >> (64 - bits)) >= 1 << bits,
        TOWARD_ZERO: exact < 0 and rest > 0,
        NEAREST_AWAY: 2 * rest > 1 << bits or (2 * rest == 1 << bits and exact > 0),
        NEAREST_EVEN: 2 * rest > 1 << bits or (2 * rest == 1 << bits and floor % 2 == 1),
    }[mode]
    return floor + up


def fitted(code, low, high, wrap):
    return (code - low) % (high - low + 1) + low if wrap else min(max(code, low), high)


def numbers_of(v, leak, leak_bits, spare, current_shift, inhibition_code):
    """Constants of a charge."""
    return NeuronNumbers(
        keep=(1 << leak_bits) - leak,
        v_up=spare,
        down=leak_bits + spare,
        inhibition=inhibition_code,
        reset=0,
        threshold=0,
        fire_up=0,
        theta_up=0,
        v=v,
        current_up=np.array(current_shift, np.int64),
    )


@st.composite
def charges(draw):
    word = draw(st.integers(2, 24))
    low, high = draw(
        st.sampled_from([(-(1 << (word - 1)), (1 << (word - 1)) - 1), (0, (1 << word) - 1)])
    )
    v = Rounding(draw(st.integers(0, 5)), low, high, draw(st.booleans()))
    leak_bits, spare = draw(st.integers(0, 24)), draw(st.integers(0, 4))
    leak = draw(st.integers(0, 1 << min(leak_bits, 16)))
    neurons = draw(st.integers(1, 9))
    one_format = draw(st.booleans())
    shifts = st.integers(0, 28)
    shift = [draw(shifts)] * neurons if one_format else [draw(shifts) for _ in range(neurons)]
    code = draw(st.integers(0, 1 << 12)) << draw(st.sampled_from([0, leak_bits + spare]))
    numbers = numbers_of(v, leak, leak_bits, spare, shift, code)
    at_rest = draw(st.lists(st.booleans(), min_size=neurons, max_size=neurons))
    potentials = [draw(st.integers(low, high)) for _ in range(neurons)]
    currents = [draw(st.integers(0, HIGHEST)) for _ in range(neurons)]
    spikes = [draw(st.integers(0, 1)) for _ in range(neurons)]
    return numbers, potentials, currents, spikes, at_rest, draw(st.integers(0, WORD))


def expected(case, inhibits, t):
    numbers, potentials, currents, spikes, ready, key = case
    results = []
    first = mixed((key + (t + 1) * GOLDEN) & WORD)
    for j, v in enumerate(potentials):
        exact = (v * int(numbers.keep)) << numbers.v_up
        if ready[j]:
            exact += currents[j] << int(numbers.current_up[j])
            exact -= numbers.inhibition * spikes[j] if inhibits else 0
        random = (first + j * GOLDEN) & WORD
        code = rounded(exact, numbers.down, numbers.v.mode, random)
        results.append(fitted(code, numbers.v.low, numbers.v.high, numbers.v.wrap))
    return results


def run_charge(case, inhibits, t, kind):
    numbers, potentials, currents, spikes, ready, key = case
    v = np.array(potentials, kind)
    lowered = np.array([inhibition(numbers, v, n) for n in spikes], kind)
    total = np.full(len(v), numbers.v.high, kind)
    steps = np.array([t if is_ready else t + 1 for is_ready in ready], np.int32)
    current = np.array(currents, np.int32)
    crossed = charged(numbers, v, current, lowered, inhibits, total, steps, np.uint64(key), t)
    assert crossed == (v >= total).sum()
    return v.tolist()


@given(charges(), st.booleans(), st.integers(0, 5))
def test_a_charge_in_64_bits_is_exact(case, inhibits, t):
    assert run_charge(case, inhibits, t, np.int64) == expected(case, inhibits, t)


@pytest.mark.slow
@given(charges(), st.booleans(), st.integers(0, 5))
def test_a_charge_in_32_bits_is_exact_where_it_is_allowed(case, inhibits, t):
    assume(fits_int32(case[0], HIGHEST, 1))
    assert run_charge(case, inhibits, t, np.int32) == expected(case, inhibits, t)


@pytest.mark.parametrize("mode", [TRUNCATE, NEAREST, STOCHASTIC])
@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("current_shift", [5, 21, 25])
def test_extremes_fit_32_bits(mode, wrap, current_shift):
    """16 bits of everything, as in the plans that people use; all ends of all ranges at once."""
    v = Rounding(mode, -(1 << 15), (1 << 15) - 1, wrap)
    numbers = numbers_of(v, (1 << 15) - 1, 21, 0, [current_shift] * 4, 120 << 21)
    assert fits_int32(numbers, HIGHEST, 1)
    potentials, currents = [v.low, v.high, v.low, v.high], [0, 0, HIGHEST, HIGHEST]
    for inhibits in (False, True):
        for key in (0, WORD, 12345):
            case = numbers, potentials, currents, [1] * 4, [True] * 4, key
            assert run_charge(case, inhibits, 3, np.int32) == expected(case, inhibits, 3)


def test_what_does_not_fit_32_bits_is_told():
    v = Rounding(NEAREST, -(1 << 15), (1 << 15) - 1, False)
    shifts = [21] * 2
    assert fits_int32(numbers_of(v, 20_000, 21, 0, shifts, 120 << 21), HIGHEST, 1)
    wide = v._replace(low=-(1 << 20), high=(1 << 20) - 1)
    refused = {
        "products": numbers_of(wide, 20_000, 21, 0, shifts, 120 << 21),
        "grids": numbers_of(v, 20_000, 31, 0, shifts, 120 << 31),
        "inhibition": numbers_of(v, 20_000, 21, 0, shifts, (120 << 21) + 1),
        "formats": numbers_of(v, 20_000, 21, 0, [20, 21], 120 << 21),
        "rounding": numbers_of(v._replace(mode=NEAREST_EVEN), 20_000, 21, 0, shifts, 120 << 21),
        "currents": numbers_of(v, 20_000, 21, 0, [40] * 2, 120 << 21),
    }
    assert not any(fits_int32(numbers, HIGHEST, 1) for numbers in refused.values())
    assert not fits_int32(numbers_of(v, 20_000, 21, 0, shifts, 120 << 21), HIGHEST, 1 << 25)


@given(
    st.integers(1, 30),
    st.integers(0, 1 << 16),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, WORD)), min_size=1, max_size=9),
    st.integers(0, 300),
)
@example(19, 25_570, [(65_535, 0), (65_535, WORD), (0, WORD)], 7)
def test_a_step_of_traces_is_exact_in_32_and_in_64_bits(bits, leak, traces, t):
    assume(leak <= 1 << bits)
    keep, draws = (1 << bits) - leak, np.array([draw for _, draw in traces], np.uint64)
    wanted = [rounded(x * keep, bits, STOCHASTIC, (draw + t * GOLDEN) & WORD) for x, draw in traces]
    narrow = (1 << 16) * leak + (1 << bits) < 1 << 31
    for kind in (np.int32, np.int64) if narrow else (np.int64,):
        values = np.array([x for x, _ in traces], kind)
        trace = TraceNumbers(keep, bits, 1 << 16, Rounding(STOCHASTIC, 0, 1 << 17, False))
        stepped(trace, values, draws, t)
        assert values.tolist() == wanted


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8, 12])
@pytest.mark.parametrize("rounding", ["truncate", "nearest", "stochastic"])
def test_the_usual_plans_are_computed_in_32_bits(bits, rounding):
    network = DiehlCook((784,), 4, 250)
    roles = {"weight": {"word_length": bits}}
    plan = QuantizationPlan.uniform(16, rounding, roles=roles)
    attach(network, calibrate(network, plan.resolve(network), learning=True))
    types = types_of(network.numbers(), network.inputs, 1)
    assert (types.potential, types.trace, types.current) == (np.int32,) * 3
    assert types.weight == (np.uint8 if bits <= 8 else np.uint16)
