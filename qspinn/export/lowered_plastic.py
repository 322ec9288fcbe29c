"""The integer constants of traces, adaptive neurons, random spikes, and totals."""

from __future__ import annotations

from typing import Any

import numpy as np

from qspinn.export.lowered_neurons import constant_of
from qspinn.export.model import DeviceModel, DeviceOperation
from qspinn.export.plastic import (
    AdaptiveNeuron,
    Compare,
    LabelSums,
    RandomSpikes,
    Total,
    Trace,
)
from qspinn.export.program import Instruction, word_length_of
from qspinn.fixed_point import FixedPointFormat
from qspinn.steps import neurons
from qspinn.steps.lowering import (
    AdaptiveNumbers,
    FollowingNumbers,
    adaptive_numbers,
    following_numbers,
    rounding_of,
)
from qspinn.steps.random_spikes import PROBABILITY_BITS, WORD, SpikeNumbers

__all__ = ["PLASTIC_LOWERINGS", "lowered_trace"]


def lowered_trace(
    model: DeviceModel, operation: DeviceOperation, given: list[Instruction]
) -> Instruction:
    """A trace, given what is known of what it follows."""
    what, x = operation.what, given[0]
    assert isinstance(what, Trace)
    leak = constant_of(model.tensors[what.leak])
    gain = leak if what.gain is None else constant_of(model.tensors[what.gain])
    to = rounding_of(what.state, what.rounding, what.overflow)
    numbers = following_numbers(what.state, to, x.fraction_bits, leak, gain)
    return Instruction(
        operation,
        what.state.fraction_bits,
        what.state.code_min,
        what.state.code_max,
        numbers=numbers,
        to=to,
        word_length=_trace_word_length(numbers, what.state, x),
    )


def _trace_word_length(numbers: FollowingNumbers, state: FixedPointFormat, x: Instruction) -> int:
    held = max(abs(state.code_min), state.code_max, 1) * numbers.keep << numbers.x_up
    added = max(abs(x.low), abs(x.high), 1) * abs(numbers.gain) << numbers.gain_up
    return (held + added).bit_length() + 2


def _lowered_compare(
    model: DeviceModel, operation: DeviceOperation, given: list[Instruction]
) -> Instruction:
    what, x = operation.what, given[0]
    assert isinstance(what, Compare)
    threshold = constant_of(model.tensors[what.threshold])
    grid = max(x.fraction_bits, threshold.bits)
    up, code = grid - x.fraction_bits, threshold.code << grid - threshold.bits
    return Instruction(
        operation,
        0,
        0,
        1,
        ups=(up,),
        threshold=code,
        word_length=word_length_of(x.low << up, x.high << up, code),
    )


def _lowered_adaptive(
    model: DeviceModel, operation: DeviceOperation, given: list[Instruction]
) -> Instruction:
    what, x = operation.what, given[0]
    assert isinstance(what, AdaptiveNeuron)
    theta = model.tensors[what.theta]
    assert isinstance(theta.format, FixedPointFormat)
    names = ("leak", "inhibition", "threshold", "reset")
    constants = {name: constant_of(model.tensors[getattr(what, name)]) for name in names}
    to = rounding_of(what.state, what.rounding, what.overflow)
    bits = x.fraction_bits
    n = adaptive_numbers(what.state, to, bits, theta.format.fraction_bits, constants)
    totals = neurons.adaptive_threshold(theta.codes, n)
    return Instruction(
        operation,
        0,
        0,
        1,
        numbers=n,
        threshold=totals,
        reset=int(n.reset),
        to=to,
        word_length=_adaptive_word_length(what, n, totals, x, operation.size),
    )


def _adaptive_word_length(
    what: AdaptiveNeuron, n: AdaptiveNumbers, totals: Any, x: Instruction, size: int
) -> int:
    state = max(abs(what.state.code_min), what.state.code_max, 1)
    others = 1 if what.one_winner else max(size - 1, 1)
    charge = (state * n.keep << n.v_up) + (max(abs(x.low), abs(x.high), 1) << n.current_up)
    charge += abs(int(n.inhibition)) * others
    compared = max(state << n.fire_up, int(np.abs(totals).max(initial=0)))
    return max(charge.bit_length() + 2, compared.bit_length() + 1)


def _lowered_random_spikes(
    model: DeviceModel, operation: DeviceOperation, given: list[Instruction]
) -> Instruction:
    what, x = operation.what, given[0]
    assert isinstance(what, RandomSpikes)
    words = -(-model.steps // WORD)
    product = (x.high * what.multiplier + (1 << what.down)).bit_length() + 1
    return Instruction(
        operation,
        0,
        0,
        1,
        numbers=SpikeNumbers(what.multiplier, what.down, what.key, what.draws, words),
        word_length=max(product, PROBABILITY_BITS + 1),
    )


def _lowered_total(
    model: DeviceModel, operation: DeviceOperation, given: list[Instruction]
) -> Instruction:
    what, x = operation.what, given[0]
    assert isinstance(what, Total)
    steps = max(model.steps - what.first, 1)
    low, high = min(x.low, 0) * steps, max(x.high, 0) * steps
    return Instruction(operation, x.fraction_bits, low, high, word_length=word_length_of(low, high))


def _lowered_label_sums(
    model: DeviceModel, operation: DeviceOperation, given: list[Instruction]
) -> Instruction:
    what, x = operation.what, given[0]
    assert isinstance(what, LabelSums)
    labels = model.tensors[what.labels].codes
    low, high = min(x.low, 0) * labels.size, max(x.high, 0) * labels.size
    return Instruction(
        operation,
        x.fraction_bits,
        low,
        high,
        weight=labels,
        word_length=word_length_of(low, high),
    )


PLASTIC_LOWERINGS: dict[type, Any] = {
    Trace: lowered_trace,
    Compare: _lowered_compare,
    AdaptiveNeuron: _lowered_adaptive,
    RandomSpikes: _lowered_random_spikes,
    Total: _lowered_total,
    LabelSums: _lowered_label_sums,
}
