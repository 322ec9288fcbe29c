"""Back through all time steps of a layer of neurons, compiled by numba.

Potentials are codes, of which there are few: all that a gradient depends on at a step is looked up
in tables, float32 ``[5, K]``, by code, for each row of thresholds one after the other. They hold

* what the gradients of the potential after a step, and of a spike, are multiplied by to give that
  of the charged potential;
* what both are multiplied by to give that of the threshold;
* the potential after the step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from qspinn.fixed_point.compiled_bits import U64
from qspinn.quantizers.fused.constants import BLOCK, F32, LEAK, SOURCES, ZERO, spread
from qspinn.steps.targets.numba import PART

__all__ = ["backward"]


@njit(**PART)
def _go_back(spiking, codes, places, tables, leak, gain, gradient, current):  # type: ignore[no-untyped-def]
    """Gradients of the currents, and of the potentials before a step in place of those after it.

    Args:
        spiking: Gradients of the spikes.
        codes: Of the charged potentials.
        places: Where the table of each neuron begins.
        tables: See above.
        leak: Of each neuron.
        gain: What the currents are multiplied by.
        gradient: Of the potentials; changed in place.
        current: Filled.
    """
    by_potential, by_spike = tables[0], tables[1]
    for i in range(current.shape[0]):
        j = places[i] + U64(codes[i])
        charged = gradient[i] * by_potential[j] + spiking[i] * by_spike[j]
        current[i] = charged * gain[i]
        gradient[i] = charged - charged * leak[i]


@njit(**PART)
def _learn_threshold(spiking, codes, places, tables, gradient, learned):  # type: ignore[no-untyped-def]
    by_potential, by_spike = tables[2], tables[3]
    for i in range(learned.shape[0]):
        j = places[i] + U64(codes[i])
        learned[i] += gradient[i] * by_potential[j] + spiking[i] * by_spike[j]


@njit(**PART)
def _before(codes, places, tables, v):  # type: ignore[no-untyped-def]
    """The potentials that a step has left."""
    after = tables[4]
    for i in range(v.shape[0]):
        v[i] = after[places[i] + U64(codes[i])]


@njit(**PART)
def _learn_leak(spiking, codes, places, tables, gradient, decays, x, v, rest, learned):  # type: ignore[no-untyped-def]  # fmt: skip
    by_potential, by_spike = tables[0], tables[1]
    for i in range(learned.shape[0]):
        j = places[i] + U64(codes[i])
        charged = gradient[i] * by_potential[j] + spiking[i] * by_spike[j]
        current = F32(x[i]) if decays else ZERO
        learned[i] += charged * (current - (v[i] - rest))


def _compiled(sources: str) -> Any:
    """The kernel; the digest of its sources, as a variable of its closure, is in its cache key."""

    @njit(cache=True, nogil=True, error_model="numpy")
    def backward(begin, end, charging, spiking, after, codes, tables, leak, rows, x, v, currents, before, leaks, thresholds):  # type: ignore[no-untyped-def]  # noqa: E501  # fmt: skip
        """Goes back through a sequence.

        Args:
            begin: The first neuron.
            end: Behind the last one; others are left alone.
            charging: `Charging`.
            spiking: float32 ``[T, M]``: gradients of the spikes.
            after: float32 ``[M]``: gradients of the potentials after the last step.
            codes: ``[T, M]``, of `forward`.
            tables: See above.
            leak: float32 ``[1]``, or one for each row.
            rows: int32 ``[M]``: which constants a neuron has; ``[0]`` where they are the same.
            x: Currents ``[T, M]``, or ``[0, 0]`` where no leak learns.
            v: float32 ``[M]``: the potentials before the first step, or ``[0]``.
            currents: float32 ``[T, M]``, filled: gradients of the currents.
            before: float32 ``[M]``, filled: of the potentials before the first step.
            leaks: float32 ``[M]``, filled: of the leaks; or ``[0]``.
            thresholds: float32 ``[M]``, filled: of the thresholds; or ``[0]``.
        """
        assert len(sources) > 0
        steps, kind, rest = spiking.shape[0], charging.kind, F32(charging.rest)
        width = charging.codes if tables.shape[1] > charging.codes else 0
        g, u, of_leak, gain = (
            np.empty(BLOCK, F32), np.empty(BLOCK, F32), np.empty(BLOCK, F32), np.ones(BLOCK, F32)
        )  # fmt: skip
        places = np.zeros(BLOCK, U64)
        for a in range(begin, end, BLOCK):
            b = min(a + BLOCK, end)
            n = b - a
            g[:n] = after[a:b]
            leaks[a:b] = ZERO
            thresholds[a:b] = ZERO
            spread(leak, rows, a, of_leak[:n])
            if kind == LEAK:
                gain[:n] = of_leak[:n]
            if width > 0:
                for i in range(n):
                    places[i] = U64(rows[a + i] * width)
            for t in range(steps - 1, -1, -1):
                spike, code = spiking[t, a:b], codes[t, a:b]
                if thresholds.shape[0] > 0:
                    _learn_threshold(spike, code, places, tables, g, thresholds[a:b])
                if leaks.shape[0] > 0:
                    if t > 0:
                        _before(codes[t - 1, a:b], places, tables, u[:n])
                    else:
                        u[:n] = v[a:b]
                    _learn_leak(
                        spike, code, places, tables, g, kind == LEAK, x[t, a:b], u, rest, leaks[a:b]
                    )  # fmt: skip
                _go_back(spike, code, places, tables, of_leak, gain, g, currents[t, a:b])
            before[a:b] = g[:n]

    return backward


backward = _compiled(SOURCES)
