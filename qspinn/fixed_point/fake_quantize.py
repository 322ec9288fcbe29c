"""Fake quantisation: the numbers of `quantize`, with a straight-through gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qspinn.fixed_point.format import Format
from qspinn.fixed_point.noise import Chance
from qspinn.fixed_point.quantize import (
    as_supported,
    check_modes,
    codes_to_values_,
    limit_codes_,
    quantize,
    require_tensor,
    wrapped_codes,
)
from qspinn.fixed_point.rounding import Grid, round_to_codes

__all__ = ["fake_quantize"]


def fake_quantize(
    x: Tensor,
    fmt: Format,
    rounding: str = "nearest",
    overflow: str = "saturate",
    generator: Chance = None,
    returning: bool = False,
) -> Tensor:
    """`quantize` for training: the same numbers, and a gradient that passes straight through.

    The gradient (Bengio et al., arXiv 1308.3432, "straight-through", with the clipping of Hubara et
    al., arXiv 1609.07061) is that of the output where the rounded number lies inside the range, its
    ends included, and exactly 0 where it was saturated. What counts is the number after rounding:
    with `truncate`, everything below max + step passes. Under `wrap` it passes everywhere. NaN and
    infinities get a gradient of 0 in every case. Only a bool mask is kept for the backward pass.

    Args:
        x: values, any shape; float32 or float64, or float16/bfloat16 (the result is then float32).
        fmt: the format, as in `quantize`.
        rounding: as in `quantize`; `stochastic` draws anew at every call.
        overflow: as in `quantize`.
        generator: as in `quantize`.
        returning: whether the gradient also passes where the number was saturated, if a step
            against it leads back towards the range: else an optimizer would leave it there for
            ever. (While `torch.compile` traces, it does not.)

    Returns:
        A new tensor, equal to ``quantize(x, ...)``.

    Raises:
        TypeError, ValueError: as `quantize`.
    """
    require_tensor(x, "fake_quantize")
    if not (x.requires_grad and torch.is_grad_enabled()):
        return quantize(x, fmt, rounding, overflow, generator)
    x = as_supported(x, fmt, "fake_quantize")
    check_modes(rounding, overflow, fmt)
    if torch.compiler.is_compiling():
        return _traced(x, fmt, rounding, overflow, generator)
    values: Tensor = _StraightThrough.apply(x, fmt, rounding, overflow, generator, returning)
    return values


def values_and_passes(
    x: Tensor, fmt: Format, rounding: str, overflow: str, generator: Chance
) -> tuple[Tensor, Tensor]:
    """The quantised values, and where the gradient passes."""
    grid = Grid.of(fmt, x)
    if overflow == "wrap":
        codes = wrapped_codes(x, grid, rounding, generator)
        return codes_to_values_(codes, grid), torch.isfinite(x)
    codes = round_to_codes(x, grid, rounding, generator)
    passes = (codes >= grid.code_min).logical_and_(codes <= grid.code_max)
    return codes_to_values_(limit_codes_(codes, grid), grid), passes


def _traced(x: Tensor, fmt: Format, rounding: str, overflow: str, generator: Chance) -> Tensor:
    """Fake quantisation out of differentiable operations, for `torch.compile`.

    torch 2.11 computes wrong gradients, silently, for compiled autograd functions that work in
    place (pytorch/pytorch issue 180642). What is added to the values is exactly 0.
    """
    with torch.no_grad():
        values, passes = values_and_passes(x, fmt, rounding, overflow, generator)
    return values + torch.where(passes, x - x.detach(), 0.0)


class _StraightThrough(torch.autograd.Function):
    """Fake quantisation that works in place and keeps a bool or three per element."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        fmt: Format,
        rounding: str,
        overflow: str,
        generator: Chance,
        returning: bool,
    ) -> Tensor:
        values, passes = values_and_passes(x, fmt, rounding, overflow, generator)
        blocked = passes.logical_not_()
        # Where x is finite and beyond the range: on which side.
        beyond = (blocked & torch.isfinite(x), x > values) if returning else ()
        ctx.save_for_backward(blocked, *beyond)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        blocked, *beyond = ctx.saved_tensors
        (gradient,) = gradients
        if beyond:
            outside, above = beyond
            leads_back = torch.where(above, gradient > 0, gradient < 0)
            blocked = blocked & ~(outside & leads_back)
        return gradient.masked_fill(blocked, 0.0), None, None, None, None, None
