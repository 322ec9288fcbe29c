"""Quantise tensors to a fixed-point format.

The rules, the same for every rounding and overflow:

* NaN stays NaN, so that a divergence upstream stays visible.
* +inf becomes the largest number of the format and -inf the smallest, under `wrap` too.
* Zero is +0.0: no result is ever -0.0, as a fixed-point number has only one zero.
* No gradient passes; `qspinn.fixed_point.fake_quantize` has one.

Exactness: float32 tensors take every format with ``integer_bits + fraction_bits <= 24``, whose
codes a float32 holds, and the result is exact to the last bit whatever the magnitude of the input.
Wider formats (words of up to 32 bits) need float64, and a float32 tensor is refused. float16 and
bfloat16 tensors are computed and returned in float32: each of their values converts exactly, while
a result need not fit back.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qspinn.fixed_point.format import FixedPointFormat, Format, PerChannelFormat
from qspinn.fixed_point.noise import Chance
from qspinn.fixed_point.rounding import ROUNDINGS, Grid, round_to_codes

__all__ = ["OVERFLOWS", "quantize"]

OVERFLOWS: tuple[str, ...] = ("saturate", "wrap")
"""Names of the overflows: what becomes of a number outside the range."""

_FLOAT32_BITS = 24
_SAFE_SPAN = 2.0**64
_HALVES = (torch.float16, torch.bfloat16)


@torch.no_grad()
def quantize(
    x: Tensor,
    fmt: Format,
    rounding: str = "nearest",
    overflow: str = "saturate",
    generator: Chance = None,
) -> Tensor:
    """`x` rounded to the grid of a fixed-point format and brought into its range.

    With `saturate` and a rounding other than `stochastic` and `nearest_away`, nothing is allocated
    but the result (and, per channel, one scale per channel).

    Args:
        x: values, any shape; float32 or float64, or float16/bfloat16 (the result is then float32).
        fmt: the format; per channel, its axis must have as many slices as the format channels.
        rounding: `truncate`, floor(x / step); `nearest`, floor(x / step + 1/2); `stochastic`,
            floor(x / step + u) with a new u, uniform in [0, 1), for each element at each call;
            `toward_zero`; `nearest_even`; `nearest_away`, halves away from zero.
            To the numbers of a sign they round as to all odd multiples of its step: a number
            between -step and step becomes -step with `truncate`, its sign with the others, where
            0 counts as positive, and +step with the probability (x / step + 1) / 2 with
            `stochastic`.
        overflow: `saturate`, to the nearest end of the range, or `wrap`, modulo 2^word_length codes
            after rounding, as two's complement does; symmetric formats have no `wrap`.
        generator: source of the key that decides u; None is the global generator of torch. The same
            seed gives the same result for the same shape, on any device. `torch.compile` cannot
            trace a generator: give none there.

    Returns:
        A new tensor of the shape of `x`.

    Raises:
        TypeError: if `x` is no float tensor, or `fmt` no format.
        ValueError: if rounding or overflow is unknown, or the format has no such overflow, does not
            fit the shape, or is too wide for the dtype.
    """
    x = as_supported(x, fmt, "quantize")
    check_modes(rounding, overflow, fmt)
    grid = Grid.of(fmt, x)
    if overflow == "wrap":
        codes = wrapped_codes(x, grid, rounding, generator)
    else:
        codes = limit_codes_(round_to_codes(x, grid, rounding, generator), grid)
    return codes_to_values_(codes, grid)


def check_modes(rounding: str, overflow: str, fmt: Format) -> None:
    """Raise ValueError unless both names are known, and numbers of the format can overflow so."""
    if rounding not in ROUNDINGS:
        raise ValueError(f"unknown rounding {rounding!r}; write one of {', '.join(ROUNDINGS)}")
    if overflow not in OVERFLOWS:
        raise ValueError(f"unknown overflow {overflow!r}; write one of {', '.join(OVERFLOWS)}")
    if overflow == "wrap" and fmt.symmetric:
        raise ValueError(
            f"overflow='wrap' with {fmt}: a symmetric format leaves out a code, so that no number "
            "can wrap around; write overflow='saturate'"
        )


def require_tensor(x: object, caller: str) -> None:
    """Raise TypeError unless `x` is a tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{caller}: expected a tensor, got {type(x).__name__}: {x!r}")


def as_supported(x: Tensor, fmt: Format, caller: str) -> Tensor:
    """`x` in a dtype that holds the codes of `fmt`: as it is, or in float32 if it is a half type.

    Raises:
        TypeError: if `x` is no float tensor, or `fmt` no format.
        ValueError: if `fmt` is too wide for the dtype.
    """
    require_tensor(x, caller)
    if x.dtype in _HALVES:
        x = x.to(torch.float32)
    check_dtype(x.dtype, fmt, caller)
    return x


def check_dtype(dtype: torch.dtype, fmt: Format, caller: str) -> None:
    """Raise unless tensors of `dtype` hold every code of `fmt` exactly.

    Raises:
        TypeError: if `dtype` is not float32 or float64, or `fmt` no format.
        ValueError: if `fmt` is too wide for `dtype`.
    """
    if not isinstance(fmt, (FixedPointFormat, PerChannelFormat)):
        raise TypeError(
            f"{caller}: expected a FixedPointFormat or a PerChannelFormat, got {fmt!r} "
            f"({type(fmt).__name__}); parse_format reads text such as 'Q1.6'"
        )
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{caller}: {dtype} is not supported; use torch.float32 or torch.float64")
    if dtype == torch.float32 and fmt.code_max >= 1 << _FLOAT32_BITS:
        bits = fmt.code_max.bit_length()
        raise ValueError(
            f"{caller}: {fmt} has {bits} bits besides the sign, and torch.float32 holds integers "
            f"of {_FLOAT32_BITS} only; use torch.float64 or a shorter word"
        )


def limit_codes_(codes: Tensor, grid: Grid) -> Tensor:
    """Saturate unlimited codes, in place."""
    return codes.clamp_(grid.code_min, grid.code_max)


def codes_to_values_(codes: Tensor, grid: Grid) -> Tensor:
    """Codes times step, in place; adding zero turns -0.0 into 0.0."""
    return codes.mul_(grid.step).add_(0.0)


def wrapped_codes(x: Tensor, grid: Grid, rounding: str, generator: Chance) -> Tensor:
    """Codes of `x`, rounded and then wrapped into the range; infinities saturate, NaN stays.

    Reducing `x` by the span of the range before rounding commutes with each rounding: it changes
    the unlimited code by a multiple of 2^word_length, which is even, and it keeps the sign.
    """
    above, below = x == torch.inf, x == -torch.inf
    codes = round_to_codes(_reduce_(x.clone(), grid), grid, rounding, generator)
    modulus = float(1 << grid.word_length)
    codes.add_(codes > grid.code_max, alpha=-modulus)
    codes.add_(codes < grid.code_min, alpha=modulus)
    return codes.masked_fill_(above, grid.code_max).masked_fill_(below, grid.code_min)


def _reduce_(x: Tensor, grid: Grid) -> Tensor:
    """The exact remainder of x by 2^word_length steps, with the sign of x, in place.

    Infinities become NaN. Not `torch.fmod`, whose vectorised float32 version is wrong for large
    quotients. Where the span is below 1, ``x / span`` might overflow; there `x` is first reduced by
    2^64, a multiple of the span.
    """
    span = grid.step * float(1 << grid.word_length)
    if isinstance(span, Tensor):
        return _remainder_(_remainder_(x, span.clamp(min=_SAFE_SPAN)), span)
    return _remainder_(x if span >= 1.0 else _remainder_(x, _SAFE_SPAN), span)


def _remainder_(x: Tensor, span: float | Tensor) -> Tensor:
    """``x - trunc(x / span) * span`` in place, exact where span is a power of 2."""
    return x.sub_((x * (1.0 / span)).trunc_().mul_(span))
