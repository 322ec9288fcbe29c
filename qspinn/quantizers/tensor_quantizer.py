"""Quantises one tensor, as a resolved plan says."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from qspinn.fixed_point import Draws, Format, fake_quantize, quantize, stored_constant, stored_draws
from qspinn.plan import ResolvedTensor


@dataclass
class TensorQuantizer:
    """Rounds one tensor to its format, with straight-through gradients.

    Attributes:
        path: The tensor's path, for errors and for the seed of stored values.
        format: Its format.
        rounding: Its rounding.
        overflow: Its overflow.
    """

    path: str
    format: Format
    rounding: str
    overflow: str
    _draws: Draws | None = field(default=None, repr=False, compare=False)
    _constants: dict[float, float] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, tensor: ResolvedTensor) -> TensorQuantizer:
        """The quantizer of a calibrated tensor."""
        if tensor.format is None:
            raise ValueError(
                f"{tensor.path}: has {tensor.word_length} bits but no format yet; call "
                "qspinn.quantizers.calibrate, or give the rule a format"
            )
        # Tied layers share what is stored, and so the one draw that it was rounded with.
        path = tensor.info.tied_to or tensor.path
        return cls(path, tensor.format, tensor.rounding, tensor.overflow)

    @property
    def key(self) -> int | None:
        """Key of the random bits of the sequence that has begun last; None: it draws none."""
        return None if self._draws is None else self._draws.key

    def restart(self) -> None:
        """Begins a new sequence of random numbers, where the rounding needs any.

        Each tensor draws from a source of its own, so that the single-step and the multi-step mode
        draw the same.
        """
        if self.rounding == "stochastic":
            self._draws = Draws.seeded()

    def state(self, value: Tensor) -> Tensor:
        """A state at one time step: stochastic rounding draws anew at each."""
        return fake_quantize(value, self.format, self.rounding, self.overflow, self._draws)

    def stored_in_training(self, value: Tensor) -> Tensor:
        """As :meth:`stored`, with the gradient everywhere, where the value saturates too."""
        kept = quantize(value.detach(), self.format, self.rounding, self.overflow)
        return kept + (value - value.detach())  # exactly 0, with the gradient of the value

    def stored(self, value: Tensor, training: bool) -> Tensor:
        """A value that a device stores, such as a weight.

        While training, stochastic rounding draws anew at each use, from torch's
        global generator. At inference a device has stored one draw: it is seeded
        by the path, and so the same at every use.

        While training, a value that saturates gets the gradient that leads it back.
        """
        generator = None if training else stored_draws(self)
        return fake_quantize(
            value, self.format, self.rounding, self.overflow, generator, returning=training
        )

    def constant(self, value: float) -> float:
        """A single stored number, such as a threshold, in exact arithmetic."""
        if value not in self._constants:
            kept = stored_constant(value, self.format, self.rounding, self.overflow)
            self._constants[value] = kept
        return self._constants[value]
