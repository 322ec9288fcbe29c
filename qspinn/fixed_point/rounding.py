"""From real numbers to whole codes: the six roundings, each exact to the last bit.

Every function takes values `x` and a `Grid` and gives ``round(x / step)``, not yet limited to the
range of the format: whole numbers in floating point, or an infinity where ``x / step`` is too large
for the dtype, or NaN where `x` is NaN.

Multiplying by a power of two is exact but for overflow, which the limits of the range undo, and
underflow. With steps above 1 a tiny negative number would underflow to -0 and `truncate` would
answer 0 instead of -1; there the values are floored before they are scaled, which changes nothing:
floor(floor(x) / n) == floor(x / n) for whole n (Knuth, TAOCP vol. 1, section 1.2.4, exercise 35).

Subnormal inputs are exact as well, unless the caller has set `torch.set_flush_denormal`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qspinn.fixed_point.format import Format, PerChannelFormat
from qspinn.fixed_point.noise import Chance, noise_like

__all__ = ["ROUNDINGS", "Grid", "round_to_codes"]


@dataclass(frozen=True)
class Grid:
    """The numbers of a format as tensor operations need them."""

    scale: float | Tensor  # codes per unit; a float, or a tensor that broadcasts against the values
    step: float | Tensor  # `1 / scale`, likewise
    coarse: bool  # whether a step is above 1
    word_length: int  # bits of a code
    code_min: int  # the smallest code
    code_max: int  # the largest code
    odd: bool = False  # whether only odd codes are numbers: words are signs

    @classmethod
    def of(cls, fmt: Format, x: Tensor) -> Grid:
        """The grid of `fmt` for values of the shape, dtype and device of `x`.

        Raises:
            ValueError: if `fmt` is per channel and does not fit the shape of `x`.
        """
        if not isinstance(fmt, PerChannelFormat):
            coarse = fmt.fraction_bits < 0
            limits = (fmt.word_length, fmt.code_min, fmt.code_max, fmt.is_sign)
            return cls(fmt.scale, fmt.step, coarse, *limits)
        scales = [2.0**bits for bits in fmt.fraction_bits]
        scale = torch.tensor(scales, dtype=x.dtype, device=x.device).view(_channel_shape(fmt, x))
        coarse = min(fmt.fraction_bits) < 0
        limits = (fmt.word_length, fmt.code_min, fmt.code_max, fmt.is_sign)
        return cls(scale, 1.0 / scale, coarse, *limits)

    @property
    def doubled(self) -> Grid:
        """The grid of steps twice as long."""
        coarse = self.coarse or not isinstance(self.scale, float) or self.scale < 2.0
        return replace(self, scale=0.5 * self.scale, step=2.0 * self.step, coarse=coarse)


def _channel_shape(fmt: PerChannelFormat, x: Tensor) -> list[int]:
    channels = len(fmt.fraction_bits)
    if not -x.dim() <= fmt.axis < x.dim():
        raise ValueError(
            f"per-channel format with {channels} channels on axis {fmt.axis}: the tensor of shape "
            f"{tuple(x.shape)} has no such axis"
        )
    if x.shape[fmt.axis] != channels:
        raise ValueError(
            f"per-channel format with {channels} channels on axis {fmt.axis}: the tensor of shape "
            f"{tuple(x.shape)} has {x.shape[fmt.axis]} there; give one format per channel"
        )
    shape = [1] * x.dim()
    shape[fmt.axis] = channels
    return shape


def _truncate(x: Tensor, grid: Grid, generator: Chance) -> Tensor:
    """floor(x / step)."""
    scale = grid.scale
    if not grid.coarse:
        return torch.mul(x, scale).floor_()
    if isinstance(scale, Tensor):  # up by the scales above 1, floor, then down by those below 1
        return torch.mul(x, scale.clamp(min=1.0)).floor_().mul_(scale.clamp(max=1.0)).floor_()
    return torch.floor(x).mul_(scale).floor_()


def _nearest(x: Tensor, grid: Grid, generator: Chance) -> Tensor:
    """floor(x / step + 1/2), as ceil(floor(2 x / step) / 2).

    The sum x / step + 1/2 is not exact: in float32, 0.49999997 + 0.5 is 1, and odd integers above
    2^23 move. Doubling and halving are exact. (With coarse steps 2 x / step may underflow to -0
    where its floor is -1; both give 0 here.)
    """
    return _halved_(torch.mul(x, 2.0 * grid.scale))


def _halved_(doubled: Tensor) -> Tensor:
    return doubled.floor_().mul_(0.5).ceil_()


def _stochastic(x: Tensor, grid: Grid, generator: Chance) -> Tensor:
    """floor(x / step + u), as floor(x / step) + (frac(x / step) >= 1 - u), u uniform in [0, 1)."""
    fraction = torch.mul(x, grid.scale)
    whole = torch.floor(fraction)
    fraction.sub_(whole)  # NaN at infinities: the comparison below is then False
    needed = noise_like(x, generator).neg_().add_(1.0)  # exact, which 1 - fraction need not be
    return torch.ge(fraction, needed, out=fraction).add_(whole)


def _toward_zero(x: Tensor, grid: Grid, generator: Chance) -> Tensor:
    """trunc(x / step)."""
    return torch.mul(x, grid.scale).trunc_()


def _nearest_even(x: Tensor, grid: Grid, generator: Chance) -> Tensor:
    """The whole number nearest to x / step; of two equally near, the even one."""
    return torch.mul(x, grid.scale).round_()


def _nearest_away(x: Tensor, grid: Grid, generator: Chance) -> Tensor:
    """The whole number nearest to x / step; of two equally near, the one further from 0."""
    away = _halved_(x.abs().mul_(2.0 * grid.scale))
    return torch.copysign(away, x, out=away)


def _nearest_odd(x: Tensor, grid: Grid, generator: Chance) -> Tensor:
    """The odd number nearest to x / step, of two equally near the larger: 2 floor(x / 2 step) + 1.

    Of `nearest_even` and `nearest_away`, too: no odd number is even, and 0 is as far from -1 as
    from 1.
    """
    return _truncate(x, grid.doubled, generator).mul_(2.0).add_(1.0)


def _odd_below(x: Tensor, grid: Grid, generator: Chance) -> Tensor:
    """The largest odd number that is not above x / step: 2 floor((floor(x / step) - 1) / 2) + 1."""
    below = _truncate(x, grid, generator)
    return below.sub_(1.0).mul_(0.5).floor_().mul_(2.0).add_(1.0)


def _stochastic_odd(x: Tensor, grid: Grid, generator: Chance) -> Tensor:
    """One of the odd numbers on both sides of x / step, with x / step as the mean.

    With u uniform in [0, 1), it is ``below + 2`` where ``(x / step - below) / 2 >= 1 - u``, and
    else ``below``; compared so that both sides are exact: ``frac(x / step) >= 2 (1 - u) - even``,
    where `even` is 1 if floor(x / step) is even.
    """
    fraction = torch.mul(x, grid.scale)
    whole = torch.floor(fraction)
    below = _odd_below(x, grid, generator)
    fraction.sub_(whole)  # NaN at infinities: the comparison below is then False
    needed = noise_like(x, generator).neg_().add_(1.0).mul_(2.0).sub_(whole.sub_(below))
    return torch.ge(fraction, needed, out=fraction).mul_(2.0).add_(below)


def _odd_toward_zero(x: Tensor, grid: Grid, generator: Chance) -> Tensor:
    """The nearest odd number not further from 0 than x / step; where there is none, the nearest."""
    size = torch.mul(x, grid.scale).abs_().floor_()
    size = size.add_(1.0).mul_(0.5).floor_().mul_(2.0).sub_(1.0).clamp_(min=1.0)
    return torch.where(x < 0, -size, size)


_Rounding = Callable[[Tensor, Grid, Chance], Tensor]

_ROUNDING_FUNCTIONS: dict[str, _Rounding] = {
    "truncate": _truncate,
    "nearest": _nearest,
    "stochastic": _stochastic,
    "toward_zero": _toward_zero,
    "nearest_even": _nearest_even,
    "nearest_away": _nearest_away,
}

_ODD_FUNCTIONS: dict[str, _Rounding] = {
    "truncate": _odd_below,
    "nearest": _nearest_odd,
    "stochastic": _stochastic_odd,
    "toward_zero": _odd_toward_zero,
    "nearest_even": _nearest_odd,
    "nearest_away": _nearest_odd,
}

ROUNDINGS: tuple[str, ...] = tuple(_ROUNDING_FUNCTIONS)
"""Names of the roundings."""


def round_to_codes(x: Tensor, grid: Grid, rounding: str, generator: Chance) -> Tensor:
    """``x / step`` rounded to whole numbers, or to odd ones, not limited to the range.

    Args:
        x: values, any shape, float32 or float64.
        grid: the grid to round to.
        rounding: one of `ROUNDINGS`.
        generator: source of the noise of `stochastic`, see `noise_like`.

    Returns:
        Unlimited codes, of the shape and dtype of `x`.
    """
    functions = _ODD_FUNCTIONS if grid.odd else _ROUNDING_FUNCTIONS
    return functions[rounding](x, grid, generator)
