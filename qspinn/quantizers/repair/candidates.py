"""Numbers near those that a device holds, among which its answers choose."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from qspinn.fixed_point import FixedPointFormat, Format, PerChannelFormat
from qspinn.plan import ResolvedTensor
from qspinn.quantizers.choose_format import covering_format

NEAR = 4
"""Steps up and down that are all tried; beyond, each is half as far again as the one before."""
ROOM = 2.0
"""How far above itself a threshold may move."""


def near_values(held: Tensor, fmt: Format) -> Tensor:
    """Numbers of a format near ``held``: ``[n, C]``, the first of them ``held`` itself.

    Args:
        held: One number of each channel ``[C]``, on the grid, float64.
        fmt: For the tensor or per channel.
    """
    formats = fmt.formats if isinstance(fmt, PerChannelFormat) else (fmt,)
    step, low, high = (
        held.new_tensor([getattr(one, name) for one in formats]) for name in ("step", "min", "max")
    )
    # What saturates repeats, and of equals the first is taken.
    shifted = [held + steps * step for steps in _steps(fmt.word_length)]
    return torch.stack([torch.minimum(torch.maximum(one, low), high) for one in shifted])


def threshold_values(
    held: Tensor, rest: float, threshold: ResolvedTensor, membrane: Format | None
) -> tuple[Tensor, FixedPointFormat]:
    """Thresholds near those that are held, and the format that has them all.

    A format that the plan leaves open becomes as fine as the membrane, and covers
    :data:`ROOM` times the largest threshold, as far as its bits allow.

    Args:
        held: Thresholds of a neuron layer, on their grid, float64, any shape.
        rest: The potential that it resets to: thresholds lie above.
        threshold: As the plan has it.
        membrane: Format of the potential that is compared with it.

    Returns:
        ``[n, *held.shape]``, the first of them ``held`` itself; and the format.
    """
    fmt = threshold.format
    assert isinstance(fmt, FixedPointFormat)  # thresholds have one format for all
    if threshold.settings.format is None:
        largest = float(held.abs().max())
        room = covering_format(ROOM * largest, fmt.word_length, signed=fmt.signed)
        finest = room.fraction_bits
        if isinstance(membrane, FixedPointFormat):
            finest = min(finest, membrane.fraction_bits)
        more = finest - fmt.fraction_bits
        if more > 0:
            fmt = replace(fmt, integer_bits=fmt.integer_bits - more, fraction_bits=finest)
    highest = fmt.max if membrane is None else min(fmt.max, _maximum(membrane))
    least = max(rest + fmt.step, fmt.min)
    shifted = torch.stack([held + steps * fmt.step for steps in _steps(fmt.word_length)])
    fits = (shifted >= least) & (shifted <= highest)
    return torch.where(fits, shifted, held), fmt


def _maximum(fmt: Format) -> float:
    formats = fmt.formats if isinstance(fmt, PerChannelFormat) else (fmt,)
    return min(one.max for one in formats)


def _steps(word_length: int) -> list[int]:
    steps, far = [0], 1
    while far < 1 << word_length:
        steps += [far, -far]
        far = far + 1 if far < NEAR else far * 3 // 2
    return steps
