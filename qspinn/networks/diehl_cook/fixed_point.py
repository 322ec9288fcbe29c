"""In which numbers the network of Diehl and Cook computes: float, or codes of formats."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from qspinn.fixed_point import FixedPointFormat, Quantizer
from qspinn.networks.diehl_cook.declaration import ReportsPresentations, accumulator_bits
from qspinn.stdp.arithmetic import Arithmetic
from qspinn.stdp.constants import bounds, constants, wide
from qspinn.stdp.free_scale import Counting, InUnits, free_format, is_free, widened
from qspinn.stdp.held import codes_of, numbers_of
from qspinn.stdp.lowering import fixed_numbers, float_numbers
from qspinn.stdp.numbers import Numbers
from qspinn.stdp.settings import STDP, DiehlCookSettings


class HoldsNumbers(ReportsPresentations):
    """Knows how its tensors are held, and what is computed with.

    A network has the attributes below, and calls ``reset`` its states.

    Attributes:
        weight: ``[inputs, neurons]``, mV per spike.
        theta: ``[neurons]``, mV.
        settings: Of the neurons.
        stdp: Of the plasticity.
        time_steps: T.
    """

    theta: Tensor
    stdp: STDP
    time_steps: int
    _quantizers: dict[str, Quantizer] | None = None
    _counting: Counting | None = None
    _kept_numbers: tuple[tuple[object, ...], Numbers] | None = None
    _kept_rules: tuple[Numbers, torch.device, Arithmetic] | None = None
    _revision = 0

    def use_fixed_point(self, quantizers: Mapping[str, Quantizer] | None) -> None:
        """Computes in fixed point from now on, or in float again.

        Args:
            quantizers: Name of a tensor -> how it is held. What is missing is computed with codes
                of 24 bits, as many as a float32 has for its digits. None: in float again.

        Raises:
            ValueError: Formats with which the network could not work.
        """
        before = self._quantizers, self._counting
        self._quantizers = self._counting = None
        if quantizers is not None:
            try:
                self._compute_with(quantizers)
            except ValueError:
                self._quantizers, self._counting = before
                raise
        self._revision += 1
        self.reset()

    def _compute_with(self, quantizers: Mapping[str, Quantizer]) -> None:
        settings, stdp = self.settings, self.stdp
        names = (*constants(settings, stdp), *bounds(settings, stdp))
        for name in set(quantizers) - set(names):
            raise ValueError(f"a quantizer of {name!r}: write one of {', '.join(names)}")
        free = is_free(quantizers)
        settings = widened(settings) if free else settings
        held = {n: quantizers.get(n) or wide(n, settings, stdp) for n in names}
        self._quantizers, self._counting = held, Counting(held) if free else None
        self.numbers()

    def free_format(
        self, word_length: int, rounding: str, overflow: str, granularity: str
    ) -> FixedPointFormat:
        """The format of weights whose scale is free, by the protocol of `qspinn.plan`.

        Each neuron has a unit of its own, whatever the granularity is.
        """
        return free_format(self.weight.detach(), word_length, rounding, overflow)

    def accumulator_word_lengths(self) -> Mapping[str, int]:
        """Bits that exact sums need, sign included."""
        numbers = self.numbers()
        return {} if numbers.is_float else accumulator_bits(numbers, self.inputs)

    def numbers(self) -> Numbers:
        """The constants that every step computes with, in float or as integers."""
        # Kept, since a single step would take less time than to make them.
        held, settings = self._quantizers or {}, self._unit_settings()
        sizes = self.time_steps, self.neurons, self.inputs
        formats = tuple((q.path, q.format, q.rounding, q.overflow) for q in held.values())
        of = (settings, self.stdp, *sizes, *held, *formats)
        if self._kept_numbers is None or self._kept_numbers[0] != of:
            numbers = (
                fixed_numbers(settings, self.stdp, *sizes, held)
                if held
                else float_numbers(settings, self.stdp, self.time_steps, self.neurons)
            )
            self._kept_numbers = of, numbers
        return self._kept_numbers[1]

    def _rules(self, device: torch.device) -> Arithmetic:
        """What computes with these constants on a device; kept as they are."""
        numbers, kept = self.numbers(), self._kept_rules
        if kept is None or kept[0] is not numbers or kept[1] != device:
            kept = self._kept_rules = numbers, device, Arithmetic(numbers, device)
        return kept[2]

    def _in_units(self) -> InUnits | None:
        """What it computes with where its neurons have units of their own."""
        if self._counting is None:
            return None
        return self._counting.of(self.weight.detach(), self.theta, self.settings)

    def _unit_settings(self) -> DiehlCookSettings:
        """The settings, in the units that it computes in."""
        units = self._in_units()
        return self.settings if units is None else units.settings

    def _check_learns(self) -> None:
        if self._counting is not None:
            raise ValueError(
                f"{self._counting.path}: scale='free' is for networks that have learned; write "
                "scale=power_of_two to learn in fixed point, or detach and learn in float"
            )

    def _held(self, name: str) -> Tensor:
        """A copy of weights or theta as backends take them: float32, or codes in int64."""
        units, held = self._in_units(), self._quantizers
        value: Tensor = getattr(self if units is None else units, name).detach()
        return value.clone() if held is None else codes_of(value, held[name])

    def _hold(self, name: str, value: Tensor) -> None:
        """Keeps what a backend learned."""
        kept: Tensor = getattr(self, name)
        held = self._quantizers
        with torch.no_grad():
            kept.copy_(value if held is None else numbers_of(value, held[name]))
