"""Leak and input of all neurons in a step: what the kernel does for every neuron and step.

In fixed point there are two forms: in 32 bits where all that can occur fits, as it does with the
usual word lengths, and in 64. The type that potentials are held in decides which.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from qspinn.networks.diehl_cook.kernel_arithmetic import (
    GOLDEN_64,
    U64,
    by_type,
    fitted,
    shifted,
    spread,
)
from qspinn.networks.diehl_cook.kernel_int32 import (
    I32,
    add,
    bits_of_both,
    left,
    product,
    right,
    sub,
)
from qspinn.networks.diehl_cook.number_types import (
    NEAREST,
    STOCHASTIC,
    ChargeCodes,
    FloatNumbers,
    NarrowChargeCodes,
)


def for_charge(numbers, v):  # type: ignore[no-untyped-def]
    """What `charge` and `inhibited` need of the numbers; v: the potentials."""


def _for_charge_float(numbers, v):  # type: ignore[no-untyped-def]
    return numbers


def _for_charge_wide(numbers, v):  # type: ignore[no-untyped-def]
    return ChargeCodes(
        numbers.keep,
        numbers.potential_shift,
        numbers.current_shift,
        numbers.charge_shift,
        numbers.inhibition,
        numbers.v,
    )


def _for_charge_narrow(numbers, v):  # type: ignore[no-untyped-def]
    shift, current_shift = numbers.charge_shift, numbers.current_shift[0]
    leak = (1 << (shift - numbers.potential_shift)) - numbers.keep
    fine = min(shift, current_shift)
    nearest = numbers.v.mode == NEAREST and shift > 0
    return NarrowChargeCodes(
        I32(leak << numbers.potential_shift),
        I32((1 << shift) >> 1 if nearest else 0),
        shift if numbers.v.mode == STOCHASTIC else 0,
        I32(current_shift - fine),
        I32(fine),
        I32(shift - fine),
        numbers.inhibition >> shift,
        I32(numbers.v.low),
        I32(numbers.v.high),
        numbers.v.wrap,
    )


@overload(for_charge)
def _choose_charge(numbers, v):  # type: ignore[no-untyped-def]
    if numbers.instance_class is FloatNumbers:
        return _for_charge_float
    return _for_charge_narrow if v.dtype is types.int32 else _for_charge_wide


def charge(numbers, v, current, lowered, inhibits, total, ready, key, t):  # type: ignore[no-untyped-def]
    """Leak and input of all neurons in step t; the number that reached their threshold.

    Args:
        numbers: Of `for_charge`.
        v: ``[N]``, changed in place.
        current: ``[N]``.
        lowered: ``[N]``: inhibition, where any arrives.
        inhibits: Whether any does.
        total: ``[N]``: what a potential must reach.
        ready: int32 ``[N]``: the first step after refractoriness.
        key: Of the draws.
        t: The step.
    """


def _charge_float(numbers, v, current, lowered, inhibits, total, ready, key, t):  # type: ignore[no-untyped-def]
    crossed = I32(0)
    for j in range(v.shape[0]):
        drive = current[j] - (lowered[j] if inhibits else np.float32(0))
        u = v[j] * numbers.keep + (drive if ready[j] <= t else np.float32(0))
        v[j] = u
        crossed += I32(u >= total[j])
    return crossed


def _charge_wide(numbers, v, current, lowered, inhibits, total, ready, key, t):  # type: ignore[no-untyped-def]
    crossed = I32(0)
    random = spread(key, t, 0)
    for j in range(v.shape[0]):
        drive = np.int64(current[j]) << numbers.current_shift[j]
        drive -= lowered[j] if inhibits else np.int64(0)
        exact = (np.int64(v[j]) * numbers.keep) << numbers.potential_shift
        exact += drive if ready[j] <= t else np.int64(0)
        u = fitted(shifted(exact, numbers.charge_shift, numbers.v.mode, random), numbers.v)
        random += GOLDEN_64  # spread(key, t, j + 1)
        v[j] = u
        crossed += I32(u >= total[j])
    return crossed


def _charge_narrow(numbers, v, current, lowered, inhibits, total, ready, key, t):  # type: ignore[no-untyped-def]
    crossed, now = I32(0), I32(t)
    random, unused = spread(key, t, 0), U64(64 - numbers.drawn)
    low, high, span = numbers.low, numbers.high, sub(numbers.high, numbers.low)
    for j in range(v.shape[0]):
        is_ready = ready[j] <= now
        arriving = left(current[j], numbers.up) if is_ready else I32(0)
        rounding = I32(random >> unused) if numbers.drawn > 0 else numbers.add
        random += GOLDEN_64  # spread(key, t, j + 1)
        rest = right(sub(rounding, product(v[j], numbers.leak)), numbers.fine)
        u = add(v[j], right(add(arriving, rest), numbers.coarse))
        u = sub(u, lowered[j] if inhibits and is_ready else I32(0))
        wrapped = add(bits_of_both(sub(u, low), span), low)
        u = wrapped if numbers.wrap else min(max(u, low), high)
        v[j] = u
        crossed = add(crossed, I32(u >= total[j]))
    return crossed


def inhibited(numbers, spikes):  # type: ignore[no-untyped-def]
    """By how much spikes of other neurons lower a potential; numbers: of `for_charge`."""


def _inhibited_float(numbers, spikes):  # type: ignore[no-untyped-def]
    return numbers.inhibition * np.float32(spikes)


def _inhibited_fixed(numbers, spikes):  # type: ignore[no-untyped-def]
    return numbers.inhibition * np.int64(spikes)


by_type(charge, _charge_float, _charge_wide, _charge_narrow)
by_type(inhibited, _inhibited_float, _inhibited_fixed)
