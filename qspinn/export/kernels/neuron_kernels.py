"""Compiled steps of layers of neurons, and roundings of whole layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

from qspinn.export.kernels.calls import COUNTED, FILTERED, FIRES, INTEGRATE, LEAK, SILENT
from qspinn.fixed_point.compiled_bits import U64, random_bits
from qspinn.steps import neurons, traces
from qspinn.steps.lowering import FilterNumbers, LeakyNumbers
from qspinn.steps.roundings import kept
from qspinn.steps.targets.numba import PART
from qspinn.steps.words import NEAREST, STOCHASTIC, TRUNCATE, Rounding, clamped

__all__ = ["neuron", "random_of", "rounding"]

_draw = random_bits.draw
_integrate, _leak, _leak_only = neurons.integrate, neurons.leak, neurons.leak_only
_counted, _reset_by, _reset_to = neurons.counted, neurons.reset_by, neurons.reset_to
_filtered = traces.filtered


def _spiking(charge: Callable[..., Any], mode: int) -> Any:
    """A layer that fires, in a common rounding: the loop has no branches, and is vectorised."""

    @njit(**PART)
    def layer(call, memory, constants):  # type: ignore[no-untyped-def]
        size = call.size
        x, v = memory[call.x : call.x + size], memory[call.state : call.state + size]
        out = memory[call.out : call.out + size]
        thresholds = constants[call.threshold : call.threshold + size]
        leaks = constants[call.leak : call.leak + size]
        rest, reset, is_soft = call.rest, call.reset, call.soft != 0
        v_up, x_up, rest_up, down = call.v_up, call.x_up, call.other_up, call.down
        low, high = call.low, call.high
        for i in range(size):
            to = Rounding(mode, low, high, False)
            n = LeakyNumbers(to, leaks[i], rest, v_up, x_up, rest_up, down)
            h = charge(v[i], x[i], U64(0), n)
            spike = h >= thresholds[i]
            soft = clamped(_reset_by(h, spike, thresholds[i]), low, high)
            hard = _reset_to(h, spike, reset)
            v[i] = soft if is_soft else hard
            out[i] = spike

    return layer


_SPIKING = {
    (step, mode): _spiking(step, mode)
    for step in (_integrate, _leak, _leak_only)
    for mode in (NEAREST, TRUNCATE)
}
_integrate_nearest, _integrate_truncate = (
    _SPIKING[_integrate, NEAREST],
    _SPIKING[_integrate, TRUNCATE],
)
_leak_nearest, _leak_truncate = _SPIKING[_leak, NEAREST], _SPIKING[_leak, TRUNCATE]
_only_nearest, _only_truncate = _SPIKING[_leak_only, NEAREST], _SPIKING[_leak_only, TRUNCATE]


@njit(**PART)
def neuron(call, memory, constants, tables, key, first):  # type: ignore[no-untyped-def]
    """A step of a layer of neurons.

    Args:
        call: Its record.
        memory: Of the sample.
        constants: Thresholds and leaks.
        tables: Orders of elements.
        key: Of the draws of stochastic rounding.
        first: Number of the draw of the first element.
    """
    is_common = call.gives == FIRES and call.wrap == 0
    if is_common and call.mode == NEAREST:
        if call.step == INTEGRATE:
            _integrate_nearest(call, memory, constants)
        elif call.step == LEAK:
            _leak_nearest(call, memory, constants)
        else:
            _only_nearest(call, memory, constants)
    elif is_common and call.mode == TRUNCATE:
        if call.step == INTEGRATE:
            _integrate_truncate(call, memory, constants)
        elif call.step == LEAK:
            _leak_truncate(call, memory, constants)
        else:
            _only_truncate(call, memory, constants)
    else:
        _any_neuron(call, memory, constants, tables, key, first)


@njit(**PART)
def random_of(call, tables, key, first, i):  # type: ignore[no-untyped-def]
    """What the rounding of an element draws; see `neuron`."""
    if call.mode != STOCHASTIC:
        return U64(0)
    return _draw(key, first + (i if call.order < 0 else tables[call.order + i]))


@njit(**PART)
def _any_neuron(call, memory, constants, tables, key, first):  # type: ignore[no-untyped-def]
    to = Rounding(call.mode, call.low, call.high, call.wrap != 0)
    for i in range(call.size):
        x, v = memory[call.x + i], memory[call.state + i]
        leak = constants[call.leak + i]
        random = random_of(call, tables, key, first, i)
        if call.step == FILTERED:
            f = FilterNumbers(to, leak, call.one, call.v_up, call.other_up, call.x_up, call.down)
            h = _filtered(v, x, random, f)
        else:
            n = LeakyNumbers(
                to, leak, call.rest, call.v_up, call.x_up, call.other_up, call.down
            )  # fmt: skip
            if call.step == INTEGRATE:
                h = _integrate(v, x, random, n)
            elif call.step == LEAK:
                h = _leak(v, x, random, n)
            else:
                h = _leak_only(v, x, random, n)
        if call.gives == SILENT:
            memory[call.state + i] = h
            memory[call.out + i] = h
            continue
        threshold = constants[call.threshold + i]
        spikes = _counted(h, threshold, call.most) if call.gives == COUNTED else int(h >= threshold)
        if call.soft != 0:
            after = clamped(_reset_by(h, spikes, threshold), call.low, call.high)
        else:
            after = _reset_to(h, spikes != 0, call.reset)
        memory[call.state + i] = after
        memory[call.out + i] = spikes


@njit(**PART)
def rounding(call, memory, tables, key, first):  # type: ignore[no-untyped-def]
    """Rounds a layer; see `neuron`."""
    to = Rounding(call.mode, call.low, call.high, call.wrap != 0)
    up, down = call.up, call.down
    for i in range(call.size):
        random = random_of(call, tables, key, first, i)
        memory[call.out + i] = kept(memory[call.x + i] << up, down, to, random)
