"""Charge, round, fire and reset of a layer of neurons over all time steps, compiled by numba.

Real numbers, by the same operations as :mod:`qspinn.quantizers.charge`, so that the results are
equal bit for bit. Neurons are taken in blocks that stay in the fastest memory for all steps; each
stage of a step is a loop of its own over a block, without branches, which LLVM vectorises.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from qspinn.fixed_point.compiled_bits import U64
from qspinn.fixed_point.compiled_rounding import reduce_, round_, wrap_
from qspinn.quantizers.fused.constants import (
    BLOCK,
    F32,
    LEAK,
    LEAK_ONLY,
    ONE,
    SOURCES,
    TWO,
    ZERO,
    spread,
)
from qspinn.steps import neurons
from qspinn.steps.lowering import LeakyNumbers
from qspinn.steps.targets.numba import PART

__all__ = ["forward"]

_integrate, _leak, _leak_only = neurons.integrate, neurons.leak, neurons.leak_only
_reset_by, _reset_to = neurons.reset_by, neurons.reset_to


@njit(**PART)
def _charge(kind, x, v, leak, rest, h):  # type: ignore[no-untyped-def]
    """Fills `h` with the exact potentials."""
    of = h.dtype.type
    # Shifts and roundings are not looked at in real numbers.
    if kind == LEAK:
        for i in range(h.shape[0]):
            n = LeakyNumbers(None, of(leak[i]), rest, 0, 0, 0, 0)
            h[i] = _leak(of(v[i]), of(x[i]), U64(0), n)
    elif kind == LEAK_ONLY:
        for i in range(h.shape[0]):
            n = LeakyNumbers(None, of(leak[i]), rest, 0, 0, 0, 0)
            h[i] = _leak_only(of(v[i]), of(x[i]), U64(0), n)
    else:
        n = LeakyNumbers(None, 0, 0, 0, 0, 0, 0)
        for i in range(h.shape[0]):
            h[i] = _integrate(of(v[i]), of(x[i]), U64(0), n)


@njit(**PART)
def _note(h, grid, codes):  # type: ignore[no-untyped-def]
    """Codes from 1 on; 0 and the one behind the last: they were saturated."""
    first, last = grid.low - ONE, grid.high - grid.low + TWO
    for i in range(h.shape[0]):
        codes[i] = np.int32(min(max(F32(h[i]) - first, ZERO), last))


@njit(**PART)
def _fire(h, grid, thresholds, charging, spikes, v):  # type: ignore[no-untyped-def]
    low, high, step = grid.low, grid.high, grid.step
    soft, reset = charging.soft, charging.reset
    for i in range(h.shape[0]):
        # Written so that NaN passes, which then stays in the potential until the last step.
        code = low if h[i] < low else F32(h[i])
        code = high if code > high else code
        u = code * step + ZERO
        fires = u >= thresholds[i]
        spike = F32(fires)
        lowered, replaced = _reset_by(u, spike, thresholds[i]), _reset_to(u, fires, reset)
        v[i] = lowered if soft else replaced
        spikes[i] = spike


@njit(**PART)
def _any_nan(v):  # type: ignore[no-untyped-def]
    strange = False
    for i in range(v.shape[0]):
        strange |= v[i] != v[i]
    return strange


def _compiled(sources: str) -> Any:
    """The kernel; the digest of its sources, as a variable of its closure, is in its cache key."""

    @njit(cache=True, nogil=True, error_model="numpy")
    def forward(begin, end, charging, grid, x, v, leak, thresholds, rows, spikes, last, codes):  # type: ignore[no-untyped-def]
        """Steps through a sequence.

        Args:
            begin: The first neuron.
            end: Behind the last one; others are left alone.
            charging: `Charging`.
            grid: `Grid`.
            x: Currents ``[T, M]``.
            v: float32 ``[M]``: the potentials before the first step.
            leak: ``[1]``, or one for each row; of the type that the charge is computed in.
            thresholds: float32 ``[1]``, or one for each row.
            rows: int32 ``[M]``: which constants a neuron has; ``[0]`` where they are the same.
            spikes: float32 ``[T, M]``, filled.
            last: float32 ``[M]``, filled: the potentials after the last step.
            codes: ``[T, M]``, filled: as `backward` takes them; or ``[0, 0]``.

        Returns:
            Whether all were numbers. If not, the results are of no use.
        """
        assert len(sources) > 0
        size, keeps = x.shape[1], codes.shape[0] > 0
        h, of_leak = np.empty(BLOCK, leak.dtype), np.empty(BLOCK, leak.dtype)
        u, of_threshold = np.empty(BLOCK, F32), np.empty(BLOCK, F32)
        numbers = True
        for a in range(begin, end, BLOCK):
            b = min(a + BLOCK, end)
            n = b - a
            u[:n] = v[a:b]
            spread(leak, rows, a, of_leak[:n])
            spread(thresholds, rows, a, of_threshold[:n])
            for t in range(x.shape[0]):
                g = h[:n]
                _charge(charging.kind, x[t, a:b], u, of_leak, charging.rest, g)
                if grid.span > ZERO:
                    reduce_(g, grid.span)
                round_(g, grid.scale, grid.mode, grid.key, grid.drawn + t * size + a)
                if grid.span > ZERO:
                    wrap_(g, grid.low, grid.high)
                if keeps:
                    _note(g, grid, codes[t, a:b])
                _fire(g, grid, of_threshold, charging, spikes[t, a:b], u)
            last[a:b] = u[:n]
            numbers &= not _any_nan(u[:n])
        return numbers

    return forward


forward = _compiled(SOURCES)
