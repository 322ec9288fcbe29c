"""The numbers that every backend computes with: in float32, or as integer codes.

`FloatNumbers` and `FixedNumbers` hold the constants of a network as one backend after another needs
them, so that all compute the very same. Potentials are relative to the resting potential, which no
bit is wasted on.

In fixed point (w, v, theta, x, y are codes; f with an index counts fraction bits):

* charge: ``v <- Q_v(v (1 - leak) + current - inhibition)``, one rounding of the exact value;
* fire: ``v >= threshold + theta``, exact, on the finest of the three grids;
* traces: ``x <- Q_x(x (1 - leak_x))``, set to Q_x(1) at a spike;
* weights: ``w <- Q_w(w + dw)``, where dw is the product of a trace and a rate. Rates have
  ``spare`` bits more than the weights, so that what is rounded is all but exact;
* normalisation: ``w <- Q_w(p g)``, g = weight_sum / sum(p) to ``GAIN_BITS`` fraction bits, where
  p = w after a presentation, and p = max(w + dw, 0), dw to ``fine`` bits more than weights, at an
  update;
* theta: ``theta <- Q_theta(theta + theta_plus)`` and, after a presentation,
  ``theta <- Q_theta(theta exp(-T / theta_tau))``, both constants to ``THETA_BITS`` more bits.

Q rounds and then saturates or wraps, as the plan says of each tensor.

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

from typing import NamedTuple

import numpy as np

TRUNCATE, NEAREST, STOCHASTIC, TOWARD_ZERO, NEAREST_EVEN = range(5)
ROUNDING_MODES = {
    "truncate": TRUNCATE,
    "nearest": NEAREST,
    "stochastic": STOCHASTIC,
    "toward_zero": TOWARD_ZERO,
    "nearest_even": NEAREST_EVEN,
}
GAIN_BITS = 24
THETA_BITS = 24
# A float32 holds codes of 24 bits exactly; what a plan leaves at 32 bits is computed with these.
WIDEST = 24


class Rounding(NamedTuple):
    """How results of one tensor are rounded and brought into range.

    Attributes:
        mode: One of the modes above.
        low: Smallest code.
        high: Largest code.
        wrap: Whether codes outside wrap around, modulo ``high - low + 1``, instead of saturating.
    """

    mode: int
    low: int
    high: int
    wrap: bool


class FloatNumbers(NamedTuple):
    """Constants in float32; times are in steps."""

    keep: np.float32
    reset: np.float32
    threshold: np.float32
    inhibition: np.float32
    theta_plus: np.float32
    theta_keep: np.float32
    weight_max: np.float32
    weight_sum: np.float32  # 0: no normalisation
    rate_pre: np.float32
    rate_post: np.float32
    trace_target: np.float32
    keep_pre: np.float32
    keep_post: np.float32


class FixedNumbers(NamedTuple):
    """Constants as integers, and the shifts between grids.

    Attributes:
        keep: 2^f_leak - leak, on the grid of the leak.
        charge_shift: Bits that the sum of a charge has more than the membrane.
        potential_shift: From ``v * keep`` to the grid of that sum.
        current_shift: From weights to it, int64 ``[neurons]``.
        inhibition: On the grid of that sum.
        reset: On the membrane's grid.
        fire_shift: From the membrane to the grid of the comparison with the threshold.
        theta_shift: From theta to it.
        threshold: On it.
        theta_plus: With ``THETA_BITS`` more bits than theta.
        theta_keep: With ``THETA_BITS`` bits.
        spare: Bits that weight changes have more than weights.
        fine: Bits that weights have more than stored ones while they are normalised.
        weight_max: Largest code that a weight may learn, int64 ``[neurons]``.
        weight_sum: Sum of codes with ``fine + GAIN_BITS`` more bits, int64 ``[neurons]``; 0: none.
        rate_pre: Change of a weight per code of y, int64 ``[neurons]``.
        rate_post: Change of a weight per code of x, int64 ``[neurons]``.
        trace_target: On the grid of x.
        keep_pre: As ``keep``, of x.
        keep_post: Of y.
        leak_bits_pre: Fraction bits of the leak of x.
        leak_bits_post: Of the leak of y.
        one_pre: Code of x at a spike.
        one_post: Code of y at a spike.
        v: Rounding of the membrane.
        theta: Of theta.
        weight: Of the weights.
        pre: Of x.
        post: Of y.
    """

    keep: int
    charge_shift: int
    potential_shift: int
    current_shift: np.ndarray
    inhibition: int
    reset: int
    fire_shift: int
    theta_shift: int
    threshold: int
    theta_plus: int
    theta_keep: int
    spare: int
    fine: int
    weight_max: np.ndarray
    weight_sum: np.ndarray
    rate_pre: np.ndarray
    rate_post: np.ndarray
    trace_target: int
    keep_pre: int
    keep_post: int
    leak_bits_pre: int
    leak_bits_post: int
    one_pre: int
    one_post: int
    v: Rounding
    theta: Rounding
    weight: Rounding
    pre: Rounding
    post: Rounding


class ChargeCodes(NamedTuple):
    """What a charge needs of `FixedNumbers`: handing all of them on in each step takes time."""

    keep: int
    potential_shift: int
    current_shift: np.ndarray
    charge_shift: int
    inhibition: int
    v: Rounding


class NarrowChargeCodes(NamedTuple):
    """The same for a charge that fits 32 bits, see `kernel_memory.fits_int32`.

    With s for the shift of the current, c for that of the charge, and r for what rounding adds,
    less the leak:

        floor((current 2^s + r) / 2^c) = floor((current 2^up + floor(r / 2^fine)) / 2^coarse)

    where fine = min(s, c), coarse = c - fine, up = s - fine. It is added to the potential.

    Attributes:
        leak: Of a code of the potential, on the grid of the exact sum.
        add: What rounding adds there, where it does not draw.
        drawn: Bits of the draw that it adds otherwise; 0: it does not draw.
        up: See above.
        fine: See above.
        coarse: See above.
        inhibition: On the grid of the potential.
        low: Smallest code of the potential.
        high: Largest code of it.
        wrap: See `Rounding`.
    """

    leak: np.int32
    add: np.int32
    drawn: int
    up: np.int32
    fine: np.int32
    coarse: np.int32
    inhibition: int
    low: np.int32
    high: np.int32
    wrap: bool


Numbers = FloatNumbers | FixedNumbers
