"""A unit for each layer: weights on grids whose steps are no powers of two.

A potential ``u = W p + b - r`` is linear in the weights, whatever the traces are. With weights
``s code step`` it is `s` times a number that is computed from codes alone, if biases and what a
spike adds to r are divided by `s`, too; and so is what it is compared with, the threshold. All of
them are divided once, before they are stored: a unit costs no operation and no memory. As many
outputs as a layer has share it, since they share one refractory constant. Where each output channel
has a format of its own, steps are the unit times a power of two of each.

What a spike adds is a stored number T, so the unit is ``s = refractory / T``, exactly. (Without
refractoriness the threshold takes its place; and where that is 0 as well, any unit is exact.)

Sums of errors are exact, so that units do not depend on the machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qspinn.fixed_point import (
    MAX_BITS,
    FixedPointFormat,
    Format,
    PerChannelFormat,
    Quantizer,
    covering_integer_bits,
    quantize,
    stored_constant,
)
from qspinn.networks.decolle.settings import DecolleSettings

SCALES = tuple(1.0 + part / 16 for part in range(16))
"""Units that are tried, but for the powers of two that formats have."""
RANGES = 5
"""Powers of two that are tried for each scale: the largest code stands for 2 to 1/8 of the largest
weight."""
WIDEST_SPREAD = 16
"""How many powers of two lie between the steps of two channels at most."""
ERROR_BITS = 20
"""Most bits that errors have, below the largest weight, in exact sums."""


@dataclass(frozen=True)
class InUnits:
    """What a layer in fixed point computes with where it counts in a unit of its own.

    Attributes:
        unit: The potential that 1 stands for.
        settings: With threshold and refractory drop in units.
        weight: The weights that the unit was chosen for.
    """

    unit: float
    settings: DecolleSettings
    weight: Tensor


def is_free(quantizers: Mapping[str, Quantizer]) -> bool:
    """Whether the layer counts in a unit of its own."""
    weight = quantizers.get("weight")
    return weight is not None and getattr(weight, "scale", "power_of_two") == "free"


def free_format(
    weight: Tensor, word_length: int, rounding: str, overflow: str, granularity: str
) -> Format:
    """The format, in the unit with which weights lose least in it.

    Args:
        weight: ``[outputs, *]``.
        word_length: Of the weights.
        rounding: Of the weights.
        overflow: Of the weights.
        granularity: ``channel``: one power of two for each output; ``tensor``: one for all.
    """
    exact = weight.detach().double().cpu().flatten(1)
    rows = exact if granularity == "channel" else exact.reshape(1, -1)
    signed = bool((rows < 0).any())
    tried = []
    for scale in SCALES:
        fractions, error = _least(rows / scale, word_length, rounding, overflow, signed)
        tried.append((error * scale * scale, fractions))
    fractions = min(tried, key=lambda one: one[0])[1]
    if granularity == "channel":
        return PerChannelFormat(word_length, fractions, signed, 0)
    return FixedPointFormat(word_length - int(signed) - fractions[0], fractions[0], signed)


def in_units(
    weight: Tensor, quantizers: Mapping[str, Quantizer], settings: DecolleSettings
) -> InUnits:
    """The unit in which weights lose least in their format.

    Args:
        weight: ``[outputs, *]``.
        quantizers: Name of a tensor -> how it is held.
        settings: Of the layer, in its own potentials.

    Raises:
        ValueError: A format in which nothing is left of what a spike adds.
    """
    held = quantizers["weight"]
    rounding = "nearest" if held.rounding == "stochastic" else held.rounding
    exact = weight.detach().double().cpu()

    def error(scale: float) -> float:
        in_unit = exact / scale
        off = quantize(in_unit, held.format, rounding, held.overflow) - in_unit
        return _squared(off.reshape(1, -1), in_unit)[0] * scale * scale

    unit = min(SCALES, key=error)
    kept = next((n for n in ("refractory", "threshold") if getattr(settings, n) != 0.0), None)
    at = None if kept is None else quantizers.get(kept)
    if kept is not None and at is not None:
        value = getattr(settings, kept)
        number = stored_constant(value / unit, at.format, at.rounding, at.overflow)
        if number * value <= 0.0:
            raise ValueError(
                f"{at.path}: scale='free' counts in a unit in which {value:.6g} is "
                f"{value / unit:.6g}, and {at.format} has {number:.6g} for that; write more bits, "
                "or scale=power_of_two"
            )
        unit = value / number
    changed = {name: getattr(settings, name) / unit for name in ("threshold", "refractory")}
    if kept is not None and at is not None:
        changed[kept] = number
    return InUnits(unit, replace(settings, **changed), weight.detach().clone())


def _least(
    rows: Tensor, word_length: int, rounding: str, overflow: str, signed: bool
) -> tuple[tuple[int, ...], float]:
    """Fraction bits with which each row of ``[R, n]`` loses least, and what all of them lose."""
    length = word_length - int(signed)
    largest = rows.abs().amax(1).tolist()
    widest = [length - covering_integer_bits(one) - 1 for one in largest]
    finest = min(min(widest) + WIDEST_SPREAD, MAX_BITS - RANGES)
    widest = [min(one, finest) for one in widest]
    best = torch.full((len(rows),), float("inf"), dtype=torch.float64)
    fractions = torch.tensor(widest)
    rounding = "nearest" if rounding == "stochastic" else rounding
    for finer in range(RANGES):
        tried = tuple(one + finer for one in widest)
        fmt = PerChannelFormat(word_length, tried, signed, 0)
        errors = _squared(quantize(rows, fmt, rounding, overflow) - rows, rows)
        lost = torch.tensor(errors, dtype=torch.float64)
        fractions = torch.where(lost < best, torch.tensor(tried), fractions)
        best = torch.minimum(lost, best)
    return tuple(fractions.tolist()), sum(best.tolist())


def _squared(off: Tensor, values: Tensor) -> list[float]:
    """The sum of squares of each row of ``[R, n]``, the same on every machine.

    Args:
        off: What each value is off by.
        values: The values, whose largest says how finely they are counted.
    """
    bits = min(ERROR_BITS, (62 - off.shape[1].bit_length()) // 2 - 2)
    fine = bits - covering_integer_bits(float(values.abs().max()))
    whole = torch.ldexp(off, torch.tensor(fine)).round_().to(torch.int64)
    return [float(one) * 4.0**-fine for one in (whole * whole).sum(1).tolist()]
