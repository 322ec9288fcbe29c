"""Linear and convolutional layers in C.

The cost follows the inputs that are not 0: each adds its weights to the sums that it reaches. So
weights lie in the order in which one input reaches the outputs, the channels of one place after
each other.
"""

from __future__ import annotations

import numpy as np

from qspinn.export.c.planning import Place
from qspinn.export.c.site import Site
from qspinn.export.c.text import Lines, array, scaled
from qspinn.export.model import Codes, Synapse
from qspinn.export.program import Instruction

__all__ = ["synapse_function"]

_AXES = "dhw"
"""Depth, height and width."""


def synapse_function(site: Site) -> str:
    """The definition of ``name(x, sum)``, or of ``name(x, sum, value)`` where it has a scratch."""
    (source,), (taken,), sums = site.sources, site.taken, _sums(site)
    what = site.one.what
    assert isinstance(what, Synapse)
    weight = site.model.tensors[what.weight]
    fmt = weight.format
    layout = _order(weight.codes, what.groups)
    site.arrays.add(f"weight_{site.name}", layout, fmt.word_length, fmt.signed)
    is_binary = source.low >= 0 and source.high <= 1
    factor = None if is_binary else "int64_t" if taken.kind == "int64_t" else "int32_t"
    add = site.arrays.adder(fmt.word_length, fmt.signed, sums.kind, factor)
    code = Lines()
    parameters = f"const {taken.kind} *x, {sums.kind} *sum"
    parameters += "" if site.scratch is None else f", {site.made.kind} *value"
    code(f"static void {site.name}({parameters})", "{")
    body = Lines()
    body.depth = 1
    variables = _beginning(site, body)
    if what.stride:
        variables += _convolution(site, add, is_binary, body)
    else:
        variables += _linear(site, add, is_binary, body)
    variables += _ending(site, body)
    code(f"uint32_t {', '.join(dict.fromkeys(variables))};")
    code.lines += body.lines
    code("}")
    return str(code)


def _sums(site: Site) -> Place:
    """Where the layer adds up, the channels of one place after each other."""
    return site.made if site.scratch is None else site.scratch


def _channels(site: Site) -> tuple[int, int]:
    """How many channels there are, and how many places in each."""
    assert site.one.weight is not None
    channels = len(site.one.weight)
    return channels, site.size // channels


def _order(weight: Codes, groups: int) -> Codes:
    """Weights ``[out, in / groups, *kernel]`` as ``[in, *kernel, out / groups]``."""
    outputs = len(weight) // groups
    split = weight.reshape(groups, outputs, *weight.shape[1:])
    moved = np.moveaxis(split, 1, -1)
    return np.ascontiguousarray(moved.reshape(-1, outputs))


def _bias(site: Site) -> str | None:
    """An expression of the bias of channel ``o``, on the grid of the sums."""
    one, name, arrays = site.one, site.name, site.arrays
    if one.what.bias is None:
        return None
    bias = site.model.tensors[one.what.bias]
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
        return scaled(read, ups.pop(), _sums(site).kind)
    shifts = [
        int(b // c).bit_length() - 1 if c else 0 for b, c in zip(one.bias, codes, strict=True)
    ]
    arrays.texts.append(array("uint8_t", f"bias_up_{name}", shifts))
    return f"{read} * ((int64_t)1 << bias_up_{name}[o])"


def _is_even(one: Instruction) -> bool:
    """Whether the weights of all channels lie on the grid of the sums."""
    assert one.weight_up is not None
    return not one.weight_up.any()


def _beginning(site: Site, code: Lines) -> list[str]:
    """Sums begin at the biases, or at 0 where they are shifted at the end."""
    channels, places = _channels(site)
    bias = _bias(site) if _is_even(site.one) else None
    if bias is None:
        code.loop("o", channels * places)
        code("sum[o] = 0;")
        code.close()
        return ["o"]
    code.loop("o", channels)
    code(f"sum[o] = ({_sums(site).kind})({bias});")
    code.close()
    if places > 1:
        code(f"for (o = {channels}u; o < {channels * places}u; o++) {{")
        code(f"sum[o] = sum[o - {channels}u];")
        code.close()
    return ["o"]


def _linear(site: Site, add: str, is_binary: bool, code: Lines) -> list[str]:
    one, name = site.one, site.name
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


def _convolution(site: Site, add: str, is_binary: bool, code: Lines) -> list[str]:
    one, name = site.one, site.name
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


def _ending(site: Site, code: Lines) -> list[str]:
    """Shifts the sums of each channel to the common grid, and puts them in order."""
    one, name, kind = site.one, site.name, _sums(site).kind
    channels, places = _channels(site)
    if not _is_even(one):
        assert one.weight_up is not None
        site.arrays.texts.append(array("uint8_t", f"up_{name}", one.weight_up))
        bias = _bias(site)
        added = "" if bias is None else f" + ({kind})({bias})"
        code.loop("o", channels)
        code.loop("p", places)
        at = f"sum[p * {channels}u + o]"
        code(f"{at} = {at} * (({kind})1 << up_{name}[o]){added};")
        code.close(2)
    if site.scratch is not None:
        code.loop("o", channels)
        code.loop("p", places)
        code(f"value[o * {places}u + p] = sum[p * {channels}u + o];")
        code.close(2)
    return [] if _is_even(one) and site.scratch is None else ["p"]
