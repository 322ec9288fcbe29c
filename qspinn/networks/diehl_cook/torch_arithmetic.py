"""The arithmetic of the network on torch tensors, in float32 and in integers (int64).

Presentations side by side are rows: keys are ``[B]``, states ``[B, N]`` or ``[B, I]``.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from qspinn.networks.diehl_cook.number_types import (
    GAIN_BITS,
    NEAREST,
    NEAREST_EVEN,
    STOCHASTIC,
    THETA_BITS,
    TOWARD_ZERO,
    FixedNumbers,
    FloatNumbers,
    Numbers,
    Rounding,
)
from qspinn.networks.diehl_cook.random_bits import draw, spread


class Arithmetic(Protocol):
    """What a backend on torch computes with. Counters number the draws of stochastic rounding."""

    numbers: Any
    dtype: torch.dtype

    def charge(
        self, v: Tensor, current: Tensor, arriving: Tensor, ready: Tensor, key: Tensor, t: int
    ) -> Tensor:
        """Potentials ``[B, N]`` after leak, current and ``arriving`` spikes of other neurons."""

    def threshold(self, theta: Tensor) -> Tensor:
        """What potentials must reach, ``[N]``."""

    def reaches(self, v: Tensor, total: Tensor) -> Tensor:
        """Where neurons fire, bool ``[B, N]``."""

    def raised(self, theta: Tensor, key: Tensor, counter: Tensor) -> Tensor:
        """Theta of neurons that reached their threshold."""

    def decayed(self, theta: Tensor, key: Tensor) -> Tensor:
        """Theta after a presentation."""

    def trace(self, x: Tensor, spikes: Tensor, key: Tensor, t: int, of_inputs: bool) -> Tensor:
        """Traces ``[B, *]`` after a step with these spikes (bool)."""

    def change_pre(self, y: Tensor) -> Tensor:
        """Changes of the weights to each neuron at a spike of their input."""

    def change_post(self, x: Tensor) -> Tensor:
        """Changes ``[..., I, N]`` of weights at spikes of neurons; x is ``[..., I]``."""

    def changed(
        self, w: Tensor, change: Tensor, key: Tensor, counter: Tensor, turn: Tensor
    ) -> Tensor:
        """Weights after a change, rounded, not yet bounded."""

    def fine(self, w: Tensor, change: Tensor) -> Tensor:
        """Weights with their changes, before both are normalised."""

    def scaled(
        self, p: Tensor, total: Tensor, key: Tensor, counter: Tensor, turn: Tensor
    ) -> Tensor:
        """Fine weights ``[I, N]`` normalised, not yet bounded; total is ``[N]``."""

    def bounded(self, w: Tensor) -> Tensor:
        """Weights ``[..., N]`` within their bounds."""


def arithmetic(numbers: Numbers, device: torch.device) -> Arithmetic:
    """The arithmetic that these numbers are meant for."""
    if isinstance(numbers, FixedNumbers):
        return FixedArithmetic(numbers, device)
    return FloatArithmetic(numbers)


class FloatArithmetic:
    """In float32; each operation as the kernel writes it, so that each rounds alike."""

    dtype = torch.float32

    def __init__(self, numbers: FloatNumbers) -> None:
        # As Python floats, which torch multiplies in the type of the tensor.
        self.numbers: Any = FloatNumbers(*(float(value) for value in numbers))  # type: ignore[arg-type]

    def charge(
        self, v: Tensor, current: Tensor, arriving: Tensor, ready: Tensor, key: Tensor, t: int
    ) -> Tensor:
        """See `Arithmetic`."""
        drive = current - arriving.to(torch.float32) * self.numbers.inhibition
        return v * self.numbers.keep + torch.where(ready, drive, 0.0)

    def threshold(self, theta: Tensor) -> Tensor:
        """See `Arithmetic`."""
        return self.numbers.threshold + theta

    def reaches(self, v: Tensor, total: Tensor) -> Tensor:
        """See `Arithmetic`."""
        return v >= total

    def raised(self, theta: Tensor, key: Tensor, counter: Tensor) -> Tensor:
        """See `Arithmetic`."""
        return theta + self.numbers.theta_plus

    def decayed(self, theta: Tensor, key: Tensor) -> Tensor:
        """See `Arithmetic`."""
        return theta * self.numbers.theta_keep

    def trace(self, x: Tensor, spikes: Tensor, key: Tensor, t: int, of_inputs: bool) -> Tensor:
        """See `Arithmetic`."""
        keep = self.numbers.keep_pre if of_inputs else self.numbers.keep_post
        return torch.where(spikes, 1.0, x * float(keep))

    def change_pre(self, y: Tensor) -> Tensor:
        """See `Arithmetic`."""
        return -(self.numbers.rate_pre * y)

    def change_post(self, x: Tensor) -> Tensor:
        """See `Arithmetic`."""
        return (self.numbers.rate_post * (x - self.numbers.trace_target)).unsqueeze(-1)

    def changed(
        self, w: Tensor, change: Tensor, key: Tensor, counter: Tensor, turn: Tensor
    ) -> Tensor:
        """See `Arithmetic`."""
        return w + change

    def fine(self, w: Tensor, change: Tensor) -> Tensor:
        """See `Arithmetic`."""
        return (w + change).clamp(min=0.0)

    def scaled(
        self, p: Tensor, total: Tensor, key: Tensor, counter: Tensor, turn: Tensor
    ) -> Tensor:
        """See `Arithmetic`."""
        # Not `number / tensor`, which torch computes as a product with the reciprocal.
        return p * torch.full_like(total, float(self.numbers.weight_sum)).div_(total)

    def bounded(self, w: Tensor) -> Tensor:
        """See `Arithmetic`."""
        return w.clamp(0.0, float(self.numbers.weight_max))


class FixedArithmetic:
    """In integer codes."""

    dtype = torch.int64

    def __init__(self, numbers: FixedNumbers, device: torch.device) -> None:
        self.numbers = numbers
        arrays = ("current_shift", "weight_max", "weight_sum", "rate_pre", "rate_post")
        self.of_neurons = {
            name: torch.from_numpy(getattr(numbers, name)).to(device) for name in arrays
        }

    def charge(
        self, v: Tensor, current: Tensor, arriving: Tensor, ready: Tensor, key: Tensor, t: int
    ) -> Tensor:
        """See `Arithmetic`."""
        n = self.numbers
        drive = (current << self.of_neurons["current_shift"]) - arriving * n.inhibition
        exact = ((v * n.keep) << n.potential_shift) + torch.where(ready, drive, 0)
        step = torch.tensor(t, device=v.device)
        return self._rounded(exact, n.charge_shift, n.v, key.unsqueeze(1), step, _places(v))

    def threshold(self, theta: Tensor) -> Tensor:
        """See `Arithmetic`."""
        return self.numbers.threshold + (theta << self.numbers.theta_shift)

    def reaches(self, v: Tensor, total: Tensor) -> Tensor:
        """See `Arithmetic`."""
        return (v << self.numbers.fire_shift) >= total

    def raised(self, theta: Tensor, key: Tensor, counter: Tensor) -> Tensor:
        """See `Arithmetic`."""
        exact = (theta << THETA_BITS) + self.numbers.theta_plus
        return self._rounded(exact, THETA_BITS, self.numbers.theta, key, counter)

    def decayed(self, theta: Tensor, key: Tensor) -> Tensor:
        """See `Arithmetic`."""
        exact = theta * self.numbers.theta_keep
        return self._rounded(exact, THETA_BITS, self.numbers.theta, key, _places(theta))

    def trace(self, x: Tensor, spikes: Tensor, key: Tensor, t: int, of_inputs: bool) -> Tensor:
        """See `Arithmetic`."""
        n = self.numbers
        keep, bits, to, one = (
            (n.keep_pre, n.leak_bits_pre, n.pre, n.one_pre)
            if of_inputs
            else (n.keep_post, n.leak_bits_post, n.post, n.one_post)
        )
        step = torch.tensor(t, device=x.device)
        fallen = self._rounded(x * keep, bits, to, key.unsqueeze(1), _places(x), step)
        return torch.where(spikes, one, fallen)

    def change_pre(self, y: Tensor) -> Tensor:
        """See `Arithmetic`."""
        return -(self.of_neurons["rate_pre"] * y)

    def change_post(self, x: Tensor) -> Tensor:
        """See `Arithmetic`."""
        return self.of_neurons["rate_post"] * (x - self.numbers.trace_target).unsqueeze(-1)

    def changed(
        self, w: Tensor, change: Tensor, key: Tensor, counter: Tensor, turn: Tensor
    ) -> Tensor:
        """See `Arithmetic`."""
        n = self.numbers
        return shifted((w << n.spare) + change, n.spare, n.weight.mode, key, counter, turn)

    def fine(self, w: Tensor, change: Tensor) -> Tensor:
        """See `Arithmetic`."""
        n = self.numbers
        return ((w << n.fine) + (change >> (n.spare - n.fine))).clamp(min=0)

    def scaled(
        self, p: Tensor, total: Tensor, key: Tensor, counter: Tensor, turn: Tensor
    ) -> Tensor:
        """See `Arithmetic`."""
        gain = torch.div(self.of_neurons["weight_sum"], total, rounding_mode="floor")
        bits = GAIN_BITS + self.numbers.fine
        return shifted(p * gain, bits, self.numbers.weight.mode, key, counter, turn)

    def bounded(self, w: Tensor) -> Tensor:
        """See `Arithmetic`."""
        to, highest = self.numbers.weight, self.of_neurons["weight_max"]
        if to.wrap:
            return fitted(w.clamp(min=0).minimum(highest), to)
        return w.clamp(torch.zeros_like(highest), highest.clamp(max=to.high))

    def _rounded(
        self,
        exact: Tensor,
        bits: int,
        to: Rounding,
        key: Tensor,
        counter: Tensor,
        turn: Tensor | None = None,
    ) -> Tensor:
        return fitted(shifted(exact, bits, to.mode, key, counter, turn), to)


def shifted(
    x: Tensor, bits: int, mode: int, key: Tensor, counter: Tensor, turn: Tensor | None = None
) -> Tensor:
    """``x / 2^bits`` rounded to whole numbers; stochastic rounding draws by the rest."""
    if bits == 0:
        return x
    rest = (1 << bits) - 1
    if mode == STOCHASTIC:
        random = draw(key, counter) if turn is None else spread(key, counter, turn)
        return (x + ((random >> (64 - bits)) & rest)) >> bits
    if mode == NEAREST:
        return (x + ((rest >> 1) + 1)) >> bits
    if mode == TOWARD_ZERO:
        return torch.where(x < 0, x + rest, x) >> bits
    if mode == NEAREST_EVEN:
        return (x + (rest >> 1) + ((x >> bits) & 1)) >> bits
    return x >> bits


def fitted(x: Tensor, to: Rounding) -> Tensor:
    """Codes brought into the range of ``to``."""
    if to.wrap:
        return ((x - to.low) & (to.high - to.low)) + to.low
    return x.clamp(to.low, to.high)


def _places(x: Tensor) -> Tensor:
    return torch.arange(x.shape[-1], device=x.device)
