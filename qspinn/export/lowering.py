"""From a device model to a program: the integer constants of each operation, grids and ranges.

The value of a code is ``code * 2^-fraction_bits`` of its operation. Sums are exact: weights of
channels with different formats are shifted to the finest grid of the layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qspinn.export.model import (
    Arithmetic,
    Codes,
    DeviceModel,
    DeviceOperation,
    Gather,
    Input,
    Neuron,
    Pooling,
    Round,
    State,
    StoredTensor,
    Synapse,
)
from qspinn.fixed_point import FixedPointFormat, PerChannelFormat
from qspinn.steps.lowering import FilterNumbers, LeakyNumbers, rounding_of
from qspinn.steps.models import MODELS
from qspinn.steps.words import Rounding

__all__ = ["LONGEST", "Instruction", "Program", "program_of"]

LONGEST = 62
"""Bits, sign excluded, that no sum may need: what an int64 holds with room for a rounding."""


@dataclass(frozen=True, eq=False)
class Instruction:
    """An operation with its integer constants.

    Attributes:
        operation: The operation.
        fraction_bits: Of its output.
        low: No output is smaller.
        high: No output is larger.
        ups: How far each operand is shifted up to the common grid.
        weight: Of synapses: ``[out, in]`` or ``[out, in / groups, *kernel]``.
        weight_up: Shift of each output channel's sum: ``[out]``.
        bias: On the grid of the output: ``[out]``.
        numbers: Of neurons, see :mod:`qspinn.steps.lowering`.
        threshold: On the grid of the state, for each neuron or for all.
        reset: Code after a spike; None: the threshold is subtracted.
        to: Of roundings.
        down: Fraction bits that a rounding takes away; negative: how many it adds.
        factor: Of a scale, as a whole number; of an offset, on the grid of the output.
        word_length: What the largest intermediate result needs, sign included.
    """

    operation: DeviceOperation
    fraction_bits: int
    low: int
    high: int
    ups: tuple[int, ...] = ()
    weight: Codes | None = None
    weight_up: Codes | None = None
    bias: Codes | None = None
    numbers: LeakyNumbers | FilterNumbers | None = None
    threshold: Any = None
    reset: int | None = None
    to: Rounding | None = None
    down: int = 0
    factor: int = 1
    word_length: int = 1

    @property
    def what(self) -> Any:
        """What the operation does."""
        return self.operation.what


@dataclass(frozen=True, eq=False)
class Program:
    """A device model, lowered.

    Attributes:
        model: The model.
        instructions: One for each operation.
    """

    model: DeviceModel
    instructions: tuple[Instruction, ...]

    @property
    def accumulators(self) -> dict[str, int]:
        """Layer -> word length of its sums, sign included."""
        return {
            one.operation.path: one.word_length
            for one in self.instructions
            if isinstance(one.what, Synapse)
        }


def program_of(model: DeviceModel) -> Program:
    """Lowers a device model.

    Raises:
        ValueError: Sums of more than 62 bits; the message names the layer.
    """
    done: dict[int, Instruction] = {}
    delayed = _delayed_ranges(model)
    for number, operation in enumerate(model.operations):
        given = [done[o.source] if o.delay == 0 else delayed[o.source] for o in operation.operands]
        one = _LOWERINGS[type(operation.what)](model, operation, given)
        if one.word_length - 1 > LONGEST:
            raise ValueError(
                f"{operation.path or type(operation.what).__name__}: exact sums need "
                f"{one.word_length} bits, and a device has 64; write shorter word lengths"
            )
        done[number] = one
    return Program(model, tuple(done.values()))


def _delayed_ranges(model: DeviceModel) -> dict[int, Instruction]:
    """What is known of outputs of the step before, which must be those of neurons or roundings."""
    found = {}
    for operation in model.operations:
        for operand in operation.operands:
            if operand.delay:
                source = model.operations[operand.source]
                found[operand.source] = _bounded(model, source)
    return found


def _bounded(model: DeviceModel, operation: DeviceOperation) -> Instruction:
    what = operation.what
    if isinstance(what, Neuron):
        return _lowered_neuron(model, operation, [_nothing(operation)])
    if isinstance(what, Input | Round):
        lower = _lowered_input if isinstance(what, Input) else _lowered_round
        return lower(model, operation, [_nothing(operation)])
    if isinstance(what, Synapse | Pooling) and not any(o.delay for o in operation.operands):
        given = [_bounded(model, model.operations[o.source]) for o in operation.operands]
        return _LOWERINGS[type(what)](model, operation, given)
    raise ValueError(
        f"{operation.path}: what it computes is fed back without a neuron or a rounding between, "
        "so it can grow without bound"
    )


def _nothing(operation: DeviceOperation) -> Instruction:
    return Instruction(operation, 0, 0, 0)


def _bits(*bounds: int) -> int:
    """The word length, sign included, that holds all of these."""
    return 1 + max(max(bound, -bound - 1).bit_length() for bound in bounds)


def _lowered_input(
    model: DeviceModel, operation: DeviceOperation, given: list[Instruction]
) -> Instruction:
    fmt = operation.what.format  # type: ignore[union-attr]
    return Instruction(
        operation, fmt.fraction_bits, fmt.code_min, fmt.code_max, word_length=fmt.word_length
    )


def _per_channel(tensor: StoredTensor) -> Codes:
    fmt, channels = tensor.format, len(tensor.codes)
    if isinstance(fmt, PerChannelFormat):
        return np.array([one.fraction_bits for one in fmt.formats], np.int64)
    return np.full(channels, fmt.fraction_bits, np.int64)


def _lowered_synapse(
    model: DeviceModel, operation: DeviceOperation, given: list[Instruction]
) -> Instruction:
    what, x = operation.what, given[0]
    assert isinstance(what, Synapse)
    weight = model.tensors[what.weight]
    fractions = _per_channel(weight) + x.fraction_bits
    grid = int(fractions.max())
    bias = None if what.bias is None else model.tensors[what.bias]
    if bias is not None:
        grid = max(grid, int(_per_channel(bias).max()))
    up = grid - fractions
    shifts = [
        0 if bias is None else int(one) for one in (() if bias is None else _per_channel(bias))
    ]
    added = [
        0 if bias is None else int(bias.codes[channel]) << grid - shifts[channel]
        for channel in range(len(weight.codes))
    ]
    rows = weight.codes.reshape(len(weight.codes), -1)
    positive = np.where(rows > 0, rows, 0).sum(1).astype(object)
    negative = np.where(rows < 0, rows, 0).sum(1).astype(object)
    # Zeros stand where a convolution is padded.
    x_low, x_high = min(x.low, 0), max(x.high, 0)
    scale = [1 << int(one) for one in up]
    lows = [(p * x_low + n * x_high) * s for p, n, s in zip(positive, negative, scale, strict=True)]
    highs = [
        (p * x_high + n * x_low) * s for p, n, s in zip(positive, negative, scale, strict=True)
    ]
    low = min(one + b for one, b in zip(lows, added, strict=True))
    high = max(one + b for one, b in zip(highs, added, strict=True))
    return Instruction(
        operation,
        grid,
        int(low),
        int(high),
        weight=weight.codes,
        weight_up=up,
        bias=None if bias is None or _bits(*added) > LONGEST else np.array(added, np.int64),
        word_length=_bits(int(low), int(high), int(min(lows)), int(max(highs)), *added),
    )


def _constant(tensor: StoredTensor) -> Any:
    return int(tensor.codes) if tensor.codes.ndim == 0 else tensor.codes


def _lowered_neuron(
    model: DeviceModel, operation: DeviceOperation, given: list[Instruction]
) -> Instruction:
    what, x = operation.what, given[0]
    assert isinstance(what, Neuron)
    kind, to = MODELS[what.model], rounding_of(what.state, what.rounding, what.overflow)
    leak, leak_bits = 0, 0
    if what.decay is not None:
        decay = model.tensors[what.decay]
        assert isinstance(decay.format, FixedPointFormat)
        leak_bits = max(decay.format.fraction_bits, 0)
        leak = _constant(
            replace(decay, codes=decay.codes << leak_bits - decay.format.fraction_bits)
        )
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
        threshold = _constant(replace(held, codes=held.codes << up))
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


def _neuron_bits(what: Neuron, numbers: Any, x: Instruction) -> int:
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


def _lowered_round(
    model: DeviceModel, operation: DeviceOperation, given: list[Instruction]
) -> Instruction:
    what, x = operation.what, given[0]
    assert isinstance(what, Round)
    down = x.fraction_bits - what.format.fraction_bits
    to = rounding_of(what.format, what.rounding, what.overflow)
    up = max(-down, 0)
    return Instruction(
        operation,
        what.format.fraction_bits,
        what.format.code_min,
        what.format.code_max,
        to=to,
        down=down,
        word_length=_bits(x.low << up, x.high << up, what.format.code_min, what.format.code_max)
        + 1,
    )


def _lowered_arithmetic(
    model: DeviceModel, operation: DeviceOperation, given: list[Instruction]
) -> Instruction:
    what = operation.what
    assert isinstance(what, Arithmetic)
    if what.kind == "multiply":
        grid = sum(one.fraction_bits for one in given)
        ends = [a * b for a in (given[0].low, given[0].high) for b in (given[1].low, given[1].high)]
        return _made(operation, grid, min(ends), max(ends))
    if what.kind == "scale":
        shift = what.factor.denominator.bit_length() - 1
        ends = [given[0].low * what.factor.numerator, given[0].high * what.factor.numerator]
        grid = given[0].fraction_bits + shift
        return _made(operation, grid, min(ends), max(ends), factor=what.factor.numerator)
    if what.kind == "offset":
        grid = max(given[0].fraction_bits, what.factor.denominator.bit_length() - 1)
        up = grid - given[0].fraction_bits
        number = int(what.factor * (1 << grid)) if grid >= 0 else int(what.factor / (1 << -grid))
        low, high = (given[0].low << up) + number, (given[0].high << up) + number
        return _made(operation, grid, low, high, ups=(up,), factor=number)
    grid = max(one.fraction_bits for one in given)
    ups = tuple(grid - one.fraction_bits for one in given)
    low = high = 0
    for one, up, sign in zip(given, ups, what.signs, strict=True):
        first, second = sign * one.low << up, sign * one.high << up
        low, high = low + min(first, second), high + max(first, second)
    return _made(operation, grid, low, high, ups=ups)


def _made(operation: DeviceOperation, grid: int, low: int, high: int, **more: Any) -> Instruction:
    return Instruction(operation, grid, low, high, word_length=_bits(low, high), **more)


def _lowered_pooling(
    model: DeviceModel, operation: DeviceOperation, given: list[Instruction]
) -> Instruction:
    what, x = operation.what, given[0]
    assert isinstance(what, Pooling)
    if what.kind == "max":
        return _made(operation, x.fraction_bits, x.low, x.high)
    terms = math.prod(what.window.kernel) if what.window else model.tables[what.table].shape[1]  # type: ignore[index]
    return _made(operation, x.fraction_bits, min(x.low * terms, 0), max(x.high * terms, 0))


def _lowered_gather(
    model: DeviceModel, operation: DeviceOperation, given: list[Instruction]
) -> Instruction:
    grid = max(one.fraction_bits for one in given)
    ups = tuple(grid - one.fraction_bits for one in given)
    pairs = list(zip(given, ups, strict=True))
    low = min(0, *(one.low << up for one, up in pairs))
    high = max(0, *(one.high << up for one, up in pairs))
    return _made(operation, grid, low, high, ups=ups)


def _lowered_state(
    model: DeviceModel, operation: DeviceOperation, given: list[Instruction]
) -> Instruction:
    state = model.operations[operation.operands[0].source].what.state  # type: ignore[union-attr]
    return _made(operation, state.fraction_bits, state.code_min, state.code_max)


_LOWERINGS: dict[type, Any] = {
    Input: _lowered_input,
    Synapse: _lowered_synapse,
    Neuron: _lowered_neuron,
    Round: _lowered_round,
    Arithmetic: _lowered_arithmetic,
    Pooling: _lowered_pooling,
    Gather: _lowered_gather,
    State: _lowered_state,
}
