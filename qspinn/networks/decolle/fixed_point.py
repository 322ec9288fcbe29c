"""How a DECOLLE layer computes in fixed point: exactly, in floats that hold every sum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from qspinn.fixed_point import Format, PerChannelFormat, Quantizer, TensorQuantizer
from qspinn.fixed_point.held import straight_through
from qspinn.networks.decolle.free_scale import InUnits
from qspinn.networks.decolle.settings import DecolleSettings, LayerShape
from qspinn.steps.exactness import (
    FLOAT32_BITS,
    accumulator_grid,
    accumulator_limit,
    bits_for,
    dtype_for,
    finest,
    magnitude,
    product_dtype,
)

PARAMETERS = ("weight", "bias", "readout")
IN_UNITS = ("weight", "bias")
"""Parameters that are divided by the unit of a layer that has one."""
STATES = ("input", "q", "p", "r", "u")
LEAKS = ("leak_q", "leak_p", "leak_r")


class FixedPoint:
    """The quantizers of a layer, and the float types in which its sums are exact.

    Args:
        quantizers: Name of a tensor -> how it is held. What is missing stays in 32-bit; sums in
            which it takes part are computed in float64.
        settings: Constants of the layer.
        shape: Its sizes.
        input_max: The largest input, where inputs are whole numbers; None: any numbers.
        units: What the layer counts in, where that is a unit of its own.

    Attributes:
        given: The quantizers, as they were given.
        unit: The potential that 1 stands for.

    Raises:
        ValueError: Formats with which the layer could not work, or whose sums no float64 holds.
    """

    def __init__(
        self,
        quantizers: Mapping[str, Quantizer],
        settings: DecolleSettings,
        shape: LayerShape,
        input_max: float | None,
        units: InUnits | None = None,
    ) -> None:
        self.given, self.units = quantizers, units
        self.unit = 1.0 if units is None else units.unit
        settings = settings if units is None else units.settings
        self.quantizers = {
            name: TensorQuantizer(one.path, one.format, one.rounding, one.overflow)
            for name, one in quantizers.items()
        }
        self.constants = {
            name: self.quantizers[name].constant(value)
            if name in self.quantizers
            else float(np.float32(value))
            for name, value in settings.constants.items()
        }
        self._check(settings)
        self.dtypes = {
            "q": self._leaky_dtype("q", "leak_q", "input", input_max),
            "p": self._leaky_dtype("p", "leak_p", "q", None),
            "r": self._leaky_dtype("r", "leak_r", None, self.constants["refractory"]),
        }
        self.worst_bits = self._worst_bits(shape)
        for name, bits in self.worst_bits.items():
            dtype_for(bits, self._path(name))

    def begin_sequence(self) -> None:
        """Seeds the random numbers of states from torch's generator, as seed_everything does."""
        for name in STATES:
            if name in self.quantizers:
                self.quantizers[name].restart()

    def largest(self, name: str) -> float:
        """The largest number that a state can hold."""
        return float(self.quantizers[name].format.max) if name in self.quantizers else math.inf  # type: ignore[union-attr]

    def state(self, name: str, value: Tensor) -> Tensor:
        """A state at one time step on its grid, without a gradient; float32 where that holds it."""
        quantizer = self.quantizers.get(name)
        if quantizer is None:
            return value.detach().to(torch.float32)
        kept = quantizer.state(value.detach())
        return kept.to(torch.float32) if code_bits(quantizer.format) <= FLOAT32_BITS else kept

    def potential(self, u: Tensor) -> Tensor:
        """Potentials on their grid; gradients pass straight through."""
        rounded = self.state("u", u)
        return rounded + straight_through(u).to(rounded.dtype)

    def stored(self, name: str, value: Tensor, training: bool) -> Tensor:
        """A parameter on its grid; gradients pass straight through.

        They do so where the parameter saturates, too: a format is chosen on parameters as they are
        before an epoch, and these grow several times over while they learn. What has grown out of
        its range is covered by the format of the next epoch.
        """
        quantizer = self.quantizers.get(name)
        if self.units is not None and name in IN_UNITS:
            value = per_unit(value, self.unit)
            if training:
                raise ValueError(
                    f"{self._path('weight')}: scale='free' is for networks that have learned; "
                    "write scale=power_of_two to learn in fixed point, or detach and learn in float"
                )
        if quantizer is None:
            return value
        exact = value.double() if code_bits(quantizer.format) > FLOAT32_BITS else value
        return quantizer.stored_with_gradient(exact, training)

    def potential_dtype(self, weight: Tensor, bias: Tensor) -> torch.dtype:
        """The float type in which the potentials are exact with these weights."""
        return product_dtype(self._potential_dtype(weight, bias), weight.device)

    def _potential_dtype(self, weight: Tensor, bias: Tensor) -> torch.dtype:
        held = [self.quantizers.get(name) for name in ("weight", "bias", "p", "r")]
        if any(one is None for one in held):
            return torch.float64
        if self.worst_bits["u"] <= FLOAT32_BITS:  # whatever the weights are
            return torch.float32
        largest = weight.detach().double().abs().flatten(1).sum(1).max()
        bound = Fraction(float(largest)) * magnitude(self.quantizers["p"].format)
        bound += Fraction(float(bias.detach().abs().max()))
        bound += magnitude(self.quantizers["r"].format)
        return dtype_for(bits_for(bound, self._potential_grid()), self._path("u"))

    def readout_dtype(self, weight: Tensor, steps: int = 1) -> torch.dtype:
        """The float type in which a readout of spikes is exact, or of their sums over steps."""
        if "readout" not in self.quantizers:
            return torch.float64
        bits = self.worst_bits["readout"] + (steps - 1).bit_length()
        dtype = dtype_for(bits, self._path("readout"))
        return product_dtype(dtype, weight.device)

    def _potential_grid(self) -> int:
        weight, bias, p, r = (self.quantizers[name].format for name in ("weight", "bias", "p", "r"))
        return max(accumulator_grid(weight, bias, p), finest(r))

    def _worst_bits(self, shape: LayerShape) -> dict[str, int]:
        """Bits, without sign, that no sum of these formats can exceed."""
        held = self.quantizers
        found = {}
        if all(name in held for name in ("weight", "bias", "p", "r")):
            weight, bias, p, r = (held[name].format for name in ("weight", "bias", "p", "r"))
            sums = accumulator_limit(weight, bias, p, shape.fan_in) + magnitude(r)
            found["u"] = bits_for(sums, self._potential_grid())
        if "readout" in held:
            fmt = held["readout"].format
            sums = accumulator_limit(fmt, None, None, math.prod(shape.spikes))
            found["readout"] = bits_for(sums, finest(fmt))
        return found

    def _leaky_dtype(
        self, name: str, leak: str, source: str | None, largest: float | None
    ) -> torch.dtype:
        """For ``state (1 - leak) + leak source``, or ``+ refractory`` where there is no source."""
        needed = {"q": "input" if largest is None else "q", "p": "q", "r": "refractory"}
        if any(one not in self.quantizers for one in (name, leak, needed[name])):
            return torch.float64
        fmt = self.quantizers[name].format
        leak_bits = max(finest(self.quantizers[leak].format), 0)
        grid, bound = max(finest(fmt), 0) + leak_bits, magnitude(fmt)
        if source is None:
            grid = max(grid, finest(self.quantizers["refractory"].format))
        elif source in self.quantizers:
            added = self.quantizers[source].format
            grid = max(grid, max(finest(added), 0) + leak_bits)
            bound += magnitude(added)
        bound += Fraction(largest or 0.0)
        return dtype_for(bits_for(bound, grid), self._path(name))

    def _path(self, name: str) -> str:
        return self.quantizers[name].path if name in self.quantizers else name

    def _check(self, settings: DecolleSettings) -> None:
        for name, quantizer in self.quantizers.items():
            if name not in PARAMETERS and isinstance(quantizer.format, PerChannelFormat):
                raise ValueError(
                    f"{quantizer.path}: write one format, such as Q0.7, not one per channel"
                )
        for name in LEAKS:
            if not 0.0 < self.constants[name] <= 1.0:
                raise ValueError(
                    f"{self._path(name)}: the leak {settings.constants[name]:.6g} becomes "
                    f"{self.constants[name]:.6g}; write more fraction bits"
                )
        if "u" in self.quantizers:
            fmt, threshold = self.quantizers["u"].format, self.constants["threshold"]
            if not fmt.min < threshold <= fmt.max:  # type: ignore[union-attr]
                raise ValueError(
                    f"{self._path('u')}: in {fmt} a neuron would fire always or never, since the "
                    f"threshold is {threshold}; write a signed format that reaches beyond it"
                )


def per_unit(value: Tensor, unit: float) -> Tensor:
    """A value in units, float64; divided by a tensor, since a GPU rounds twice for a number."""
    exact = value.double()
    return exact / torch.tensor(unit, dtype=exact.dtype, device=exact.device)


def code_bits(fmt: Format) -> int:
    """Bits of the largest code of a format, without sign."""
    return bits_for(magnitude(fmt), finest(fmt))
