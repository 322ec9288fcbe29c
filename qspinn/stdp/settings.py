"""The constants of the network of Diehl and Cook, and of its learning rule."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

UPDATES = ("online", "deferred")
NORMALISATIONS = ("presentation", "update")


@dataclass(frozen=True)
class DiehlCookSettings:
    """Constants of the neurons. One time step is 1 ms.

    The values are those of Diehl & Cook (Frontiers in Computational Neuroscience 9:99, 2015) as
    BindsNET's ``DiehlAndCook2015`` network and its example set them.

    Args:
        rest: Potential that the membrane leaks to, in mV.
        reset: Potential after a spike, in mV, below the threshold.
        threshold: Potential at which a neuron with theta = 0 fires, in mV, above rest.
        tau: Time constant of the leak, in ms.
        refractory: Steps after a spike in which a neuron takes no input; 0 to 255.
        inhibition: By how much a spike lowers the potential of every other neuron, in mV.
        inhibition_delay: Steps until it does. 1: direct inhibition, in the next step. 2: through a
            layer of inhibitory neurons, each driven by one excitatory neuron so strongly that it
            fires one step after it.
        theta_plus: By how much theta of a neuron grows when it reaches its threshold while the
            network learns, in mV.
        theta_tau: Time constant with which theta decays while the network learns, in ms.
        theta_max: The largest theta, in mV: what its fixed-point format has to hold.
        one_winner: Whether only one neuron spikes in a step, drawn from those at their threshold.
            The others are reset all the same, and their theta grows.
        max_rate: Mean firing rate of an input of value 1, in Hz, at most 1000.

    Raises:
        ValueError: A value outside what is listed here.
    """

    rest: float = -65.0
    reset: float = -60.0
    threshold: float = -52.0
    tau: float = 100.0
    refractory: int = 5
    inhibition: float = 120.0
    inhibition_delay: int = 2
    theta_plus: float = 0.05
    theta_tau: float = 1e7
    theta_max: float = 240.0
    one_winner: bool = True
    max_rate: float = 128.0

    def __post_init__(self) -> None:
        _check_finite(self, "rest")
        _check(self, "threshold", lambda x: x > self.rest, f"more than rest={self.rest}")
        _check(self, "reset", lambda x: x < self.threshold, f"less than threshold={self.threshold}")
        _check(self, "tau", lambda x: x > 0, "more than 0 (ms)")
        _check(self, "refractory", lambda x: 0 <= x <= 255, "0 to 255 (steps)")
        _check(self, "inhibition", lambda x: x >= 0, "0 or more (mV)")
        _check(self, "inhibition_delay", lambda x: 1 <= x <= 255, "1 (direct) or more (steps)")
        _check(self, "theta_plus", lambda x: x >= 0, "0 or more (mV)")
        _check(self, "theta_tau", lambda x: x > 0, "more than 0 (ms)")
        _check(self, "theta_max", lambda x: x > 0, "more than 0 (mV)")
        _check(self, "max_rate", lambda x: 0 < x <= 1000, "more than 0 and at most 1000 (Hz)")

    @property
    def keep(self) -> float:
        """What is left of a potential after a step, exp(-1 / tau)."""
        return math.exp(-1.0 / self.tau)


@dataclass(frozen=True)
class STDP:
    """Constants of the plasticity of the input synapses.

    Each input has a trace x and each neuron a trace y: 1 at a spike, decaying exponentially. At a
    spike of input i, every weight to a neuron j falls by ``rate_pre * y_j``; at a spike of neuron
    j, every weight from an input i grows by ``rate_post * (x_i - trace_target)``. Weights stay in
    [0, weight_max]. The weights of a neuron that spiked are scaled to the sum ``weight_sum``.
    (Diehl & Cook 2015, section 2.2, with pairwise traces as in BindsNET's ``PostPre``.)

    Args:
        rate_pre: Depression at spikes of inputs, 0 or more.
        rate_post: Potentiation at spikes of neurons, 0 or more.
        trace_target: x_target: inputs whose trace is below it are depressed at a neuron's spike.
        tau_pre: Time constant of the traces of inputs, in ms.
        tau_post: Time constant of the traces of neurons, in ms.
        weight_max: The largest weight, in mV per spike.
        weight_sum: Sum of the weights of a neuron; None leaves the sums alone.
        normalise: When they are scaled. ``presentation``: after a presentation. ``update``: at each
            of the neuron's updates, and in fixed point with one rounding of both: growing and
            shrinking in two steps is rounded twice where on balance little changes, which at few
            bits is most of the noise.
        update: ``online``: weights change at every spike. ``deferred``: all changes of a
            presentation are added up and made at its end.
        parallel: Presentations that run side by side on the same weights. 1: one after the other.

    Raises:
        ValueError: A value outside what is listed here.
    """

    rate_pre: float = 0.0
    rate_post: float = 5e-3
    trace_target: float = 0.0
    tau_pre: float = 20.0
    tau_post: float = 20.0
    weight_max: float = 1.0
    weight_sum: float | None = 78.4
    normalise: str = "presentation"
    update: str = "online"
    parallel: int = 1

    def __post_init__(self) -> None:
        for name in ("rate_pre", "rate_post"):
            _check(self, name, lambda x: 0 <= x <= 1, "0 to 1")
        _check(self, "trace_target", lambda x: 0 <= x < 1, "0 to less than 1")
        for name in ("tau_pre", "tau_post"):
            _check(self, name, lambda x: x > 0, "more than 0 (ms)")
        _check(self, "weight_max", lambda x: x > 0, "more than 0 (mV)")
        if self.weight_sum is not None:
            _check(self, "weight_sum", lambda x: x > 0, "more than 0 (mV), or null")
        if self.update not in UPDATES:
            raise ValueError(f"STDP: update={self.update!r}: write one of {', '.join(UPDATES)}")
        if self.normalise not in NORMALISATIONS:
            choices = ", ".join(NORMALISATIONS)
            raise ValueError(f"STDP: normalise={self.normalise!r}: write one of {choices}")
        _check(self, "parallel", lambda x: x >= 1, "1 or more (presentations)")

    @property
    def joint(self) -> bool:
        """Whether weights are normalised at their updates."""
        return self.weight_sum is not None and self.normalise == "update"


def _check(owner: Any, name: str, fits: Callable[[Any], bool], wanted: str) -> None:
    value = getattr(owner, name)
    _check_finite(owner, name)
    if not fits(value):
        raise ValueError(f"{type(owner).__name__}: {name}={value!r}: write {wanted}")


def _check_finite(owner: Any, name: str) -> None:
    value = getattr(owner, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{type(owner).__name__}: {name}={value!r}: write a number")
