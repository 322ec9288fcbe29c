"""The parts of the event-driven kernel, each a loop over what happens in a step."""

from __future__ import annotations

import numpy as np
from numba import njit

from qspinn.fixed_point.compiled_bits import U64
from qspinn.stdp.kernel_charge import inhibited
from qspinn.stdp.kernel_plasticity import change_column, drawn, scale_column
from qspinn.stdp.kernel_words import draw, threshold, winner
from qspinn.steps.neurons import raised
from qspinn.steps.plasticity import bounded, changed, potentiation
from qspinn.steps.random_spikes import PROBABILITY_BITS
from qspinn.steps.targets.numba import PART

UPDATES, UNDERFLOWS = 1, 2


@njit(**PART)
def encode(p, key, steps, starts, events, cursor, words, active):  # type: ignore[no-untyped-def]
    """Poisson spikes of one presentation, sorted by step; the number of inputs that may spike."""
    count, per_input = 0, words.shape[0]
    starts[:] = 0
    for i in range(p.shape[0]):
        if p[i] == 0:
            continue
        active[count] = i
        digits = U64(p[i])
        for w in range(per_input):
            word = U64(0)
            base = (i * per_input + w) * PROBABILITY_BITS
            for digit in range(PROBABILITY_BITS):
                random = draw(key, base + digit)
                word = word | random if (digits >> U64(digit)) & U64(1) else word & random
            used = steps - 64 * w
            if used < 64:
                word &= (U64(1) << U64(used)) - U64(1)
            words[w, count] = word
            while word != U64(0):
                starts[64 * w + _lowest_bit(word) + 1] += 1
                word &= word - U64(1)
        count += 1
    for t in range(steps):
        starts[t + 1] += starts[t]
        cursor[t] = starts[t]
    for a in range(count):
        for w in range(per_input):
            word = words[w, a]
            while word != U64(0):
                t = 64 * w + _lowest_bit(word)
                events[cursor[t]] = active[a]
                cursor[t] += 1
                word &= word - U64(1)
    return count


@njit(inline="always")
def _lowest_bit(word):  # type: ignore[no-untyped-def]
    """Place of the lowest bit that is set: the number of bits set below it."""
    x = (word & (U64(0) - word)) - U64(1)
    x = x - ((x >> U64(1)) & U64(0x5555555555555555))
    x = (x & U64(0x3333333333333333)) + ((x >> U64(2)) & U64(0x3333333333333333))
    x = (x + (x >> U64(4))) & U64(0x0F0F0F0F0F0F0F0F)
    return np.int64((x * U64(0x0101010101010101)) >> U64(56))


@njit(**PART, forceinline=True)
def gather(weight, events, current):  # type: ignore[no-untyped-def]
    """Sums the rows of the inputs that spike, in their order; four at a time saves stores."""
    neurons, last, kind = current.shape[0], events.shape[0], current.dtype.type
    e = 0
    if last < 4:
        for j in range(neurons):
            current[j] = 0
    else:
        a, b, c, d = weight[events[0]], weight[events[1]], weight[events[2]], weight[events[3]]
        for j in range(neurons):
            current[j] = ((kind(a[j]) + b[j]) + c[j]) + d[j]
        e = 4
    while e + 4 <= last:
        a, b = weight[events[e]], weight[events[e + 1]]
        c, d = weight[events[e + 2]], weight[events[e + 3]]
        for j in range(neurons):
            current[j] = (((current[j] + a[j]) + b[j]) + c[j]) + d[j]
        e += 4
    while e < last:
        a = weight[events[e]]
        for j in range(neurons):
            current[j] += a[j]
        e += 1


@njit(**PART, forceinline=True)
def set_inhibition(n, lowered, outputs, first, last):  # type: ignore[no-untyped-def]
    """Lowers all neurons by the spikes of a step but their own."""
    lowered[:] = inhibited(n, last - first)
    for e in range(first, last):
        lowered[outputs[e]] = inhibited(n, last - first - 1)


@njit(**PART, forceinline=True)
def fire(reset, v, total, ready, after, crossed):  # type: ignore[no-untyped-def]
    """Lists and resets the neurons at their threshold, until the step ``after``; their number."""
    count = 0
    for j in range(v.shape[0]):
        if v[j] >= total[j]:
            crossed[count] = j
            count += 1
            v[j] = reset
            ready[j] = after
    return count


@njit(**PART, forceinline=True)
def spike(crossed, count, one_winner, key, t, outputs, end):  # type: ignore[no-untyped-def]
    """Which of the neurons at their threshold spike; where the list of spikes ends then."""
    if count > 0 and one_winner:
        outputs[end] = crossed[winner(key, t, count)]
        return end + 1
    for q in range(count):
        outputs[end + q] = crossed[q]
    return end + count


@njit(**PART, forceinline=True)
def raise_theta(numbers, crossed, count, theta, total, key, t):  # type: ignore[no-untyped-def]
    """Theta of the neurons that reached their threshold."""
    for q in range(count):
        j = crossed[q]
        theta[j] = raised(theta[j], draw(key, t * theta.shape[0] + j), numbers.theta)
        total[j] = threshold(numbers.neuron, theta[j])


@njit(**PART, forceinline=True)
def note_spikes(one, outputs, first, last, t, times, values, spiked, known, slots, learners):  # type: ignore[no-untyped-def]
    """Traces of the neurons that spike, and who has spiked so far; the number of those."""
    for e in range(first, last):
        j = outputs[e]
        if times[j] < 0:
            spiked[known] = j
            known += 1
            if slots[j] < 0:
                slots[j] = learners[-1]
                learners[learners[-1]] = j
                learners[-1] += 1
        times[j] = t
        values[j] = one
    return known


@njit(**PART)
def sum_up_pre(spiked, changes, events, slots, sums):  # type: ignore[no-untyped-def]
    """Adds changes at the spikes of inputs to sums."""
    for q in range(spiked.shape[0]):
        slot = slots[spiked[q]]
        for e in range(events.shape[0]):
            sums[slot, events[e]] += changes[q]


@njit(**PART, forceinline=True)
def potentiate(n, traced, values, j, key, turn, weight, column, stats):  # type: ignore[no-untyped-def]
    """Changes of the weights to neuron j at its spike, from the traces of the inputs listed.

    ``column`` is scratch memory for the weights: side by side, they are changed several at a time.
    """
    count, neurons = traced.shape[0], weight.shape[1]
    for a in range(count):
        column[a] = weight[traced[a], j]
    updates, unchanged = change_column(n, j, key, turn, neurons, traced, values, column[:count])
    for a in range(count):
        weight[traced[a], j] = column[a]
    stats[UPDATES] += updates
    stats[UNDERFLOWS] += unchanged


@njit(**PART, forceinline=True)
def sum_up_post(n, traced, values, j, sums):  # type: ignore[no-untyped-def]
    """Adds the changes at a spike of neuron j, from inputs and their traces, to sums."""
    rate = n.rate_post[j]
    for a in range(traced.shape[0]):
        sums[traced[a]] += potentiation(values[a], rate, n)


@njit(**PART)
def settle(n, j, key, turn, weight, sums, stats):  # type: ignore[no-untyped-def]
    """Makes the changes of the weights to neuron j that were summed up."""
    updates, underflows = 0, 0
    for i in range(weight.shape[0]):
        if sums[i] == 0:
            continue
        w = weight[i, j]
        after = changed(w, sums[i], drawn(n, key, i * weight.shape[1] + j, turn), n)
        updates += 1
        underflows += after == w
        weight[i, j] = bounded(after, n.maximum[j], n)
        sums[i] = 0
    stats[UPDATES] += updates
    stats[UNDERFLOWS] += underflows


@njit(**PART, forceinline=True)
def normalise(n, j, key, turn, weight, column, sums, stats):  # type: ignore[no-untyped-def]
    """Scales the weights to neuron j to their sum, with the changes that were summed up.

    ``column`` is scratch memory for them: side by side, they are worked on several at a time.
    """
    inputs = column.shape[0]
    for i in range(inputs):
        column[i] = weight[i, j]
    updates = unchanged = 0
    for i in range(inputs):
        updates += sums[i] != 0
    scale_column(n, j, key, turn, weight.shape[1], column, sums)
    for i in range(inputs):
        unchanged += (sums[i] != 0) & (column[i] == weight[i, j])
        weight[i, j] = column[i]
    sums[:] = 0
    stats[UPDATES] += updates
    stats[UNDERFLOWS] += unchanged
