"""The integer constants of neurons of a device model."""

from __future__ import annotations

from typing import Any

import numpy as np

from qspinn.export.model import DeviceModel, DeviceOperation, Neuron, StoredTensor
from qspinn.export.program import LONGEST, Instruction, word_length_of
from qspinn.fixed_point import FixedPointFormat
from qspinn.steps.lowering import (
    Constant,
    FilterNumbers,
    LeakyNumbers,
    filter_numbers,
    leaky_numbers,
    rounding_of,
)
from qspinn.steps.models import MODELS

__all__ = ["constant_of", "lowered_neuron"]


def constant_of(tensor: StoredTensor) -> Constant:
    """One stored number, or one for each part of a layer."""
    assert isinstance(tensor.format, FixedPointFormat)
    return Constant(_shifted(tensor, 0), tensor.format.fraction_bits)


def _shifted(tensor: StoredTensor, up: int) -> Any:
    """One code, or one for each part of the layer, on a finer grid.

    Raises:
        ValueError: The codes need more bits there than there are.
    """
    word_length = word_length_of(*(end << up for end in tensor.packed.extremes))
    if word_length - 1 > LONGEST:
        raise ValueError(
            f"constants in {tensor.format} need {word_length} bits on the grid that they are used "
            "on, and a device has 64; write formats that are closer to each other"
        )
    codes = tensor.codes << up
    return codes if codes.ndim else int(codes)


def lowered_neuron(
    model: DeviceModel, operation: DeviceOperation, given: list[Instruction]
) -> Instruction:
    """A layer of neurons, given what is known of its input current."""
    what, x = operation.what, given[0]
    assert isinstance(what, Neuron)
    kind, to = MODELS[what.model], rounding_of(what.state, what.rounding, what.overflow)
    leak = None if what.decay is None else constant_of(model.tensors[what.decay])
    numbers: LeakyNumbers | FilterNumbers
    if kind.reads_out:
        assert leak is not None
        if x.fraction_bits < 0:
            raise ValueError(f"{operation.path}: takes numbers in steps above 1")
        numbers = filter_numbers(what.state, to, x.fraction_bits, leak)
    else:
        rest = (what.reset or 0) * what.state.step
        numbers = leaky_numbers(what.state, to, x.fraction_bits, leak, rest, what.decay_input)
    threshold = None
    if what.threshold is not None:
        held = model.tensors[what.threshold]
        assert isinstance(held.format, FixedPointFormat)
        up = what.state.fraction_bits - held.format.fraction_bits
        threshold = _shifted(held, up)
    reads = threshold is None
    low, high = (what.state.code_min, what.state.code_max) if reads else (0, what.most)
    return Instruction(
        operation,
        what.state.fraction_bits if reads else 0,
        low,
        high,
        numbers=numbers,
        threshold=threshold,
        reset=what.reset,
        to=to,
        word_length=_neuron_bits(what, numbers, x),
    )


def _neuron_bits(what: Neuron, numbers: Any, x: Instruction) -> int:
    """A bound of all that a step computes on its way, in bits, sign included."""
    state = max(abs(what.state.code_min), what.state.code_max, 1)
    current = max(abs(x.low), abs(x.high), 1)
    leak = int(np.max(np.abs(numbers.leak))) if np.size(numbers.leak) else 0
    if isinstance(numbers, FilterNumbers):
        total = (state << max(numbers.trace_up, 0)) + (current << numbers.x_up)
        total += (numbers.one + current) * state * leak << numbers.leak_up
        return total.bit_length() + 2
    above = (2 * state) << max(numbers.rest_up, 0)
    if what.decay is not None and what.decay_input:
        added = leak * ((current << numbers.x_up) + above)
    else:
        added = (current << numbers.x_up) + leak * above
    return ((state << numbers.v_up) + added).bit_length() + 2
