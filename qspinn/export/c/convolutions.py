"""Convolutions in C: an input that is not 0 adds weights to the sums of the places it reaches.

Along the last axis, an input reaches places that follow each other: with a stride of 2, every other
weight of the kernel leads to one, the last of them to the first place. Weights lie in that order,
so that all of them are added in one go.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qspinn.export.c.site import Site
from qspinn.export.c.text import Lines
from qspinn.export.model import Codes, Synapse

__all__ = ["convolution", "kernel_order"]

_AXES = "dhw"
"""Depth, height and width."""
Adds = Callable[[str, str, str], tuple[str, ...]]
"""Lines that add to the sums from a place on the rows of weights from one on, so many of them."""


def kernel_order(what: Synapse, weight: Codes) -> Codes:
    """Weights ``[out, in / groups, *kernel]``, with those along the last axis as they are added."""
    if not _in_runs(what, weight.shape[-1]):
        return weight
    size, step = weight.shape[-1], what.stride[-1]
    return weight[..., np.concatenate([np.arange(r, size, step)[::-1] for r in range(step)])]


def convolution(site: Site, adds: Adds, code: Lines) -> list[str]:
    """The body that adds, and the variables that it needs."""
    what, operation = site.one.what, site.one.operation
    assert isinstance(what, Synapse)
    assert site.one.weight is not None
    kernel = site.one.weight.shape[2:]
    axes = _AXES[-len(kernel) :]
    variables = ["c", "i", *axes]
    code("i = 0;")
    code.loop("c", operation.taken[0])
    for axis, size in zip(axes, operation.taken[1:], strict=True):
        code.loop(axis, size)
    code("if (x[i] != 0) {")
    in_runs = _in_runs(what, kernel[-1])
    guarded = in_runs and _run(site, axes[-1], code)
    row, at = "c", ""
    for place, axis in enumerate(axes[:-1] if in_runs else axes):
        _axis(site, place, axis, code)
        variables += [f"k{axis}", f"t{axis}"]
        step, size = what.stride[place], operation.shape[1 + place]
        row = f"({row}) * {kernel[place]}u + k{axis}" if place else f"c * {kernel[0]}u + k{axis}"
        index = f"t{axis} / {step}u" if step > 1 else f"t{axis}"
        at = f"({at}) * {size}u + {index}" if place else index
    rows = "1u"
    if in_runs:
        row, rows = f"{f'({row})' if at else row} * {kernel[-1]}u + column", "rows"
        at = f"({at}) * {operation.shape[-1]}u + first" if at else "first"
    code(*adds(f"({at})", f"({row})", rows))
    code.close(len(axes) - (1 if in_runs else 0) + (1 if guarded else 0))
    code("}", "i++;")
    code.close(1 + len(axes))
    return variables


def _in_runs(what: Synapse, size: int) -> bool:
    """Whether the weights that an input adds along the last axis, and the sums, are in one run."""
    return (
        bool(what.stride)
        and what.groups == 1
        and what.dilation[-1] == 1
        and what.stride[-1] <= size
    )


def _run(site: Site, axis: str, code: Lines) -> bool:
    """The places that an input reaches along the last axis; whether a block for them is open.

    It reaches ``first`` and those after it, by ``rows`` weights, which begin at ``column``.
    """
    what, operation = site.one.what, site.one.operation
    assert isinstance(what, Synapse)
    assert site.one.weight is not None
    size, step, before = site.one.weight.shape[-1], what.stride[-1], what.padding[-1][0]
    places, each, more = operation.shape[-1], size // step, size % step
    begin = f"{axis} + {before}u" if before else axis
    column = "most - high"
    if step == 1:
        code(f"const uint32_t reach = {begin}, most = {size - 1}u;")
    else:
        code(f"const uint32_t reach = ({begin}) / {step}u, rest = ({begin}) % {step}u;")
        most = f"rest < {more}u ? {each}u : {each - 1}u" if more else f"{each - 1}u"
        code(f"const uint32_t most = {most}; /* its weights on this grid, less one */")
        shorter = f" + (rest < {more}u ? rest : {more}u)" if more else ""
        column = f"rest * {each}u{shorter} + most - high"
    code("const uint32_t high = reach < most ? reach : most;")
    code(f"const uint32_t low = reach < {places}u ? 0 : reach - {places - 1}u;")
    code("const uint32_t first = reach - high, rows = high - low + 1u;")
    code(f"const uint32_t column = {column};")
    for number in range(operation.taken[-1]):
        reach, rest = divmod(number + before, step)
        if min(reach, each - (rest >= more)) < reach - places + 1:  # an input that reaches no place
            code("if (low <= high) {")
            return True
    return False


def _axis(site: Site, place: int, axis: str, code: Lines) -> None:
    """Opens a loop over the places ``t`` that an input reaches along an axis, by weights ``k``."""
    what, operation = site.one.what, site.one.operation
    assert isinstance(what, Synapse)
    assert site.one.weight is not None
    size, step, spread = site.one.weight.shape[2 + place], what.stride[place], what.dilation[place]
    before = what.padding[place][0]
    begin = f"{axis} + {before}u" if before else axis
    aligned = ""
    if step > 1 and spread == 1:  # only each so-many-th weight reaches a place
        begins = f"({begin}) % {step}u"
        code(f"for (k{axis} = {begins}; k{axis} < {size}u; k{axis} += {step}u) {{")
    else:
        code.loop(f"k{axis}", size)
        aligned = f" || t{axis} % {step}u != 0" if step > 1 else ""
    code(f"t{axis} = {begin} - k{axis}{'' if spread == 1 else f' * {spread}u'};")
    # Below 0 it wraps around, and so is beyond the last place as well.
    code(f"if (t{axis} >= {operation.shape[1 + place] * step}u{aligned}) {{", "continue;", "}")
