"""The arithmetic of the network on tensors: which constants and which draws each step takes.

Presentations side by side are rows: keys are ``[B]``, states ``[B, N]`` or ``[B, I]``. Codes are
int64, real numbers float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from qspinn.fixed_point.random_bits import draw, spread
from qspinn.stdp.numbers import Numbers
from qspinn.steps import neurons, plasticity, traces
from qspinn.steps.words import STOCHASTIC, Rounding, quotient

PER_NEURON = ("maximum", "sum", "rate_pre", "rate_post")


class Arithmetic:
    """Counters number the draws of stochastic rounding.

    Args:
        numbers: What is computed with.
        device: Where.

    Attributes:
        numbers: The same; arrays are tensors on the device, and real numbers Python floats, which
            torch multiplies in the type of a tensor.
        dtype: Of states.
    """

    def __init__(self, numbers: Numbers, device: torch.device) -> None:
        self.numbers: Any = Numbers(*(type(part)(*_plain(part, device)) for part in numbers))  # type: ignore[arg-type]
        self.dtype = torch.float32 if numbers.is_float else torch.int64
        maximum = numbers.weight.maximum
        # One bound for all is faster than one for each.
        shared = len(maximum) > 0 and bool((maximum == maximum[0]).all())
        self._highest: Any = maximum[0].item() if shared else self.numbers.weight.maximum

    def of(self, columns: Tensor) -> Arithmetic:
        """The same for these neurons alone, as far as their weights go."""
        part = object.__new__(Arithmetic)
        weight = self.numbers.weight
        chosen = {name: getattr(weight, name)[columns] for name in PER_NEURON}
        part.numbers = self.numbers._replace(weight=weight._replace(**chosen))
        part.dtype = self.dtype
        shared = not isinstance(self._highest, Tensor)
        part._highest = self._highest if shared else chosen["maximum"]
        return part

    def charge(
        self, v: Tensor, current: Tensor, arriving: Tensor, ready: Tensor, key: Tensor, t: int
    ) -> Tensor:
        """Potentials ``[B, N]`` after leak, current and ``arriving`` spikes of other neurons."""
        n = self.numbers.neuron
        lowered = arriving.to(self.dtype) * n.inhibition
        random = _draws(n.v, key.unsqueeze(1), t, _places(v))
        return _tensor(neurons.adaptive_charge(v, current, lowered, ready, n.current_up, random, n))

    def threshold(self, theta: Tensor) -> Tensor:
        """What potentials must reach, ``[N]``."""
        return _tensor(neurons.adaptive_threshold(theta, self.numbers.neuron))

    def reaches(self, v: Tensor, total: Tensor) -> Tensor:
        """Where neurons fire, bool ``[B, N]``."""
        return _tensor(neurons.reaches(v, total, self.numbers.neuron))

    def raised(self, theta: Tensor, key: Tensor, counter: Tensor) -> Tensor:
        """Theta of neurons that reached their threshold."""
        n = self.numbers.theta
        return _tensor(neurons.raised(theta, _draws(n.to, key, counter), n))

    def decayed(self, theta: Tensor, key: Tensor) -> Tensor:
        """Theta after a presentation."""
        n = self.numbers.theta
        return _tensor(neurons.decayed(theta, _draws(n.to, key, _places(theta)), n))

    def trace(self, x: Tensor, spikes: Tensor, key: Tensor, t: int, of_inputs: bool) -> Tensor:
        """Traces ``[B, *]`` after a step with these spikes (bool)."""
        n = self.numbers.pre if of_inputs else self.numbers.post
        random = _draws(n.to, key.unsqueeze(1), _places(x), t)
        return _tensor(traces.decaying(x, spikes, random, n))

    def change_pre(self, y: Tensor) -> Tensor:
        """Changes of the weights to each neuron at a spike of their input."""
        return _tensor(plasticity.depression(y, self.numbers.weight.rate_pre))

    def change_post(self, x: Tensor) -> Tensor:
        """Changes ``[..., I, N]`` of weights at spikes of neurons; x is ``[..., I]``."""
        n = self.numbers.weight
        return _tensor(plasticity.potentiation(x.unsqueeze(-1), n.rate_post, n))

    def changed(
        self, w: Tensor, change: Tensor, key: Tensor, counter: Tensor, turn: Tensor
    ) -> Tensor:
        """Weights after a change, rounded, not yet bounded."""
        n = self.numbers.weight
        return _tensor(plasticity.changed(w, change, _draws(n.to, key, counter, turn), n))

    def fine(self, w: Tensor, change: Tensor) -> Tensor:
        """Weights with their changes, before both are normalised."""
        return _tensor(plasticity.fine(w, change, self.numbers.weight))

    def scaled(
        self, p: Tensor, total: Tensor, key: Tensor, counter: Tensor, turn: Tensor
    ) -> Tensor:
        """Fine weights ``[I, N]`` normalised, not yet bounded; total is ``[N]``."""
        n = self.numbers.weight
        gain = quotient(n.sum, total)
        return _tensor(plasticity.scaled(p, gain, _draws(n.to, key, counter, turn), n))

    def bounded(self, w: Tensor) -> Tensor:
        """Weights ``[..., N]`` within their bounds."""
        n = self.numbers.weight
        return _tensor(plasticity.bounded(w, self._highest, n))


def _plain(part: tuple[Any, ...], device: torch.device) -> list[Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return torch.from_numpy(value).to(device)
        return float(value) if isinstance(value, np.floating) else value

    return [plain(value) for value in part]


def _draws(to: Rounding, key: Tensor, counter: Any, turn: Any = None) -> Tensor | None:
    if to.mode != STOCHASTIC:
        return None
    return _tensor(draw(key, counter) if turn is None else spread(key, counter, turn))


def _tensor(x: Any) -> Tensor:
    assert isinstance(x, Tensor)
    return x


def _places(x: Tensor) -> Tensor:
    return torch.arange(x.shape[-1], device=x.device)
