"""One time step of traces: what a spike leaves behind for a while.

`n` holds the constants of a trace, see :mod:`qspinn.steps.lowering`.
"""

from __future__ import annotations

from typing import Any

from qspinn.steps.roundings import kept
from qspinn.steps.words import chosen, up


def decaying(x: Any, spike: Any, random: Any, n: Any) -> Any:
    """A trace that a spike sets to 1, and that decays otherwise: ``Q(x keep)``.

    Args:
        x: The trace.
        spike: Whether there is one.
        random: Draws of stochastic rounding.
        n: ``keep, down, one, to``.
    """
    return chosen(spike, n.one, kept(x * n.keep, n.down, n.to, random))


def following(x: Any, target: Any, random: Any, n: Any) -> Any:
    """A trace that moves towards what it follows: ``Q(x (1 - k) + target k)``.

    (Kaiser, Mostafa & Neftci, Frontiers in Neuroscience 14:424, 2020, with a gain of 1.)

    Args:
        x: The trace.
        target: What it follows.
        random: Draws of stochastic rounding.
        n: ``keep, gain, x_up, gain_up, down, to``; gain = k, keep = 1 - k.
    """
    exact = up(x * n.keep, n.x_up) + up(target * n.gain, n.gain_up)
    return kept(exact, n.down, n.to, random)


def refractory(r: Any, fired: Any, random: Any, n: Any) -> Any:
    """A trace to which spikes add: ``Q(r (1 - k) + fired gain)``.

    Args:
        r: The trace.
        fired: Spikes, 0 or 1.
        random: Draws of stochastic rounding.
        n: ``keep, gain, x_up, gain_up, down, to``; keep = 1 - k.
    """
    return following(r, fired, random, n)


def potential(current: Any, r: Any, random: Any, n: Any) -> Any:
    """The potential of a neuron without a memory of its own: ``Q(current - r)``.

    Args:
        current: Sum of weights times traces.
        r: Refractory trace.
        random: Draws of stochastic rounding.
        n: ``current_up, r_up, down, to``.
    """
    return kept(up(current, n.current_up) - up(r, n.r_up), n.down, n.to, random)


def filtered(trace: Any, x: Any, random: Any, n: Any) -> Any:
    """The trace of a synapse filter: ``Q(trace - (1 - x) k trace + x)``, k = 1 / tau.

    As ``SynapseFilter`` of SpikingJelly defines it.

    Args:
        trace: So far.
        x: Input, spikes as a rule.
        random: Draws of stochastic rounding.
        n: ``leak, one, trace_up, leak_up, x_up, down, to``; ``one`` is 1 on the grid of x.
    """
    decay = up((n.one - x) * trace * n.leak, n.leak_up)
    return kept(up(trace, n.trace_up) - decay + up(x, n.x_up), n.down, n.to, random)
