"""The arithmetic of plasticity in the kernel, in float32 and in integers."""

from __future__ import annotations

import numpy as np
from numba import njit

from qspinn.networks.diehl_cook.kernel_arithmetic import U64, by_type, draw, fitted, shifted
from qspinn.networks.diehl_cook.number_types import GAIN_BITS, STOCHASTIC
from qspinn.networks.diehl_cook.random_bits import GOLDEN


def change_pre(numbers, y, j):  # type: ignore[no-untyped-def]
    """Change of a weight to neuron j, whose trace is y, at a spike of its input."""


def _change_pre_float(numbers, y, j):  # type: ignore[no-untyped-def]
    return -(numbers.rate_pre * y)


def _change_pre_fixed(numbers, y, j):  # type: ignore[no-untyped-def]
    return -(numbers.rate_pre[j] * y)


def change_post(numbers, x, j):  # type: ignore[no-untyped-def]
    """Change of a weight to neuron j at its spike; x is the trace of the weight's input."""


def _change_post_float(numbers, x, j):  # type: ignore[no-untyped-def]
    return numbers.rate_post * (x - numbers.trace_target)


def _change_post_fixed(numbers, x, j):  # type: ignore[no-untyped-def]
    return numbers.rate_post[j] * (x - numbers.trace_target)


def changed(numbers, w, change, key, counter, turn):  # type: ignore[no-untyped-def]
    """A weight after a change, rounded, not yet bounded."""


def _changed_float(numbers, w, change, key, counter, turn):  # type: ignore[no-untyped-def]
    return w + change


def _changed_fixed(numbers, w, change, key, counter, turn):  # type: ignore[no-untyped-def]
    exact = (np.int64(w) << numbers.spare) + change
    return _rounded(exact, numbers.spare, numbers.weight.mode, key, counter, turn)


def fine(numbers, w, change):  # type: ignore[no-untyped-def]
    """A weight with its change, before both are normalised."""


def _fine_float(numbers, w, change):  # type: ignore[no-untyped-def]
    return max(w + change, np.float32(0))


def _fine_fixed(numbers, w, change):  # type: ignore[no-untyped-def]
    added = (np.int64(w) << numbers.fine) + (change >> (numbers.spare - numbers.fine))
    return max(added, np.int64(0))


def scaled(numbers, w, total, j, key, counter, turn):  # type: ignore[no-untyped-def]
    """A fine weight of neuron j, whose fine weights have this total, normalised, not bounded."""


def _scaled_float(numbers, w, total, j, key, counter, turn):  # type: ignore[no-untyped-def]
    return w * (numbers.weight_sum / total)


def _scaled_fixed(numbers, w, total, j, key, counter, turn):  # type: ignore[no-untyped-def]
    exact = w * (numbers.weight_sum[j] // total)
    return _rounded(exact, GAIN_BITS + numbers.fine, numbers.weight.mode, key, counter, turn)


@njit(inline="always")
def _rounded(exact, bits, mode, key, counter, turn):  # type: ignore[no-untyped-def]
    random = U64(0)
    if mode == STOCHASTIC:
        random = draw(key, counter) + U64(turn) * U64(GOLDEN)
    return shifted(exact, bits, mode, random)


def bounded(numbers, w, j):  # type: ignore[no-untyped-def]
    """A weight to neuron j within its bounds."""


def _bounded_float(numbers, w, j):  # type: ignore[no-untyped-def]
    return min(max(w, np.float32(0)), numbers.weight_max)


def _bounded_fixed(numbers, w, j):  # type: ignore[no-untyped-def]
    return fitted(min(max(w, np.int64(0)), numbers.weight_max[j]), numbers.weight)


by_type(change_pre, _change_pre_float, _change_pre_fixed)
by_type(change_post, _change_post_float, _change_post_fixed)
by_type(changed, _changed_float, _changed_fixed)
by_type(fine, _fine_float, _fine_fixed)
by_type(scaled, _scaled_float, _scaled_fixed)
by_type(bounded, _bounded_float, _bounded_fixed)
