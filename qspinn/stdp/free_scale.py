"""A unit for each neuron: weights on grids whose steps are no powers of two.

Spikes are 0 or 1, so a potential is linear in the weights. With weights ``u_j code step`` of neuron
j, it counts in units of ``u_j`` mV: its currents are sums of codes as with any other format, and
what it must reach is divided by ``u_j`` once. Theta absorbs that, so that a unit costs no memory
and nothing per spike. The reset, and by how much a spike lowers the others, remain one number for
all neurons, in the unit of the middle one; so units should not differ more than they need to. The
steps are halfway (in logarithms) between those of least squared error and the middle one of them.

The unit keeps the sum of the weights, which learning normalises: ``u_j = sum w_ij / (step sum
code_ij)``. All sums are exact, so that codes and units do not depend on the machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qspinn.fixed_point import (
    FixedPointFormat,
    Quantizer,
    TensorQuantizer,
    quantize,
    stored,
    stored_constant,
    to_integers,
)
from qspinn.stdp.settings import DiehlCookSettings

CANDIDATES = 32
"""Steps that are tried for each neuron: the largest code stands for 1/32 to 32/32 of the largest
weight."""
SUM_BITS = 61
"""Of exact sums in int64."""
WEIGHT_BITS = 24
"""Most fraction bits, below the largest weight, that weights have in exact sums."""

WIDER = 4.0
"""How far numbers without a format of their own may grow when they are counted in units."""


@dataclass(frozen=True)
class FreeScale:
    """Weights in units of their neurons.

    Attributes:
        codes: int64 ``[inputs, neurons]``.
        sums: Sums of the weights of each neuron, int64 ``[neurons]``, with ``sum_bits`` fraction
            bits.
        sum_bits: See there.
    """

    codes: Tensor
    sums: Tensor
    sum_bits: int

    def per_mv(self, step: float) -> Tensor:
        """Units per mV of each neuron, float64 ``[neurons]``; 1 where no weight tells.

        Args:
            step: What a code of 1 stands for, in units.
        """
        counted = self.codes.sum(0)
        says = (counted > 0) & (self.sums > 0)
        ratio = counted.double() * step / self.sums.clamp_min(1).double() * 2.0**self.sum_bits
        return ratio.where(says, 1.0)


def is_free(quantizers: Mapping[str, Quantizer]) -> bool:
    """Whether each neuron has a unit of its own.

    Raises:
        ValueError: A free scale of something else than the weights.
    """
    free = {n: q for n, q in quantizers.items() if getattr(q, "scale", "power_of_two") == "free"}
    for name in set(free) - {"weight"}:
        raise ValueError(f"{free[name].path}: scale='free' is for weights; write power_of_two")
    return bool(free)


def widened(settings: DiehlCookSettings) -> DiehlCookSettings:
    """Settings whose constants and bounds leave room for units of a quarter of a mV."""
    rest = settings.rest
    return replace(
        settings,
        threshold=rest + WIDER * (settings.threshold - rest),
        reset=rest + WIDER * (settings.reset - rest),
        inhibition=WIDER * settings.inhibition,
        theta_max=WIDER * settings.theta_max,
    )


def free_scale(weight: Tensor, quantizer: Quantizer) -> FreeScale:
    """The codes that suit the weights of each neuron, and the sums that units keep.

    Args:
        weight: ``[inputs, neurons]``, 0 or more.
        quantizer: How weights are held: unsigned; its step does not matter.
    """
    fmt = quantizer.format
    assert isinstance(fmt, FixedPointFormat)
    exact, highest = weight.double(), max(fmt.code_max, 1)
    room = SUM_BITS - math.ceil(math.log2(len(exact) * highest))
    bits = min(WEIGHT_BITS, room) - math.frexp(float(exact.max()))[1]
    whole = torch.ldexp(exact, torch.tensor(bits)).round_().to(torch.int64)
    scale = _least_error(exact, whole, quantizer, fmt)
    typical = scale[scale > 0].median() if bool((scale > 0).any()) else scale.new_ones(())
    codes = to_integers(stored(quantizer, exact * (scale * typical).sqrt_()), fmt)
    return FreeScale(codes.to(torch.int64), whole.sum(0), bits)


def _least_error(
    exact: Tensor, whole: Tensor, quantizer: Quantizer, fmt: FixedPointFormat
) -> Tensor:
    """What the weights of each neuron are multiplied by on a grid of least squared error.

    Args:
        exact: Weights, float64 ``[inputs, neurons]``.
        whole: The same, as codes of a fine grid.
        quantizer: How they are held.
        fmt: Its format.
    """
    rounding = "nearest" if quantizer.rounding == "stochastic" else quantizer.rounding
    largest = exact.amax(0)
    best, scale = torch.full_like(largest, -1.0), torch.zeros_like(largest)
    for tried in range(CANDIDATES, 0, -1):
        # The step of `fmt` stands for this.
        per_code = largest * (tried / CANDIDATES / max(fmt.code_max, 1))
        candidate = torch.where(per_code > 0, fmt.step / per_code, 0.0)
        numbers = quantize(exact * candidate, fmt, rounding, quantizer.overflow)
        codes = to_integers(numbers, fmt).to(torch.int64)
        products, squares = (codes * whole).sum(0).double(), (codes * codes).sum(0).double()
        # With the best step for these codes, this much less than sum w^2 is left as the error.
        explained = products * products / squares.clamp_min(1.0)
        better = explained > best
        best, scale = explained.where(better, best), candidate.where(better, scale)
    return scale


def free_format(weight: Tensor, word_length: int, rounding: str, overflow: str) -> FixedPointFormat:
    """The unsigned format of weights in which the middle unit is 1 mV, to a power of two.

    Args:
        weight: ``[inputs, neurons]``, 0 or more, mV.
        word_length: Of the weights.
        rounding: Of the weights.
        overflow: Of the weights.
    """
    whole = FixedPointFormat(word_length, 0, signed=False)
    scale = free_scale(weight, TensorQuantizer("weight", whole, rounding, overflow))
    # A code of 1 stands for 2^-bits units, and for 1 / per_mv mV.
    bits = round(math.log2(float(scale.per_mv(1.0).median())))
    return FixedPointFormat(word_length - bits, bits, signed=False)


@dataclass(frozen=True)
class InUnits:
    """What a network in fixed point computes with where its neurons have units of their own.

    Attributes:
        weight: On its grid, float32 ``[inputs, neurons]``.
        theta: What a potential must reach beyond the threshold, before it is rounded, float64
            ``[neurons]``.
        settings: With threshold, reset and inhibition in the middle unit, above rest.
    """

    weight: Tensor
    theta: Tensor
    settings: DiehlCookSettings


class Counting:
    """Finds the units of a network, and keeps what it found until weights or theta change.

    Args:
        quantizers: Name of a tensor -> how it is held.

    Attributes:
        path: Of the weights, for errors.

    Raises:
        ValueError: A format of weights that units cannot have.
    """

    def __init__(self, quantizers: Mapping[str, Quantizer]) -> None:
        self._quantizers = quantizers
        self._found: tuple[Tensor, Tensor, DiehlCookSettings, InUnits] | None = None
        weight = quantizers["weight"]
        self.path = weight.path
        if not isinstance(weight.format, FixedPointFormat):
            raise ValueError(
                f"{self.path}: scale='free' gives each neuron a unit of its own already, and "
                f"{weight.format} has a format for each; write one format, such as UQ0.2"
            )

    def of(self, weight: Tensor, theta: Tensor, settings: DiehlCookSettings) -> InUnits:
        """A network in units of its neurons.

        Args:
            weight: ``[inputs, neurons]``, mV.
            theta: ``[neurons]``, mV.
            settings: Of the neurons.

        Raises:
            ValueError: A neuron whose threshold would lie at the reset or below.
        """
        if self._found is not None:
            *tensors, kept, found = self._found
            if kept == settings and all(map(torch.equal, tensors, (weight, theta))):
                return found
        held = self._quantizers["weight"]
        fmt = held.format
        assert isinstance(fmt, FixedPointFormat)
        scale = free_scale(weight, held)
        per_mv = scale.per_mv(fmt.step)
        middle = float(per_mv.median())
        rest = settings.rest
        scaled = replace(
            settings,
            threshold=rest + (settings.threshold - rest) * middle,
            reset=rest + (settings.reset - rest) * middle,
            inhibition=settings.inhibition * middle,
        )
        total = (theta.double() + (settings.threshold - rest)) * per_mv
        lowest = float(total.min())
        if lowest <= scaled.reset - rest:
            raise ValueError(
                f"{self.path}: scale='free' counts neuron {int(total.argmin())} in a unit in which "
                f"its threshold is {lowest:.4g}, at or below the reset {scaled.reset - rest:.4g}; "
                "write scale=power_of_two, or a lower reset"
            )
        at = self._quantizers["threshold"]
        # What the rounding of the threshold changes, theta makes good.
        threshold = stored_constant(scaled.threshold - rest, at.format, at.rounding)
        on_grid = (scale.codes.double() * fmt.step).float()
        found = InUnits(on_grid, total - threshold, scaled)
        self._found = weight.clone(), theta.clone(), settings, found
        return found
