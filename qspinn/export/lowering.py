"""From a device model to a program: the integer constants of each operation, grids and ranges.

The value of a code is ``code * 2^-fraction_bits`` of its operation. Sums are exact: weights of
channels with different formats are shifted to the finest grid of the layer.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qspinn.export.lowered_neurons import lowered_neuron
from qspinn.export.lowered_plastic import PLASTIC_LOWERINGS, lowered_trace
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
    Trace,
)
from qspinn.export.program import LONGEST, Instruction, Program, word_length_of
from qspinn.fixed_point import PerChannelFormat
from qspinn.steps.lowering import rounding_of

__all__ = ["program_of"]


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
        return lowered_neuron(model, operation, [_nothing(operation)])
    if isinstance(what, Trace):
        return lowered_trace(model, operation, [_nothing(operation)])
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


def _lowered_input(
    model: DeviceModel, operation: DeviceOperation, given: list[Instruction]
) -> Instruction:
    fmt = operation.what.format  # type: ignore[union-attr]
    return Instruction(
        operation, fmt.fraction_bits, fmt.code_min, fmt.code_max, word_length=fmt.word_length
    )


def _per_channel(tensor: StoredTensor) -> Codes:
    fmt, channels = tensor.format, tensor.shape[0]
    if isinstance(fmt, PerChannelFormat):
        return np.array([one.fraction_bits for one in fmt.formats], np.int64)
    return np.full(channels, fmt.fraction_bits, np.int64)


def _lowered_synapse(
    model: DeviceModel, operation: DeviceOperation, given: list[Instruction]
) -> Instruction:
    what, x = operation.what, given[0]
    assert isinstance(what, Synapse)
    weight = model.tensors[what.weight]
    codes, fractions = weight.codes, _per_channel(weight) + x.fraction_bits
    grid, added = int(fractions.max()), [0] * len(fractions)
    if what.bias is not None:
        bias = model.tensors[what.bias]
        grid = max(grid, int(_per_channel(bias).max()))
        pairs = zip(bias.codes, _per_channel(bias), strict=True)
        added = [int(code) << grid - int(fraction) for code, fraction in pairs]
    lows, highs = _sums(codes, x, grid - fractions)
    low = min(one + b for one, b in zip(lows, added, strict=True))
    high = max(one + b for one, b in zip(highs, added, strict=True))
    word_length = word_length_of(low, high, min(lows), max(highs), *added)
    held = what.bias is not None and word_length <= LONGEST
    return Instruction(
        operation,
        grid,
        low,
        high,
        weight=codes,
        weight_up=grid - fractions,
        bias=np.array(added, np.int64) if held else None,
        word_length=word_length,
    )


def _sums(weight: Codes, x: Instruction, up: Codes) -> tuple[list[int], list[int]]:
    """The smallest and the largest sum of each channel, without its bias."""
    rows = weight.reshape(len(weight), -1)
    positive, negative = np.maximum(rows, 0).sum(1), np.minimum(rows, 0).sum(1)
    x_low, x_high = min(x.low, 0), max(x.high, 0)  # zeros stand where a convolution is padded
    channels = [
        (int(plus), int(minus), int(shift))
        for plus, minus, shift in zip(positive, negative, up, strict=True)
    ]
    lows = [(plus * x_low + minus * x_high) << shift for plus, minus, shift in channels]
    highs = [(plus * x_high + minus * x_low) << shift for plus, minus, shift in channels]
    return lows, highs


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
        word_length=word_length_of(
            x.low << up, x.high << up, what.format.code_min, what.format.code_max
        )
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
        numerator = what.factor.numerator
        ends = [given[0].low * numerator, given[0].high * numerator]
        grid = given[0].fraction_bits + shift
        return _made(operation, grid, min(ends), max(ends), factor=numerator)
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
    return Instruction(operation, grid, low, high, word_length=word_length_of(low, high), **more)


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
    Neuron: lowered_neuron,
    Round: _lowered_round,
    Arithmetic: _lowered_arithmetic,
    Pooling: _lowered_pooling,
    Gather: _lowered_gather,
    State: _lowered_state,
    **PLASTIC_LOWERINGS,
}
