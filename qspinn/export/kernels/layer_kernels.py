"""Compiled operations on whole layers that round nothing: sums of weights, pooling, arithmetic."""

from __future__ import annotations

import numpy as np
from numba import njit

from qspinn.fixed_point.compiled_bits import U64
from qspinn.steps.targets.numba import PART

__all__ = ["combine", "fill", "largest", "multiply", "scatter", "sums"]


@njit(**PART)
def fill(call, memory, codes):  # type: ignore[no-untyped-def]
    """The input."""
    out = memory[call.out : call.out + call.size]
    for i in range(call.size):
        out[i] = codes[i]


@njit(**PART)
def scatter(call, memory, constants, tables, events):  # type: ignore[no-untyped-def]
    """Adds the weights of all inputs that are not 0, see :mod:`qspinn.export.kernels.scatter`.

    Args:
        call: Its record.
        memory: Of the sample.
        constants: Weights and biases.
        tables: Runs.
        events: Room for the places of the inputs.
    """
    out = memory[call.out : call.out + call.size]
    if call.bias < 0:
        out[:] = 0
    else:
        bias = constants[call.bias : call.bias + call.channels]
        for first in range(0, call.size, call.channels):
            for j in range(call.channels):
                out[first + j] = bias[j]
    x = memory[call.x : call.x + call.inputs]
    count = U64(0)
    for i in range(U64(call.inputs)):  # without branches, which would be mispredicted
        events[count] = i
        count += U64(x[i] != 0)
    if call.binary != 0:
        _add_events(call, memory, constants, tables, events[:count])
    else:
        _add_products(call, memory, constants, tables, events[:count])


@njit(**PART)
def _add_events(call, memory, constants, tables, events):  # type: ignore[no-untyped-def]
    """Up to four spikes of one place together: their sums are loaded and stored once."""
    slots, starts, none = U64(call.slots), U64(call.starts), U64(call.none)
    count, e = events.shape[0], 0
    while e < count:
        slot = slots + U64(3) * U64(events[e])
        position, target = tables[slot], tables[slot + U64(2)]
        w0, w1, w2, w3 = U64(tables[slot + U64(1)]), none, none, none
        together = 1
        while together < 4 and e + together < count:
            slot = slots + U64(3) * U64(events[e + together])
            if tables[slot] != position or tables[slot + U64(2)] != target:
                break
            weights = U64(tables[slot + U64(1)])
            if together == 1:
                w1 = weights
            elif together == 2:
                w2 = weights
            else:
                w3 = weights
            together += 1
        e += together
        begin = U64(tables[starts + U64(position)])
        for r in range(begin, U64(tables[starts + U64(position) + U64(1)]), U64(3)):
            place, tap = U64(target) + U64(tables[r]), U64(tables[r + U64(1)])
            length = U64(tables[r + U64(2)])
            if together == 1:
                for j in range(tap, tap + length):
                    memory[place + (j - tap)] += constants[w0 + j]
            elif together == 2:
                for j in range(tap, tap + length):
                    memory[place + (j - tap)] += constants[w0 + j] + constants[w1 + j]
            else:
                for j in range(tap, tap + length):
                    memory[place + (j - tap)] += (
                        constants[w0 + j]
                        + constants[w1 + j]
                        + constants[w2 + j]
                        + constants[w3 + j]
                    )


@njit(**PART)
def _add_products(call, memory, constants, tables, events):  # type: ignore[no-untyped-def]
    slots, starts = U64(call.slots), U64(call.starts)
    for e in range(events.shape[0]):
        value = memory[call.x + events[e]]
        slot = slots + U64(3) * U64(events[e])
        position = U64(tables[slot])
        weights, target = U64(tables[slot + U64(1)]), U64(tables[slot + U64(2)])
        begin, end = tables[starts + position], tables[starts + position + U64(1)]
        for r in range(U64(begin), U64(end), U64(3)):
            place, weight = target + U64(tables[r]), weights + U64(tables[r + U64(1)])
            for j in range(U64(tables[r + U64(2)])):
                memory[place + j] += value * constants[weight + j]


@njit(**PART)
def sums(call, memory, tables):  # type: ignore[no-untyped-def]
    """Sums over the rows of a table, of neighbours together."""
    block = U64(call.block)
    for row in range(call.size // call.block):
        out = U64(call.out) + U64(row) * block
        for j in range(block):
            memory[out + j] = 0
        for term in range(call.terms):
            place = tables[call.table + row * call.terms + term]
            if place >= 0:
                for j in range(block):
                    memory[out + j] += memory[U64(place) + j]


@njit(**PART)
def largest(call, memory, tables):  # type: ignore[no-untyped-def]
    """Maxima over the rows of a table, of neighbours together."""
    block, least = U64(call.block), np.iinfo(memory.dtype).min
    for row in range(call.size // call.block):
        out = U64(call.out) + U64(row) * block
        for j in range(block):
            memory[out + j] = least
        for term in range(call.terms):
            place = tables[call.table + row * call.terms + term]
            if place >= 0:
                for j in range(block):
                    memory[out + j] = max(memory[out + j], memory[U64(place) + j])


@njit(**PART)
def combine(call, memory):  # type: ignore[no-untyped-def]
    """``offset + factor * x``, added to what is there or not."""
    x = memory[call.x : call.x + call.size]
    out = memory[call.out : call.out + call.size]
    offset, factor = call.offset, call.factor
    if call.adds != 0:
        for i in range(call.size):
            out[i] += factor * x[i]
    else:
        for i in range(call.size):
            out[i] = offset + factor * x[i]


@njit(**PART)
def multiply(call, memory):  # type: ignore[no-untyped-def]
    """Products of two layers, number by number."""
    x, y = memory[call.x : call.x + call.size], memory[call.y : call.y + call.size]
    out = memory[call.out : call.out + call.size]
    for i in range(call.size):
        out[i] = x[i] * y[i]
