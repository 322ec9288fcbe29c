"""What must hold of a device model before anything is computed with it.

A model may come from a file that somebody else has made: whatever an engine or an exporter relies
on is checked here, once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from qspinn.export.checking_plastic import PLASTIC_CHECKS
from qspinn.export.checks import check_rounding, require, tensor_of
from qspinn.export.errors import FindingError
from qspinn.export.learning_layers import learning_layers
from qspinn.export.model import (
    AdaptiveNeuron,
    Arithmetic,
    DeviceModel,
    DeviceOperation,
    Gather,
    Input,
    Neuron,
    Pooling,
    Round,
    State,
    Synapse,
)
from qspinn.export.packed_tensor import PackedTensor
from qspinn.fixed_point import FixedPointFormat, PerChannelFormat
from qspinn.steps.models import MODELS

__all__ = ["check_model"]

MOST_VALUES = 1 << 26
"""Outputs of one operation: more than any network here has, and little enough to hold."""
_OVER = ("sum", "last", "each")
_BINARY = ("add", "multiply")


def check_model(model: DeviceModel) -> None:
    """Checks a device model.

    Raises:
        FindingError: What does not hold, and where.
    """
    if not model.operations or not isinstance(model.operations[0].what, Input):
        raise FindingError("the first operation is not the input")
    if model.steps < 1 or model.frame_stride < 0:
        raise FindingError(f"{model.steps} steps with a stride of {model.frame_stride}")
    for number, one in enumerate(model.operations):
        place = f"operation {number}" + (f" ({one.path})" if one.path else "")
        try:
            _check_operation(model, number, one)
            _CHECKS[type(one.what)](model, one)
        except FindingError as error:
            raise FindingError(f"{place}: {error.found}", advice="export the model again") from None
    _check_tensors(model)
    _check_output(model)
    if model.learning is not None:
        if model.learning_refused is not None:
            raise FindingError("says how it learns, and why it cannot", "export the model again")
        try:
            learning_layers(model, model.learning)
        except ValueError as error:
            raise FindingError(f"learning: {error}", advice="export the model again") from None


def _check_operation(model: DeviceModel, number: int, one: DeviceOperation) -> None:
    require(all(size >= 1 for size in (*one.shape, *one.taken)), f"a shape of {one.shape}")
    require(one.size <= MOST_VALUES and one.rows >= 1, f"an output of {one.size} values")
    for operand in one.operands:
        require(0 <= operand.source < len(model.operations), f"takes operation {operand.source}")
        source = model.operations[operand.source]
        before = operand.source < number if operand.delay == 0 else not source.is_static
        require(operand.delay in (0, 1) and before, f"takes operation {operand.source} too early")
        fits = not one.is_static or (source.is_static and operand.delay == 0)
        require(fits, "is computed once, from what changes with time")
        late = model.operations[operand.source].is_final and not one.is_final
        require(not late, "takes in each step what is computed after the last one")
    require(isinstance(one.what, Input) == (number == 0), "the input comes first, and only there")
    for fmt in vars(one.what).values():
        fits = not isinstance(fmt, FixedPointFormat) or not fmt.symmetric
        require(fits, f"the format {fmt}, which only weights have")
    require(not (one.is_final and (one.is_static or number == 0)), "is computed first and last")


def _sources(model: DeviceModel, one: DeviceOperation) -> list[DeviceOperation]:
    return [model.operations[operand.source] for operand in one.operands]


def _only(model: DeviceModel, one: DeviceOperation) -> DeviceOperation:
    sources = _sources(model, one)
    require(len(sources) == 1, f"takes {len(sources)} operands, not one")
    return sources[0]


def _check_input(model: DeviceModel, one: DeviceOperation) -> None:
    require(not one.operands, "an input with operands")
    require(one.is_static == (model.frame_stride == 0), "a stride that is not that of the input")
    check_rounding(one.what)
    if model.frame is not None:
        table = _table(model, model.frame, (one.size,))
        require(table.extremes[0] >= 0, "a place below 0")


def _table(model: DeviceModel, name: str, shape: tuple[int, ...]) -> PackedTensor:
    require(name in model.tables, f"the table {name!r} is missing")
    table = model.tables[name]
    fits = len(table.shape) == len(shape) and all(
        wanted in (-1, size) for size, wanted in zip(table.shape, shape, strict=True)
    )
    require(fits and math.prod(table.shape) > 0, f"the table {name!r} has the shape {table.shape}")
    return table


def _check_places(table: PackedTensor, lowest: int, size: int) -> None:
    low, high = table.extremes
    require(lowest <= low and high < size, f"places from {low} to {high} of {size} values")


def _check_synapse(model: DeviceModel, one: DeviceOperation) -> None:
    what, source = one.what, _only(model, one)
    assert isinstance(what, Synapse)
    weight = tensor_of(model, what.weight).shape
    require(len(weight) >= 2 and math.prod(weight) > 0, f"weights of the shape {weight}")
    if what.bias is not None:
        require(tensor_of(model, what.bias).shape == weight[:1], "biases of another number")
    axes = len(weight) - 2
    lengths = {len(what.stride), len(what.padding), len(what.dilation)}
    require(lengths == {axes} and axes <= 3, f"weights of {len(weight)} axes")
    if not axes:
        require(what.groups == 1 and source.size == one.rows * weight[1], "takes other rows")
        require(one.size == one.rows * weight[0], "puts out another number of values")
        return
    require(one.rows == 1 and len(one.taken) == axes + 1, f"takes a shape of {one.taken}")
    require(math.prod(one.taken) == source.size, "takes another number of values")
    fits = what.groups >= 1 and weight[0] % what.groups == 0
    require(fits and one.taken[0] == weight[1] * what.groups, "takes other channels")
    sizes = [weight[0]]
    for axis in range(axes):
        step, spread, edges = what.stride[axis], what.dilation[axis], what.padding[axis]
        require(step >= 1 and spread >= 1 and min(edges) >= 0, "a stride, dilation or padding")
        reach = spread * (weight[2 + axis] - 1) + 1
        left = one.taken[1 + axis] + sum(edges) - reach
        require(left >= 0, "a kernel larger than its input")
        sizes.append(left // step + 1)
    padded = (size + sum(edges) for size, edges in zip(one.taken[1:], what.padding, strict=True))
    require(one.taken[0] * math.prod(padded) <= MOST_VALUES, "more zeros around it than it can")
    require(one.shape == tuple(sizes), f"puts out {one.shape}, not {tuple(sizes)}")


def _check_neuron(model: DeviceModel, one: DeviceOperation) -> None:
    what, source = one.what, _only(model, one)
    assert isinstance(what, Neuron)
    known = what.model in MODELS and MODELS[what.model].is_exact
    require(known, f"the neuron {what.model!r}")
    kind = MODELS[what.model]
    check_rounding(what)
    require(source.size == one.size and not one.is_static, "has other neurons than currents")
    require((what.decay is not None) == kind.leaks, "a leak where there is none, or none")
    require(not kind.reads_out or what.threshold is None, "a filter with a threshold")
    require(kind.charge_alone is None or kind.charge is not None or not what.decay_input, "decays")
    low, high = what.state.code_min, what.state.code_max
    codes = (what.initial, low if what.reset is None else what.reset)
    require(all(low <= code <= high for code in codes), f"codes {codes} beyond {what.state}")
    require(1 <= what.most <= MOST_VALUES, f"{what.most} spikes in a step")
    for name in (what.threshold, what.decay):
        if name is None:
            continue
        tensor = tensor_of(model, name)
        require(isinstance(tensor.format, FixedPointFormat), f"{name} has several formats")
        _check_spread(tensor.shape, one.shape)
    if what.threshold is not None:
        threshold = tensor_of(model, what.threshold)
        assert isinstance(threshold.format, FixedPointFormat)
        finer = threshold.format.fraction_bits > what.state.fraction_bits
        require(not finer, "a threshold that is finer than the membrane")
        lowest = threshold.packed.extremes[0]
        require(not kind.counts or lowest > 0, "a threshold of a counting neuron below 1")


def _check_spread(shape: tuple[int, ...], over: tuple[int, ...]) -> None:
    fits = len(shape) <= len(over) and all(
        size in (1, wanted) for size, wanted in zip(shape[::-1], over[::-1], strict=False)
    )
    require(fits, f"constants of the shape {shape} for {over}")


def _check_round(model: DeviceModel, one: DeviceOperation) -> None:
    require(_only(model, one).size == one.size, "rounds another number of values")
    check_rounding(one.what)


def _check_arithmetic(model: DeviceModel, one: DeviceOperation) -> None:
    what, sources = one.what, _sources(model, one)
    assert isinstance(what, Arithmetic)
    require(what.kind in (*_BINARY, "scale", "offset"), f"the arithmetic {what.kind!r}")
    require(len(sources) == (2 if what.kind in _BINARY else 1), "another number of operands")
    require(all(source.size == one.size for source in sources), "operands of other sizes")
    signs = (len(sources) if what.kind == "add" else 0, set(what.signs) <= {1, -1})
    require(signs == (len(what.signs), True), f"the signs {what.signs}")
    denominator = what.factor.denominator
    dyadic = denominator & (denominator - 1) == 0 and denominator.bit_length() <= 32
    require(dyadic and abs(what.factor) < 1 << 32, f"the factor {what.factor}")


def _check_pooling(model: DeviceModel, one: DeviceOperation) -> None:
    what, source = one.what, _only(model, one)
    assert isinstance(what, Pooling)
    require(what.kind in ("sum", "max"), f"the pooling {what.kind!r}")
    require((what.window is None) != (what.table is None), "a window and a table, or neither")
    if what.table is not None:
        table = _table(model, what.table, (one.size, -1))
        _check_places(table, -1 if what.kind == "sum" else 0, source.size)
        return
    window = what.window
    assert window is not None
    axes = (len(window.size), len(window.kernel), len(window.stride), len(window.padding))
    require(len(set(axes)) == 1 and 1 <= axes[0] <= 3, "a window of different axes")
    entries = zip(window.size, window.kernel, window.stride, window.padding, strict=True)
    for size, kernel, stride, padding in entries:
        fits = 1 <= kernel <= size + 2 * padding and stride >= 1 and 0 <= padding < kernel
        require(fits and size >= 1, "a window that does not fit its input")
    channels, rest = divmod(source.size, math.prod(window.size))
    require(rest == 0, "a window of another size than its input")
    require(one.size == channels * math.prod(window.output), "another number of outputs")
    require(one.size * math.prod(window.kernel) <= MOST_VALUES, "windows that are too large")


def _check_gather(model: DeviceModel, one: DeviceOperation) -> None:
    assert isinstance(one.what, Gather)
    total = sum(source.size for source in _sources(model, one))
    _check_places(_table(model, one.what.table, (one.size,)), -1, total)


def _check_state(model: DeviceModel, one: DeviceOperation) -> None:
    source = _only(model, one)
    require(isinstance(source.what, Neuron | AdaptiveNeuron), "the state of what has none")
    require(source.size == one.size and not one.is_static, "a state of another size")
    require(one.operands[0].delay == 0, "the state of an earlier step")


def _check_tensors(model: DeviceModel) -> None:
    weights: set[str] = set()
    others: set[str] = set()
    for one in model.operations:
        for member, name in vars(one.what).items():
            if isinstance(name, str) and name in model.tensors:
                (weights if member == "weight" else others).add(name)
    unused = sorted(set(model.tensors) - weights - others)
    require(not unused, f"no operation uses the tensor {unused[:1]}")
    for name, tensor in model.tensors.items():
        packed, fmt = tensor.packed, tensor.format
        same = (packed.word_length, packed.signed) == (fmt.word_length, fmt.signed)
        require(same, f"{name}: stored with {packed.word_length} bits, its format is {fmt}")
        if fmt.symmetric:
            require(name not in others, f"{name}: the format {fmt}, which only weights have")
            kept = fmt.is_sign or packed.extremes[0] >= fmt.code_min
            require(kept, f"{name}: a code that {fmt} leaves out")
        if isinstance(fmt, PerChannelFormat):
            channels = packed.shape[:1] == (len(fmt.formats),) and fmt.axis == 0
            require(channels, f"{name}: has other channels than its format")


def _check_output(model: DeviceModel) -> None:
    output = model.output
    require(0 <= output.operation < len(model.operations), f"reads {output.operation}")
    require(output.over in _OVER, f"the readout over {output.over!r}")
    table = _table(model, output.table, (-1, -1))
    _check_places(table, 0, model.operations[output.operation].size)
    named = len(model.classes)
    require(named in (0, table.shape[0]), f"{named} names for {table.shape[0]} answers")
    require(output.scale != 0, "answers that are all 0")
    divisors = not output.divisors or len(output.divisors) == table.shape[0]
    require(divisors and all(1 <= one < 1 << 31 for one in output.divisors), "the divisors")
    final = model.operations[output.operation].is_final
    require(not final or output.over == "last", "answers of each step, computed after the last")


_CHECKS: dict[type, Callable[[DeviceModel, DeviceOperation], None]] = {
    Input: _check_input,
    Synapse: _check_synapse,
    Neuron: _check_neuron,
    Round: _check_round,
    Arithmetic: _check_arithmetic,
    Pooling: _check_pooling,
    Gather: _check_gather,
    State: _check_state,
    **PLASTIC_CHECKS,
}
