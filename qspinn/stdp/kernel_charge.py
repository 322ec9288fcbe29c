"""Leak and input of all neurons in a step: what the kernel does for every neuron and step.

There are two forms: the definition of a step, and one of 32 bits that gives the same codes where
all that can occur fits, as it does with the usual word lengths. The type that potentials are held
in decides which.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from qspinn.fixed_point.compiled_bits import GOLDEN, U64
from qspinn.stdp.kernel_words import (
    I32,
    add,
    bits_of_both,
    by_type,
    is_float,
    left,
    product,
    right,
    spread,
    sub,
)
from qspinn.stdp.numbers import NarrowNeuronNumbers, NeuronNumbers
from qspinn.steps.neurons import adaptive_charge
from qspinn.steps.targets.numba import PART
from qspinn.steps.words import NEAREST, STOCHASTIC


def for_charge(n, v):  # type: ignore[no-untyped-def]
    """What `charge` and `inhibited` need of the numbers of neurons; v: the potentials."""


def _for_charge_narrow(n, v):  # type: ignore[no-untyped-def]
    shift, current_up = n.down, n.current_up[0]
    leak = (1 << (shift - n.v_up)) - n.keep
    fine = min(shift, current_up)
    nearest = n.v.mode == NEAREST and shift > 0
    return NarrowNeuronNumbers(
        I32(leak << n.v_up),
        I32((1 << shift) >> 1 if nearest else 0),
        shift if n.v.mode == STOCHASTIC else 0,
        I32(current_up - fine),
        I32(fine),
        I32(shift - fine),
        n.inhibition >> shift,
        I32(n.v.low),
        I32(n.v.high),
        n.v.wrap,
    )


def _for_charge_float(n, v):  # type: ignore[no-untyped-def]
    # Without the array, to which each call would count references.
    return NeuronNumbers(
        n.keep, 0, 0, n.inhibition, n.reset, n.threshold, 0, 0, n.v, v.dtype.type(0)
    )


@overload(for_charge, jit_options=PART)
def _choose_charge(n, v):  # type: ignore[no-untyped-def]
    if v.dtype is types.int32:
        return _for_charge_narrow
    return _for_charge_float if is_float(n) else lambda n, v: n


def _shift(ups, j):  # type: ignore[no-untyped-def]
    """Of the current of neuron j."""


@overload(_shift, inline="always")
def _choose_shift(ups, j):  # type: ignore[no-untyped-def]
    return (lambda ups, j: ups[j]) if isinstance(ups, types.Array) else lambda ups, j: ups


def charge(n, v, current, lowered, inhibits, total, ready, key, t):  # type: ignore[no-untyped-def]
    """Leak and input of all neurons in step t; the number that reached their threshold.

    Args:
        n: Of `for_charge`.
        v: ``[N]``, changed in place.
        current: ``[N]``.
        lowered: ``[N]``: inhibition, where any arrives.
        inhibits: Whether any does.
        total: ``[N]``: what a potential must reach.
        ready: int32 ``[N]``: the first step after refractoriness.
        key: Of the draws.
        t: The step.
    """


def _charge_defined(n, v, current, lowered, inhibits, total, ready, key, t):  # type: ignore[no-untyped-def]
    crossed, nothing = I32(0), v.dtype.type(0)
    random = spread(key, t, 0)
    for j in range(v.shape[0]):
        lower = lowered[j] if inhibits else nothing
        u = adaptive_charge(
            v[j], current[j], lower, ready[j] <= t, _shift(n.current_up, j), random, n
        )
        random += GOLDEN  # spread(key, t, j + 1)
        v[j] = u
        crossed += I32(u >= total[j])
    return crossed


def _charge_narrow(n, v, current, lowered, inhibits, total, ready, key, t):  # type: ignore[no-untyped-def]
    crossed, now = I32(0), I32(t)
    random, unused = spread(key, t, 0), U64(64 - n.drawn)
    low, high, span = n.low, n.high, sub(n.high, n.low)
    for j in range(v.shape[0]):
        is_ready = ready[j] <= now
        arriving = left(current[j], n.up) if is_ready else I32(0)
        rounding = I32(random >> unused) if n.drawn > 0 else n.add
        random += GOLDEN  # spread(key, t, j + 1)
        rest = right(sub(rounding, product(v[j], n.leak)), n.fine)
        u = add(v[j], right(add(arriving, rest), n.coarse))
        u = sub(u, lowered[j] if inhibits and is_ready else I32(0))
        wrapped = add(bits_of_both(sub(u, low), span), low)
        u = wrapped if n.wrap else min(max(u, low), high)
        v[j] = u
        crossed = add(crossed, I32(u >= total[j]))
    return crossed


def inhibited(n, spikes):  # type: ignore[no-untyped-def]
    """By how much spikes of other neurons lower a potential; n: of `for_charge`."""


by_type(charge, _charge_defined, _charge_defined, _charge_narrow)
by_type(
    inhibited,
    lambda n, spikes: n.inhibition * np.float32(spikes),
    lambda n, spikes: n.inhibition * np.int64(spikes),
)
