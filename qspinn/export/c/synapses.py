"""Linear and convolutional layers in C.

The cost follows the inputs that are not 0: each adds its weights to the sums that it reaches. So
weights lie in the order in which one input reaches the outputs, the channels of one place after
each other.
"""

from __future__ import annotations

import numpy as np

from qspinn.export.c.convolutions import Adds, convolution, kernel_order
from qspinn.export.c.lanes import EMPTY, sum_of
from qspinn.export.c.planning import Place
from qspinn.export.c.reading import Ending, Values
from qspinn.export.c.site import Site
from qspinn.export.c.text import Lines, array, scaled
from qspinn.export.model import Codes, Synapse
from qspinn.export.program import Instruction

__all__ = ["synapse_function"]


def synapse_function(site: Site) -> str:
    """The definition of ``name(x, sum)``, or of ``name(x, sum, value)`` where it has a scratch."""
    (source,), (taken,), sums = site.sources, site.taken, _sums(site)
    what = site.one.what
    assert isinstance(what, Synapse)
    weight = site.model.tensors[what.weight]
    fmt = weight.format
    layout, label = _order(kernel_order(what, weight.codes), what.groups), f"weight_{site.name}"
    is_binary = source.low >= 0 and source.high <= 1
    if sums.lanes is not None:
        site.arrays.add_lanes(label, layout, sums.lanes)
        add = site.arrays.lane_adder(sums.lanes, not is_binary)
    else:
        factor = None if is_binary else "int64_t" if taken.kind == "int64_t" else "int32_t"
        add = site.arrays.add_weights(label, layout, fmt, sums.kind, factor)
    code = Lines()
    parameters = f"const {taken.kind} *restrict x, {sums.kind} *restrict sum"
    parameters += "" if site.scratch is None else f", {site.made.kind} *restrict value"
    code(f"static void {site.name}({parameters})", "{")
    body = Lines()
    body.depth = 1
    variables = _beginning(site, body)
    read = "x[i]"
    if site.one.operation.rows > 1:
        assert site.one.weight is not None
        read = f"x[r * {site.one.weight.shape[1]}u + i]"

    def adds(at: str, row: str, rows: str) -> tuple[str, ...]:
        return _adds(site, add, at, row, rows, None if is_binary else read)

    variables += convolution(site, adds, body) if what.stride else _linear(site, adds, read, body)
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


def _adds(
    site: Site, add: str, at: str, row: str, rows: str, factor: str | None
) -> tuple[str, ...]:
    """A call that adds rows of weights to the sums, from a place on; "": from the first one."""
    channels, lanes, label = _channels(site)[0], _sums(site).lanes, f"weight_{site.name}"
    what, times = site.one.what, "" if rows == "1u" else f"{rows} * "
    assert isinstance(what, Synapse)
    assert site.one.weight is not None
    if lanes is not None:
        weights = f"{label} + {row} * {lanes.elements}u, {times}{lanes.blocks}u"
        by = "" if factor is None else f", (uint32_t){factor}"
        begin = f"sum + {at} * {channels // 2}u" if at else "sum"
        return f"{add}({begin},", f"    {weights}{by});"
    outputs = channels // what.groups
    begin = f"sum + {at} * {channels}u" if at else "sum"
    if what.groups > 1:
        begin += f" + c / {site.one.weight.shape[1]}u * {outputs}u"
    by = "" if factor is None else f", {factor}"
    return f"{add}({begin},", f"    {label}, {row} * {outputs}u, {times}{outputs}u{by});"


def _bias(site: Site, number: str = "o") -> str | None:
    """An expression of the bias of a channel, on the grid of the sums."""
    one, name, arrays = site.one, site.name, site.arrays
    if one.what.bias is None:
        return None
    bias = site.model.tensors[one.what.bias]
    assert one.bias is not None
    if not one.bias.any():
        arrays.payload_bits += bias.bits  # zeros, which need no array
        return None
    codes = bias.codes
    read = arrays.add(f"bias_{name}", codes, bias.format.word_length, bias.format.signed, number)
    ups = {int(b // c).bit_length() - 1 for b, c in zip(one.bias, codes, strict=True) if c}
    if len(ups) == 1:
        return scaled(read, ups.pop(), _sums(site).kind)
    shifts = [
        int(b // c).bit_length() - 1 if c else 0 for b, c in zip(one.bias, codes, strict=True)
    ]
    arrays.texts.append(array("uint8_t", f"bias_up_{name}", shifts))
    return f"{read} * ((int64_t)1 << bias_up_{name}[{number}])"


def _is_even(one: Instruction) -> bool:
    """Whether the weights of all channels lie on the grid of the sums."""
    assert one.weight_up is not None
    return not one.weight_up.any()


def _beginning(site: Site, code: Lines) -> list[str]:
    """Sums begin at the biases, or at 0 where they are shifted or added to at the end."""
    channels, places = _channels(site)
    if _sums(site).lanes is not None:
        code.loop("o", channels * places // 2)
        code(f"sum[o] = {EMPTY};")
        code.close()
        return ["o"]
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


def _linear(site: Site, adds: Adds, read: str, code: Lines) -> list[str]:
    one = site.one
    assert one.weight is not None
    inputs, rows = one.weight.shape[1], one.operation.rows
    if rows > 1:
        code.loop("r", rows)
    code.loop("i", inputs)
    code(f"if ({read} != 0) {{", *adds("r" if rows > 1 else "", "i", "1u"))
    code.close(3 if rows > 1 else 2)
    return ["i", "r"] if rows > 1 else ["i"]


def _ending(site: Site, code: Lines) -> list[str]:
    """Shifts the sums of each channel to the common grid, and puts them in order."""
    one, name, kind = site.one, site.name, _sums(site).kind
    channels, places = _channels(site)
    if _sums(site).lanes is not None:
        return _ending_lanes(site, code)
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


def _ending_lanes(site: Site, code: Lines) -> list[str]:
    """Leaves shifts and biases to what takes the sums, or puts them in order."""
    one, name, (channels, _) = site.one, site.name, _channels(site)
    constants, value = [], "{}"
    if not _is_even(one):
        assert one.weight_up is not None
        site.arrays.texts.append(array("uint8_t", f"up_{name}", one.weight_up))
        constants.append(f"const int32_t one = (int32_t)1 << up_{name}[{{o}}];")
        value = "({}) * one"
    bias = _bias(site, "{o}")
    if bias is not None:
        constants.append(f"const int32_t bias = (int32_t)({bias});")
        value = f"{value} + bias"
    ending = Ending(tuple(constants), value)
    if site.scratch is None:
        site.endings[site.number] = ending
        return []
    if not constants and not site.scratch.interleaved:
        half = channels // 2
        code.loop("o", half)
        for at, lane in (("o", "0"), (f"{half}u + o", "16")):  # a loop that can be vectorised
            code(f"value[{at}] = ({site.made.kind})({sum_of('sum[o]', lane)});")
        code.close()
        return ["o"]
    values = Values(site.scratch, site.size, channels, ending)
    current = values.open(code).replace("x[", "sum[")
    code(f"value[i] = ({site.made.kind})({current});")
    values.close(code)
    return list(values.variables)
