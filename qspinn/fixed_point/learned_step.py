"""Step sizes that learn: fake quantisation whose gradient says which step would suit better.

Learned step size quantisation (Esser et al., ICLR 2020, arXiv 1902.08153): the quantised number is
``v = step * code``, the rounding passes gradients straight through, and so

    dv / d step = code - x / step    where x lies inside the range,
                  code               where it was saturated (code is then an end of the range).

What is learned here is the binary logarithm of a step, which an optimizer changes by a share of the
step and never below 0: ``dv / d log2(step) = ln(2) * (v - x)`` inside, ``ln(2) * v`` outside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qspinn.fixed_point.fake_quantize import fake_quantize, values_and_passes
from qspinn.fixed_point.format import Format, PerChannelFormat
from qspinn.fixed_point.noise import Chance
from qspinn.fixed_point.quantize import as_supported, check_modes

__all__ = ["LearnedStep", "learned_quantize"]


@dataclass(frozen=True)
class LearnedStep:
    """The step of a grid, as an optimizer learns it.

    Attributes:
        log2: Binary logarithm of the step, ``[1]``, or ``[C]`` with one for each channel. The
            format that is computed with is the nearest one that there is; gradients pass straight
            through that rounding, too.
        gain: What the gradient is multiplied by; see :meth:`gain_of`.
    """

    log2: nn.Parameter
    gain: float = 1.0

    @staticmethod
    def gain_of(count: int, largest_code: int) -> float:
        """LSQ's ``1 / sqrt(N Q_P)``, so that steps learn about as fast as weights (section 2.2).

        Args:
            count: N, how many numbers share the step: weights, or neurons.
            largest_code: Q_P; taken for 1 where a word has no positive code.
        """
        return 1.0 / math.sqrt(max(count, 1) * max(largest_code, 1))

    @property
    def learns(self) -> bool:
        """Whether anybody asks for its gradient."""
        return self.log2.requires_grad and torch.is_grad_enabled()

    def unity(self) -> Tensor:
        """Exactly 1, for each step, with the gradient of ``step / step.detach()``."""
        return torch.exp2(self.gain * (self.log2 - self.log2.detach()))


def learned_quantize(
    x: Tensor,
    step: LearnedStep,
    fmt: Format,
    rounding: str = "nearest",
    overflow: str = "saturate",
    generator: Chance = None,
    returning: bool = False,
) -> Tensor:
    """As :func:`fake_quantize`, with a gradient for the step as well.

    Under ``wrap`` a number counts as inside the range everywhere, as its gradient does.

    Args:
        x: As in :func:`fake_quantize`.
        step: What learns.
        fmt: The format that is computed with; of `step`'s channels, where it has several.
        rounding: As in `fake_quantize`.
        overflow: As in `fake_quantize`.
        generator: As in `fake_quantize`.
        returning: As in `fake_quantize`; it is about the gradient of `x` alone.

    Raises:
        TypeError, ValueError: As `fake_quantize`; steps per channel and a format for all of them.
    """
    if not step.learns:
        return fake_quantize(x, fmt, rounding, overflow, generator, returning)
    x = as_supported(x, fmt, "learned_quantize")
    check_modes(rounding, overflow, fmt)
    if step.log2.numel() > 1 and not isinstance(fmt, PerChannelFormat):
        raise ValueError(
            f"learned_quantize: {step.log2.numel()} steps are learned, and the format {fmt} has "
            "one; write a PerChannelFormat, or learn one step"
        )
    how = (fmt, rounding, overflow, generator, returning, step.gain)
    values: Tensor = _Learned.apply(x, step.log2, *how)
    return values


class _Learned(torch.autograd.Function):
    """Straight-through for `x`, LSQ's gradient for the logarithm of the step."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        log2: Tensor,
        fmt: Format,
        rounding: str,
        overflow: str,
        generator: Chance,
        returning: bool,
        gain: float,
    ) -> Tensor:
        values, passes = values_and_passes(x, fmt, rounding, overflow, generator)
        slopes = torch.where(passes, values - x, values)
        slopes.masked_fill_(values.isnan(), 0.0)  # as fake_quantize: nothing is learned from NaN
        beyond = (~passes & torch.isfinite(x), x > values) if returning else ()
        ctx.save_for_backward(passes, slopes, *beyond)
        ctx.axis = fmt.axis if isinstance(fmt, PerChannelFormat) and log2.numel() > 1 else None
        ctx.gain, ctx.like = gain * math.log(2.0), log2.detach()
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        passes, slopes, *beyond = ctx.saved_tensors
        (gradient,) = gradients
        if beyond:
            outside, above = beyond
            passes = passes | (outside & torch.where(above, gradient > 0, gradient < 0))
        products = gradient * slopes
        if ctx.axis is None:
            sums = products.sum().reshape(1)
        else:
            sums = products.movedim(ctx.axis, 0).flatten(1).sum(1)
        of_step = (ctx.gain * sums).to(ctx.like)
        return gradient.masked_fill(~passes, 0.0), of_step, *[None] * 6
