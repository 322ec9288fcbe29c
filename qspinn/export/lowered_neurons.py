"""The integer constants of neurons of a device model."""

from __future__ import annotations

from typing import Any

import numpy as np

from qspinn.export.model import DeviceModel, DeviceOperation, Neuron, StoredTensor
from qspinn.export.program import Instruction
from qspinn.fixed_point import FixedPointFormat
from qspinn.steps.lowering import FilterNumbers, LeakyNumbers, rounding_of
from qspinn.steps.models import MODELS
from qspinn.steps.words import Rounding

__all__ = ["lowered_neuron"]


def _shifted(tensor: StoredTensor, up: int) -> Any:
    """One code, or one for each part of the layer, on a finer grid."""
    codes = tensor.codes << up
    return codes if codes.ndim else int(codes)


def lowered_neuron(
    model: DeviceModel, operation: DeviceOperation, given: list[Instruction]
) -> Instruction:
    """A layer of neurons, given what is known of its input current."""
    what, x = operation.what, given[0]
    assert isinstance(what, Neuron)
    kind, to = MODELS[what.model], rounding_of(what.state, what.rounding, what.overflow)
    leak, leak_bits = 0, 0
    if what.decay is not None:
        decay = model.tensors[what.decay]
        assert isinstance(decay.format, FixedPointFormat)
        leak_bits = max(decay.format.fraction_bits, 0)
        leak = _shifted(decay, leak_bits - decay.format.fraction_bits)
    numbers: LeakyNumbers | FilterNumbers
    if kind.reads_out:
        numbers = _filter(what.state, to, x.fraction_bits, leak, leak_bits)
    else:
        numbers = _leaky(what, to, x.fraction_bits, leak, leak_bits)
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
        word_length=_neuronword_length_of(what, numbers, x),
    )


def _leaky(
    what: Neuron, to: Rounding, current_bits: int, leak: Any, leak_bits: int
) -> LeakyNumbers:
    v_bits = what.state.fraction_bits
    decays = what.decay is not None and what.decay_input
    inner = max(v_bits, current_bits)
    total = inner + leak_bits if decays else max(inner, v_bits + leak_bits)
    return LeakyNumbers(
        v=to,
        leak=leak,
        rest=what.reset or 0,
        v_up=total - v_bits,
        x_up=(inner if decays else total) - current_bits,
        rest_up=inner - v_bits if decays else total - v_bits - leak_bits,
        down=total - v_bits,
    )


def _filter(
    state: FixedPointFormat, to: Rounding, input_bits: int, leak: Any, leak_bits: int
) -> FilterNumbers:
    lifted = max(-input_bits, 0)
    assert lifted == 0
    product = input_bits + state.fraction_bits + leak_bits
    total = max(product, input_bits)
    return FilterNumbers(
        to=to,
        leak=leak,
        one=1 << input_bits,
        trace_up=total - state.fraction_bits,
        leak_up=total - product,
        x_up=total - input_bits,
        down=total - state.fraction_bits,
    )


def _neuronword_length_of(what: Neuron, numbers: Any, x: Instruction) -> int:
    """A bound of all that a step computes on its way, in bits, sign included."""
    state = max(abs(what.state.code_min), what.state.code_max, 1)
    current = max(abs(x.low), abs(x.high), 1)
    leak = int(np.max(numbers.leak)) if np.size(numbers.leak) else 0
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
