"""What training batches have shown of a tensor, and the format that follows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from qspinn.fixed_point import FixedPointFormat, PerChannelFormat, covering_integer_bits
from qspinn.quantizers.choose_format import (
    LEAST_ERROR,
    RANGES_TRIED,
    RangeLimits,
    covering_bits,
    integer_bits_of,
    least_error,
    percentile,
    range_limits,
    squared_errors,
)

# A new batch counts as much as all before it together have on average, and an eighth at least.
LEAST_SHARE = 1 / 8


@dataclass
class RunningRange:
    """Running means, over batches, of what decides on the format of a membrane or an input.

    It is small, so that a checkpoint can carry it: the error of quantisation in each range in
    question, not the values themselves.

    Attributes:
        batches: How many batches it has seen.
        low: Smallest value, forgetting old batches.
        high: Largest value, likewise.
        large: The magnitude that 99.9% of the values do not exceed.
        signed: Whether its format needs a sign bit.
        errors: Integer bits of a range -> mean squared error of quantisation in it.
    """

    batches: int = 0
    low: float = 0.0
    high: float = 0.0
    large: float = 0.0
    signed: bool = True
    errors: dict[int, float] = field(default_factory=dict)

    def see(
        self,
        sample: Tensor,
        extremes: tuple[float, float],
        word_length: int,
        rounding: str,
        always_signed: bool = True,
    ) -> None:
        """Takes in one batch.

        Args:
            sample: Values ``[n]``, float64, finite.
            extremes: Smallest and largest value of the whole batch.
            word_length: Of the format to come.
            rounding: Of the tensor.
            always_signed: Whether its format has a sign bit whatever the values are.
        """
        self.batches += 1
        share = max(1.0 / self.batches, LEAST_SHARE)
        low, high = extremes
        self.low = low if self.batches == 1 else min(low, self.low + share * (low - self.low))
        self.high = high if self.batches == 1 else max(high, self.high + share * (high - self.high))
        self.large += share * (percentile(sample.abs()) - self.large)
        signed = always_signed or self.low < 0.0
        if self.signed != signed:
            self.signed, self.errors = signed, {}
        found = self._errors_of(sample, word_length, rounding)
        before = {bits: self._error(bits) if self.errors else e for bits, e in found.items()}
        self.errors = {bits: old + share * (found[bits] - old) for bits, old in before.items()}

    @property
    def largest(self) -> float:
        """The largest magnitude."""
        return max(-self.low, self.high)

    def format(
        self,
        word_length: int,
        method: str,
        at_least: float = 0.0,
        step_at_most: float = math.inf,
        current: FixedPointFormat | None = None,
    ) -> FixedPointFormat:
        """The format that suits what was seen; as :func:`choose_format` says."""
        limits = range_limits(word_length, self.signed, at_least, step_at_most)
        held = None if current is None else integer_bits_of(current, word_length, self.signed)
        if method in LEAST_ERROR:
            bits = least_error(self._allowed(limits), held)
        else:
            largest = self.largest if method == "max" else self.large
            bits = limits.clamped(covering_bits(largest, held))
        return FixedPointFormat(bits, word_length - int(self.signed) - bits, self.signed)

    def to_dict(self) -> dict[str, Any]:
        """Plain types; the inverse of :meth:`from_dict`."""
        return {**vars(self), "errors": {str(bits): error for bits, error in self.errors.items()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunningRange:
        """The inverse of :meth:`to_dict`."""
        errors = {int(bits): error for bits, error in data["errors"].items()}
        return cls(**{**data, "errors": errors})

    def _errors_of(self, sample: Tensor, word_length: int, rounding: str) -> dict[int, float]:
        """Of the ranges in question now and before, widest first."""
        top = covering_integer_bits(self.largest) + 1
        asked = {bits for bits in self.errors if top - RANGES_TRIED - 4 <= bits <= top + 2}
        limits = range_limits(word_length, self.signed)
        ranges = sorted(
            {limits.clamped(bits) for bits in (*asked, *range(top - RANGES_TRIED - 1, top + 1))},
            reverse=True,
        )
        fractions = tuple(word_length - int(self.signed) - bits for bits in ranges)
        fmt = PerChannelFormat(word_length, fractions, self.signed, 0)
        errors = squared_errors(sample.expand(len(ranges), -1), fmt, rounding) / len(sample)
        return dict(zip(ranges, errors.tolist(), strict=True))

    def _error(self, integer_bits: int) -> float:
        """The error in a range; beyond those known, of rounding or of saturation alone."""
        if integer_bits in self.errors:
            return self.errors[integer_bits]
        widest, narrowest = max(self.errors), min(self.errors)
        if integer_bits > widest:
            return self.errors[widest] * 4.0 ** (integer_bits - widest)
        return self.errors[narrowest]

    def _allowed(self, limits: RangeLimits) -> dict[int, float]:
        ranges = sorted({limits.clamped(bits) for bits in self.errors}, reverse=True)
        return {bits: self._error(bits) for bits in ranges}
