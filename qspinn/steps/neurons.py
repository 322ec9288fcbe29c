"""One time step of neurons: charge, fire, reset.

`n` holds the constants of a layer, and the shifts between grids that codes need, see
:mod:`qspinn.steps.lowering`. In real numbers shifts are not looked at.
"""

from __future__ import annotations

from typing import Any

from qspinn.steps.roundings import kept
from qspinn.steps.words import chosen, clamped, larger, top_bits, up, whole_quotient


def integrate(v: Any, x: Any, random: Any, n: Any) -> Any:
    """IF: ``Q(v + x)``.

    Args:
        v: Potential.
        x: Input current.
        random: Draws of stochastic rounding.
        n: ``v_up, x_up, down, v``.
    """
    return kept(up(v, n.v_up) + up(x, n.x_up), n.down, n.v, random)


def leak(v: Any, x: Any, random: Any, n: Any) -> Any:
    """LIF, the current decays too: ``Q(v + k (x - (v - rest)))``, k = 1 / tau.

    As ``LIFNode(decay_input=True)`` of SpikingJelly defines it.

    Args:
        v: Potential.
        x: Input current.
        random: Draws of stochastic rounding.
        n: ``leak, rest, v_up, x_up, rest_up, down, v``.
    """
    above = v - n.rest if n.rest else v
    exact = up(v, n.v_up) + n.leak * (up(x, n.x_up) - up(above, n.rest_up))
    return kept(exact, n.down, n.v, random)


def leak_only(v: Any, x: Any, random: Any, n: Any) -> Any:
    """LIF, the current does not decay: ``Q(v + x - k (v - rest))``.

    As ``LIFNode(decay_input=False)`` of SpikingJelly defines it; see `leak`.
    """
    above = v - n.rest if n.rest else v
    exact = up(v, n.v_up) + up(x, n.x_up) - up(n.leak * above, n.rest_up)
    return kept(exact, n.down, n.v, random)


def counted(h: Any, threshold: Any, most: Any) -> Any:
    """How many thresholds a potential holds: ``round(h / threshold)`` in [0, most], halves to even.

    (I-LIF: Luo et al., ECCV 2024, arXiv 2407.20708.)

    Args:
        h: Potential.
        threshold: Above 0, on the grid of the potential.
        most: The largest count.
    """
    doubled = h + h + threshold
    count = whole_quotient(doubled, threshold + threshold)
    tied = doubled == count * (threshold + threshold)
    odd = count - whole_quotient(count, 2) * 2 == 1
    return clamped(chosen(tied & odd, count - 1, count), 0, most)


def reset_to(h: Any, spike: Any, reset: Any) -> Any:
    """Hard reset: `reset` after a spike, else the potential."""
    return chosen(spike, reset, h)


def reset_by(h: Any, spike: Any, threshold: Any) -> Any:
    """Soft reset: the threshold less after a spike.

    It stays on the grid and in its range where the threshold is not negative.
    """
    return h - spike * threshold


def adaptive_charge(
    v: Any, current: Any, lowered: Any, ready: Any, current_up: Any, random: Any, n: Any
) -> Any:
    """Charge of a neuron with an adaptive threshold: ``Q(v keep + current - lowered)``.

    (Diehl & Cook, Frontiers in Computational Neuroscience 9:99, 2015, in the discrete form of
    BindsNET's ``DiehlAndCookNodes``.)

    Args:
        v: Potential above rest.
        current: Sum of the weights of the inputs that spike.
        lowered: Inhibition by other neurons, on the grid of the exact sum.
        ready: Whether the neuron is not refractory; else only its leak counts.
        current_up: From the grid of weights to that of the exact sum.
        random: Draws of stochastic rounding.
        n: ``keep, v_up, down, v``.
    """
    drive = up(current, current_up) - lowered
    exact = up(v * n.keep, n.v_up) + chosen(ready, drive, 0)
    return kept(exact, n.down, n.v, random)


def adaptive_threshold(theta: Any, n: Any) -> Any:
    """What a potential must reach: ``threshold + theta``, on the finest of three grids."""
    return n.threshold + up(theta, n.theta_up)


def reaches(v: Any, total: Any, n: Any) -> Any:
    """Whether a neuron fires: ``v >= total``."""
    return up(v, n.fire_up) >= total


def counted_down(refractory: Any, fired: Any, steps: Any) -> Any:
    """Steps that a neuron stays refractory: `steps` after it has fired, then one less each time."""
    return chosen(fired, steps, larger(refractory - 1, 0))


def drawn_rank(random: Any, count: Any) -> Any:
    """Which of `count` neurons spikes, where only one may: 0 to ``count - 1``, all as likely.

    Args:
        random: 64 bits, of which the highest 32 decide.
        count: Less than 2^31.
    """
    return (top_bits(random, 32) * count) >> 32


def raised(theta: Any, random: Any, n: Any) -> Any:
    """Theta of a neuron that reached its threshold: ``Q(theta + plus)``."""
    return kept(up(theta, n.bits) + n.plus, n.bits, n.to, random)


def decayed(theta: Any, random: Any, n: Any) -> Any:
    """Theta after a presentation: ``Q(theta keep)``."""
    return kept(theta * n.keep, n.bits, n.to, random)
