"""Linear and convolutional layers in C.

The cost follows the inputs that are not 0: each adds its weights to the sums that it reaches. So
weights lie in the order in which one input reaches the outputs, the channels of one place after
each other.
"""

from __future__ import annotations

import numpy as np

from qspinn.export.c.codes import PackedArrays
from qspinn.export.c.planning import Place
from qspinn.export.c.text import Lines, array, scaled
from qspinn.export.model import Codes, DeviceModel, Synapse
from qspinn.export.program import Instruction

__all__ = ["synapse_function"]

_AXES = "dhw"
"""Depth, height and width."""


def synapse_function(
    model: DeviceModel,
    name: str,
    one: Instruction,
    source: Instruction,
    taken: Place,
    sums: Place,
    ordered: Place | None,
    arrays: PackedArrays,
) -> str:
    """The definition of ``name(x, sum)``, or of ``name(x, sum, value)``.

    Args:
        model: The model.
        name: Of the function.
        one: The layer.
        source: What it takes.
        taken: Where that lies.
        sums: Where it adds up, the channels of one place after each other.
        ordered: Where the values of each channel follow each other then, if they must.
        arrays: Takes the weights.
    """
    what = one.what
    assert isinstance(what, Synapse)
    weight = model.tensors[what.weight]
    fmt = weight.format
    layout = _order(weight.codes, what.groups)
    arrays.add(f"weight_{name}", layout, fmt.word_length, fmt.signed)
    is_binary = source.low >= 0 and source.high <= 1
    factor = None if is_binary else "int64_t" if taken.kind == "int64_t" else "int32_t"
    add = arrays.adder(fmt.word_length, fmt.signed, sums.kind, factor)
    code = Lines()
    parameters = f"const {taken.kind} *x, {sums.kind} *sum"
    parameters += "" if ordered is None else f", {ordered.kind} *value"
    code(f"static void {name}({parameters})", "{")
    channels = weight.shape[0]
    places = one.operation.size // channels
    body = Lines()
    body.depth = 1
    variables = _beginning(model, name, one, sums, arrays, body, channels, places)
    if what.stride:
        variables += _convolution(one, name, add, is_binary, body)
    else:
        variables += _linear(one, name, add, is_binary, body)
    variables += _ending(model, name, one, sums, ordered, arrays, body, channels, places)
    code(f"uint32_t {', '.join(dict.fromkeys(variables))};")
    code.lines += body.lines
    code("}")
    return str(code)


def _order(weight: Codes, groups: int) -> Codes:
    """Weights ``[out, in / groups, *kernel]`` as ``[in, *kernel, out / groups]``."""
    outputs = len(weight) // groups
    split = weight.reshape(groups, outputs, *weight.shape[1:])
    moved = np.moveaxis(split, 1, -1)
    return np.ascontiguousarray(moved.reshape(-1, outputs))


def _bias(
    model: DeviceModel, name: str, one: Instruction, sums: Place, arrays: PackedArrays
) -> str | None:
    """An expression of the bias of channel ``o``, on the grid of the sums."""
    if one.what.bias is None:
        return None
    bias = model.tensors[one.what.bias]
    assert one.bias is not None
    if not one.bias.any():
        arrays.payload_bits += bias.bits  # zeros, which need no array
        return None
    codes = bias.codes
    arrays.add(f"bias_{name}", codes, bias.format.word_length, bias.format.signed)
    get = arrays.getter(bias.format.word_length, bias.format.signed)
    ups = {int(b // c).bit_length() - 1 for b, c in zip(one.bias, codes, strict=True) if c}
    read = f"{get}(bias_{name}, o)"
    if len(ups) == 1:
        return scaled(read, ups.pop(), sums.kind)
    shifts = [
        int(b // c).bit_length() - 1 if c else 0 for b, c in zip(one.bias, codes, strict=True)
    ]
    arrays.texts.append(array("uint8_t", f"bias_up_{name}", shifts))
    return f"{read} * ((int64_t)1 << bias_up_{name}[o])"


def _is_even(one: Instruction) -> bool:
    """Whether the weights of all channels lie on the grid of the sums."""
    assert one.weight_up is not None
    return not one.weight_up.any()


def _beginning(
    model: DeviceModel,
    name: str,
    one: Instruction,
    sums: Place,
    arrays: PackedArrays,
    code: Lines,
    channels: int,
    places: int,
) -> list[str]:
    """Sums begin at the biases, or at 0 where they are shifted at the end."""
    bias = _bias(model, name, one, sums, arrays) if _is_even(one) else None
    if bias is None:
        code.loop("o", channels * places)
        code("sum[o] = 0;")
        code.close()
        return ["o"]
    code.loop("o", channels)
    code(f"sum[o] = ({sums.kind})({bias});")
    code.close()
    if places > 1:
        code(f"for (o = {channels}u; o < {channels * places}u; o++) {{")
        code(f"sum[o] = sum[o - {channels}u];")
        code.close()
    return ["o"]


def _linear(one: Instruction, name: str, add: str, is_binary: bool, code: Lines) -> list[str]:
    assert one.weight is not None
    outputs, inputs = one.weight.shape
    rows = one.operation.rows
    at = "sum"
    if rows > 1:
        code.loop("r", rows)
        at = f"sum + r * {outputs}u"
    code.loop("i", inputs)
    read = f"x[r * {inputs}u + i]" if rows > 1 else "x[i]"
    code(f"if ({read} != 0) {{")
    code(
        f"{add}({at}, weight_{name}, i * {outputs}u, {outputs}u{'' if is_binary else ', ' + read});"
    )
    code.close(3 if rows > 1 else 2)
    return ["i", "r"] if rows > 1 else ["i"]


def _convolution(one: Instruction, name: str, add: str, is_binary: bool, code: Lines) -> list[str]:
    what, operation = one.what, one.operation
    assert one.weight is not None
    outputs = len(one.weight) // what.groups
    kernel = one.weight.shape[2:]
    axes = _AXES[-len(kernel) :]
    variables = ["c", "i"]
    code("i = 0;")
    code.loop("c", operation.taken[0])
    for axis, size in zip(axes, operation.taken[1:], strict=True):
        variables += [axis, f"k{axis}", f"t{axis}"]
        code.loop(axis, size)
    code("if (x[i] != 0) {")
    row = "c"
    for place, axis in enumerate(axes):
        size, step, spread = kernel[place], what.stride[place], what.dilation[place]
        before = what.padding[place][0]
        code.loop(f"k{axis}", size)
        offset = f"k{axis}" if spread == 1 else f"k{axis} * {spread}u"
        code(
            f"t{axis} = {axis} + {before}u - {offset};"
            if before
            else f"t{axis} = {axis} - {offset};"
        )
        # Below 0 it wraps around, and so is beyond the last place as well.
        reach = operation.shape[1 + place] * step
        aligned = f" || t{axis} % {step}u != 0" if step > 1 else ""
        code(f"if (t{axis} >= {reach}u{aligned}) {{", "continue;", "}")
        row = f"({row}) * {size}u + k{axis}" if place else f"{row} * {size}u + k{axis}"
    at = ""
    for place, axis in enumerate(axes):
        step = what.stride[place]
        index = f"t{axis} / {step}u" if step > 1 else f"t{axis}"
        at = f"({at}) * {operation.shape[1 + place]}u + {index}" if place else index
    begin = f"({at}) * {len(one.weight)}u"
    if what.groups > 1:
        begin += f" + c / {one.weight.shape[1]}u * {outputs}u"
    code(
        f"{add}(sum + {begin}, weight_{name},",
        f"    ({row}) * {outputs}u, {outputs}u{'' if is_binary else ', x[i]'});",
    )
    code.close(len(axes))
    code("}", "i++;")
    code.close(1 + len(axes))
    return variables


def _ending(
    model: DeviceModel,
    name: str,
    one: Instruction,
    sums: Place,
    ordered: Place | None,
    arrays: PackedArrays,
    code: Lines,
    channels: int,
    places: int,
) -> list[str]:
    """Shifts the sums of each channel to the common grid, and puts them in order."""
    if not _is_even(one):
        assert one.weight_up is not None
        arrays.texts.append(array("uint8_t", f"up_{name}", one.weight_up))
        bias = _bias(model, name, one, sums, arrays)
        added = "" if bias is None else f" + ({sums.kind})({bias})"
        code.loop("o", channels)
        code.loop("p", places)
        at = f"sum[p * {channels}u + o]"
        code(f"{at} = {at} * (({sums.kind})1 << up_{name}[o]){added};")
        code.close(2)
    if ordered is not None:
        code.loop("o", channels)
        code.loop("p", places)
        code(f"value[o * {places}u + p] = sum[p * {channels}u + o];")
        code.close(2)
    return [] if _is_even(one) and ordered is None else ["p"]
