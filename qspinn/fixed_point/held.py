"""How a tensor is held in fixed point, as those who compute with it want to know it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from qspinn.fixed_point.fake_quantize import fake_quantize
from qspinn.fixed_point.format import Format
from qspinn.fixed_point.learned_step import LearnedStep, learned_quantize
from qspinn.fixed_point.noise import Draws
from qspinn.fixed_point.quantize import quantize

SATURATED = ("returning", "clip", "pass")
"""Gradients of stored values beyond their range: only what leads back, none, or all."""


class Quantizer(Protocol):
    """How one tensor is held."""

    @property
    def path(self) -> str:
        """Its path, for errors and for what is drawn for it."""

    @property
    def format(self) -> Format:
        """Its format."""

    @property
    def rounding(self) -> str:
        """Its rounding."""

    @property
    def overflow(self) -> str:
        """Its overflow."""


def stored_draws(quantizer: Quantizer) -> Draws | None:
    """The random numbers for a value that a device has stored, where its rounding needs any.

    What is stored was drawn once: the path of the tensor seeds it, so it is the same at every use.
    """
    if quantizer.rounding != "stochastic":
        return None
    return Draws(zlib.crc32(quantizer.path.encode()))


def stored_constant(value: float, fmt: Format, rounding: str, overflow: str = "saturate") -> float:
    """A single number that a device stores, such as a threshold or a leak, on its grid.

    It is rounded once, so that stochastic rounding would only make it worse: it takes the nearest.

    Raises:
        ValueError: As `quantize`.
    """
    rounding = "nearest" if rounding == "stochastic" else rounding
    return float(quantize(torch.tensor([value], dtype=torch.float64), fmt, rounding, overflow))


def stored(quantizer: Quantizer, value: Tensor, training: bool = False) -> Tensor:
    """A value that a device stores, such as a weight, with straight-through gradients.

    While training, stochastic rounding draws anew at each use, from torch's global generator. At
    inference a device has stored one draw: it is seeded by the path, and so the same at every use.

    While training, a value that saturates gets the gradient that leads it back.
    """
    to, draws = quantizer, None if training else stored_draws(quantizer)
    return fake_quantize(value, to.format, to.rounding, to.overflow, draws, returning=training)


@dataclass
class TensorQuantizer:
    """Rounds one tensor to its format, with straight-through gradients.

    Attributes:
        path: The tensor's path, for errors and for the seed of stored values.
        format: Its format.
        rounding: Its rounding.
        overflow: Its overflow.
        repaired: Numbers of the format that a device holds in place of the rounded ones; None:
            it holds the rounded ones.
        saturated: One of :data:`SATURATED`: which gradient a stored value gets that lies beyond
            the range, while it learns.
        step: Its step, where that learns, too.
    """

    path: str
    format: Format
    rounding: str = "nearest"
    overflow: str = "saturate"
    repaired: Tensor | None = field(default=None, repr=False, compare=False)
    saturated: str = field(default="returning", compare=False)
    step: LearnedStep | None = field(default=None, repr=False, compare=False)
    _draws: Draws | None = field(default=None, init=False, repr=False, compare=False)
    _constants: dict[float, float] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def key(self) -> int | None:
        """Key of the random bits of the sequence that has begun last; None: it draws none."""
        return None if self._draws is None else self._draws.key

    @property
    def draws(self) -> Draws | None:
        """The random numbers of the sequence that has begun last; None: it draws none."""
        return self._draws

    def restart(self) -> None:
        """Begins a new sequence of random numbers, where the rounding needs any.

        Each tensor draws from a source of its own, so that the single-step and the multi-step mode
        draw the same.
        """
        if self.rounding == "stochastic":
            self._draws = Draws.seeded()

    def state(self, value: Tensor) -> Tensor:
        """A state at one time step: stochastic rounding draws anew at each."""
        return self._rounded(value, self._draws)

    def stored(self, value: Tensor, training: bool) -> Tensor:
        """As :func:`stored`, or what was repaired.

        Raises:
            RuntimeError: A value that learns, where what was repaired would not follow it.
        """
        if self.repaired is None:
            if training and self.saturated == "pass":
                return self.stored_with_gradient(value)
            draws = None if training else stored_draws(self)
            return self._rounded(value, draws, training and self.saturated == "returning")
        self._check_does_not_learn(value, training)
        return self.repaired.to(value)

    def stored_with_gradient(self, value: Tensor, training: bool = True) -> Tensor:
        """As :meth:`stored`, with the gradient everywhere, where the value saturates too.

        Unless gradients are to be clipped there.

        Raises:
            RuntimeError: As :meth:`stored`.
        """
        self._check_does_not_learn(value, training)
        if self.repaired is not None:
            return self.stored(value.detach(), training) + straight_through(value)
        draws = None if training else stored_draws(self)
        if self.saturated == "clip":
            return self._rounded(value, draws)
        return self._rounded(value.detach(), draws) + straight_through(value)

    def constant(self, value: float) -> float:
        """A single stored number, such as a threshold, in exact arithmetic, or as repaired."""
        if self.repaired is not None:
            return float(self.repaired)
        if value not in self._constants:
            kept = stored_constant(value, self.format, self.rounding, self.overflow)
            self._constants[value] = kept
        return self._constants[value]

    def _rounded(self, value: Tensor, draws: Draws | None, returning: bool = False) -> Tensor:
        how = (self.format, self.rounding, self.overflow, draws, returning)
        if self.step is None:
            return fake_quantize(value, *how)
        return learned_quantize(value, self.step, *how)

    def _check_does_not_learn(self, value: Tensor, training: bool) -> None:
        if self.repaired is None or not training:
            return
        if value.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                f"{self.path}: was repaired after training, so that it cannot learn; evaluate the "
                "module (module.eval()), or detach its quantizers to train it"
            )


def straight_through(value: Tensor) -> Tensor:
    """Exactly 0, with the gradient of ``value``."""
    return value - value.detach()
