"""Between fixed-point numbers in float tensors and their integer codes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qspinn.fixed_point.format import FixedPointFormat, Format, PerChannelFormat
from qspinn.fixed_point.quantize import as_supported, check_dtype, codes_to_values_, require_tensor
from qspinn.fixed_point.rounding import Grid

__all__ = ["from_integers", "to_integers"]

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@torch.no_grad()
def to_integers(x: Tensor, fmt: Format) -> Tensor:
    """The codes of numbers that lie on the grid of a format, ``x / step``; of signs, -1 and 1.

    Nothing is rounded: what is not exactly a number of the format is an error. The inverse of
    `from_integers`.

    Args:
        x: numbers of the format, any shape; float32, float64, float16 or bfloat16.
        fmt: the format; float32 tensors take formats of at most 24 bits besides the sign.

    Returns:
        Codes of the shape of `x`: int32, or int64 for unsigned words of 32 bits.

    Raises:
        TypeError: if `x` is no float tensor, or `fmt` no format.
        ValueError: if a number is NaN, off the grid or out of range: it names the first and its
            index; if the format does not fit the shape or is too wide for the dtype.
    """
    x = as_supported(x, fmt, "to_integers")
    grid = Grid.of(fmt, x)
    codes = torch.mul(x, grid.scale).trunc_()
    # Compared as values, not as codes: a product that under- or overflowed does not return.
    fits = (codes * grid.step == x) & (codes >= grid.code_min) & (codes <= grid.code_max)
    if grid.odd:
        fits &= codes != 0
    if not bool(fits.all()):
        raise ValueError(_misfit(x, ~fits, fmt))
    return codes.to(torch.int32 if fmt.code_max < 1 << 31 else torch.int64)


@torch.no_grad()
def from_integers(codes: Tensor, fmt: Format, dtype: torch.dtype = torch.float32) -> Tensor:
    """The numbers that codes stand for, ``code * step``, exactly. The inverse of `to_integers`.

    Args:
        codes: uint8 or signed integers, any shape.
        fmt: the format.
        dtype: float32 or float64; float32 takes formats of at most 24 bits besides the sign.

    Returns:
        Numbers of the shape of `codes`.

    Raises:
        TypeError: if `codes` is no integer tensor, `dtype` is not float32 or float64, or `fmt` no
            format.
        ValueError: if a code is out of range: it names the first and its index; if the format does
            not fit the shape or is too wide for `dtype`.
    """
    require_tensor(codes, "from_integers")
    if codes.dtype not in _INTEGERS:
        raise TypeError(
            f"from_integers: codes of {codes.dtype} are not supported; use torch.uint8 or a signed "
            f"integer dtype"
        )
    check_dtype(dtype, fmt, "from_integers")
    wide = codes.to(torch.int64)
    misfits = (wide < fmt.code_min) | (wide > fmt.code_max)
    if fmt.is_sign:
        misfits |= wide == 0
    if bool(misfits.any()):
        index = _first(misfits)
        if fmt.is_sign and int(wide[index]) == 0:
            local = _format_at(fmt, index)
            raise ValueError(
                f"from_integers: code 0 at index {list(index)} is none of {local}, which are -1, 1"
            )
        raise ValueError(
            f"from_integers: code {int(wide[index])} at index {list(index)} is out of the range "
            f"[{fmt.code_min}, {fmt.code_max}] of {_format_at(fmt, index)}"
        )
    values = wide.to(dtype)
    return codes_to_values_(values, Grid.of(fmt, values))


def _first(mask: Tensor) -> tuple[int, ...]:
    return tuple(mask.nonzero()[0].tolist())


def _format_at(fmt: Format, index: tuple[int, ...]) -> FixedPointFormat:
    if isinstance(fmt, PerChannelFormat):
        return fmt.formats[index[fmt.axis]]
    return fmt


def _misfit(x: Tensor, misfits: Tensor, fmt: Format) -> str:
    index = _first(misfits)
    value = float(x[index])
    local = _format_at(fmt, index)
    where = f"to_integers: {value!r} at index {list(index)}"
    if math.isnan(value):
        return f"{where} has no code; find where the NaN comes from"
    if not local.min <= value <= local.max:
        return (
            f"{where} is out of the range [{local.min!r}, {local.max!r}] of {local}; quantize first"
        )
    if local.is_sign:
        return (
            f"{where} is no number of {local}, which are {local.min!r} and {local.max!r}; quantize "
            "first"
        )
    return f"{where} is off the grid of {local}, whose step is {local.step!r}; quantize first"
