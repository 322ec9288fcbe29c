"""The numbers that every engine computes with: in float32, or as integer codes.

Potentials are relative to the resting potential, which no bit is wasted on. What is computed is in
:mod:`qspinn.steps`: `adaptive_charge`, `adaptive_threshold`, `reaches`, `raised` and `decayed` of
its neurons, `decaying` of its traces, and its plasticity. In fixed point:

* rates have ``spare`` bits more than the weights, so that what is rounded is all but exact;
* weights are normalised by g = weight_sum / sum(p) to ``GAIN_BITS`` fraction bits, where p = w
  after a presentation, and p = max(w + dw, 0), dw to ``fine`` bits more than weights, at an update;
* theta_plus and exp(-T / theta_tau) have ``THETA_BITS`` more bits than theta.

Stochastic rounding draws ``u = (h + k phi) mod 1`` with a hash h and phi the golden ratio: each u
is uniform, so no rounding is biased, and those with one h are spread evenly (a Weyl sequence), so
that their errors largely cancel; and all but the first cost no hash. What h and k are of:

* a weight at its neuron's update: the synapse; how many updates went before;
* a weight at a spike of its input: presentation, step and neuron; the input;
* a potential: presentation and step; the neuron;
* a trace: presentation and input or neuron; the step;
* theta: presentation, step and neuron; k is 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from qspinn.steps.lowering import AdaptiveNumbers
from qspinn.steps.words import TRUNCATE, Rounding

GAIN_BITS = 24
THETA_BITS = 24
# A float32 holds codes of 24 bits exactly; what a plan leaves at 32 bits is computed with these.
WIDEST = 24
UNROUNDED = Rounding(TRUNCATE, 0, 0, False)
"""Of real numbers."""

# What purposes draw from, each from a stream of its own.
PURPOSES = 10
INPUT, MEMBRANE, TRACE_PRE, TRACE_POST, PRE, POST, THETA, NORM, THETA_DECAY, WINNER = range(
    PURPOSES
)
TRAINING, EVALUATION, LASTING = 16, 17, 18

Number = Any
"""A code (int), or a real number (float32)."""

NeuronNumbers = AdaptiveNumbers
"""Of the neurons."""


class NarrowNeuronNumbers(NamedTuple):
    """What a charge that fits 32 bits needs, see `kernel_memory.fits_int32`.

    With s for the shift of the current, c for that of the charge, and r for what rounding adds,
    less the leak:

        floor((current 2^s + r) / 2^c) = floor((current 2^up + floor(r / 2^fine)) / 2^coarse)

    where fine = min(s, c), coarse = c - fine, up = s - fine. It is added to the potential.
    """

    leak: np.int32  # of a code of the potential, on the grid of the exact sum
    add: np.int32  # what rounding adds there, where it does not draw
    drawn: int  # bits of the draw that it adds otherwise; 0: it does not draw
    up: np.int32  # see above
    fine: np.int32  # see above
    coarse: np.int32  # see above
    inhibition: int  # on the grid of the potential
    low: np.int32  # smallest code of the potential
    high: np.int32  # largest code of it
    wrap: bool  # see `Rounding`


class ThetaNumbers(NamedTuple):
    """Of theta."""

    plus: Number  # what it grows by; with `bits` more bits than theta
    keep: Number  # what is left of it after a presentation; with `bits` bits
    bits: int  # see above
    to: Rounding  # its rounding


class TraceNumbers(NamedTuple):
    """Of one kind of trace."""

    keep: Number  # 1 - leak; on the grid of the leak
    down: int  # from `x * keep` to the trace
    one: Number  # the trace at a spike
    to: Rounding  # its rounding


class WeightNumbers(NamedTuple):
    """Of the weights."""

    spare: int  # bits that changes have more than weights
    fine: int  # bits that weights have more than stored ones while they are normalised
    gain_down: int  # from normalised weights to stored ones
    trace_target: Number  # on the grid of the traces of inputs
    to: Rounding  # their rounding
    maximum: np.ndarray  # the largest weight that may be learned, `[neurons]`
    sum: np.ndarray  # what they are normalised to, `[neurons]`, with `gain_down` more bits; 0: not
    rate_pre: np.ndarray  # change per trace of a neuron, `[neurons]`
    rate_post: np.ndarray  # change per trace of an input, `[neurons]`


class Numbers(NamedTuple):
    """Of a network; codes are int64, real numbers float32."""

    neuron: NeuronNumbers
    theta: ThetaNumbers
    pre: TraceNumbers
    post: TraceNumbers
    weight: WeightNumbers

    @property
    def is_float(self) -> bool:
        """Whether these are real numbers."""
        return isinstance(self.neuron.keep, np.floating)
