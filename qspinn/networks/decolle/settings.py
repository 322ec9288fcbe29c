"""Constants of a DECOLLE layer, as plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spikingjelly.activation_based.surrogate import SurrogateFunctionBase

from qspinn.networks.checks import check, check_at_least, check_choice
from qspinn.networks.neuron_settings import SURROGATES


@dataclass(frozen=True)
class DecolleSettings:
    """Constants of the neurons and synapses of every layer, and of how they start.

    The model is that of Kaiser, Mostafa & Neftci, Frontiers in Neuroscience 14:424 (2020), as their
    public code has it (github.com/nmi-lab/decolle-public, ``decolle/base_model.py``, ``LIFLayer``).
    Potentials have no unit: only their ratio to the refractory drop and to the width of the
    surrogate counts.

    Args:
        tau_membrane: Time constant of the membrane traces P, ms. The authors' code, which learns
            from event cameras, has 32.8 here.
        tau_synapse: Of the synaptic traces Q, ms; there 12.
        tau_refractory: Of the refractory state R, ms.
        time_step: Length of one step, ms.
        refractory: What a spike adds to R, which lowers the potential; 0: no refractoriness.
        threshold: A neuron fires where its potential is at least this. The authors' code has 0
            here, since the biases learn.
        surrogate: Gradient of the step function: ``rectangle`` (the authors'), ``atan``,
            ``sigmoid`` or ``piecewise_quadratic``.
        surrogate_alpha: Its steepness. A rectangle has height alpha and width 1 / alpha.
        weight_gain: Weights start uniform with standard deviation ``weight_gain / sqrt(fan_in)``,
            biases at 0.
        readout_gain: Readout weights are uniform within ``readout_gain / sqrt(features)``.
        readout_dropout: While a layer learns, the share of its spikes that its readout does not
            see, drawn anew at each step; 0 to below 1. The next layer sees all of them, and so does
            the readout of a trained network. The authors' code has 0.5.

    Raises:
        ValueError: A value outside what is listed here.
    """

    tau_membrane: float = 4.0
    tau_synapse: float = 2.0
    tau_refractory: float = 2.32
    time_step: float = 1.0
    refractory: float = 1.0
    threshold: float = 0.0
    surrogate: str = "rectangle"
    surrogate_alpha: float = 1.0
    weight_gain: float = 3.0
    readout_gain: float = 1.0
    readout_dropout: float = 0.0

    def __post_init__(self) -> None:
        positive = ("tau_membrane", "tau_synapse", "tau_refractory", "time_step")
        for name in (*positive, "surrogate_alpha", "weight_gain", "readout_gain"):
            value = getattr(self, name)
            check(0 < value < math.inf, f"settings {name}", value, "a finite number above 0")
        drop, hidden, threshold = self.refractory, self.readout_dropout, self.threshold
        check(0 <= drop < math.inf, "settings refractory", drop, "0 or more")
        wanted = "0 or more, and less than 1"
        check(0 <= hidden < 1, "settings readout_dropout", hidden, wanted)
        check(math.isfinite(threshold), "settings threshold", threshold, "a finite number")
        check_choice("settings surrogate", self.surrogate, SURROGATES)

    def leak(self, tau: float) -> float:
        """The share of a state that is lost in one step, ``1 - exp(-time_step / tau)``."""
        return -math.expm1(-self.time_step / tau)

    @property
    def constants(self) -> dict[str, float]:
        """Name -> value of every single number that a device holds of a layer."""
        return {
            "threshold": self.threshold,
            "refractory": self.refractory,
            "leak_q": self.leak(self.tau_synapse),
            "leak_p": self.leak(self.tau_membrane),
            "leak_r": self.leak(self.tau_refractory),
        }

    @property
    def membrane_bound(self) -> float:
        """Potentials further from 0 than this need not be told apart.

        They fire or not whatever they are exactly, and the rectangle is 0 there.
        """
        return abs(self.threshold) + max(1.0, 1.0 / self.surrogate_alpha)

    def build_surrogate(self) -> SurrogateFunctionBase:
        """The step function with its surrogate gradient."""
        return SURROGATES[self.surrogate](alpha=float(self.surrogate_alpha))


@dataclass(frozen=True)
class LayerShape:
    """Sizes of one layer.

    Args:
        inputs: Shape of its input, ``(C, H, W)``; any shape where it is fully connected.
        outputs: Its channels, or neurons.
        kernel_size: Side of the odd square kernel; the border is padded by half of it. None:
            fully connected.
        stride: Step of the kernel.
        pool: Side of the squares over whose potentials the largest is taken; 1: no pooling.

    Raises:
        ValueError: Sizes that make no layer.
    """

    inputs: tuple[int, ...]
    outputs: int
    kernel_size: int | None = None
    stride: int = 1
    pool: int = 1

    def __post_init__(self) -> None:
        check_at_least(1, outputs=self.outputs, stride=self.stride, pool=self.pool)
        sizes = list(self.inputs)
        check(min(sizes, default=0) >= 1, "input_shape", sizes, "sizes of 1 or more")
        if self.kernel_size is None:
            return
        if len(self.inputs) != 3:
            raise ValueError(
                f"input_shape={list(self.inputs)}: a convolution takes [C, H, W]; write that, or "
                "channels=[] for a network that is fully connected"
            )
        is_odd = self.kernel_size >= 1 and self.kernel_size % 2 == 1
        check(is_odd, "kernel_sizes", self.kernel_size, "an odd number")
        if min(self.neurons[1:]) < self.pool:
            raise ValueError(
                f"pools={self.pool}: the layer is {self.neurons[1]}x{self.neurons[2]} before it; "
                "write a smaller pool, or fewer layers"
            )

    @property
    def traces(self) -> tuple[int, ...]:
        """Shape of the traces: one of each kind per input."""
        return self.inputs if self.kernel_size is not None else (math.prod(self.inputs),)

    @property
    def weight(self) -> tuple[int, ...]:
        """Shape of the weights."""
        if self.kernel_size is None:
            return (self.outputs, math.prod(self.inputs))
        return (self.outputs, self.inputs[0], self.kernel_size, self.kernel_size)

    @property
    def fan_in(self) -> int:
        """Inputs of a neuron."""
        return math.prod(self.weight[1:])

    @property
    def neurons(self) -> tuple[int, ...]:
        """Shape of potentials and refractory states."""
        if self.kernel_size is None:
            return (self.outputs,)
        return (self.outputs, *(-(-size // self.stride) for size in self.inputs[1:]))

    @property
    def spikes(self) -> tuple[int, ...]:
        """Shape of the output, after pooling."""
        if self.kernel_size is None:
            return (self.outputs,)
        return (self.outputs, *(size // self.pool for size in self.neurons[1:]))
