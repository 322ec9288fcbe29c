"""How weights change at spikes, without gradients.

Rates, the largest weight and gains are those of a neuron. `n` holds what all weights share:
``spare, fine, gain_down, trace_target, to``, see :mod:`qspinn.steps.lowering`.
"""

from __future__ import annotations

from typing import Any

from qspinn.steps.roundings import fitted, rounded
from qspinn.steps.words import clamped, down, larger, up


def depression(y: Any, rate: Any) -> Any:
    """Change of a weight at a spike of its input: ``-rate y``, y the trace of its neuron."""
    return -(rate * y)


def potentiation(x: Any, rate: Any, n: Any) -> Any:
    """Change of a weight at a spike of its neuron: ``rate (x - target)``, x the input's trace."""
    return rate * (x - n.trace_target)


def changed(w: Any, change: Any, random: Any, n: Any) -> Any:
    """``Q(w + change)``, not yet bounded; changes have ``spare`` bits more than weights."""
    return rounded(up(w, n.spare) + change, n.spare, n.to, random)


def fine(w: Any, change: Any, n: Any) -> Any:
    """``max(w + change, 0)`` with ``fine`` more bits than weights: what is normalised."""
    return larger(up(w, n.fine) + down(change, n.spare - n.fine), 0)


def scaled(p: Any, gain: Any, random: Any, n: Any) -> Any:
    """``Q(p gain)``, not yet bounded; the gain is the wanted sum over that of all p."""
    return rounded(p * gain, n.gain_down, n.to, random)


def bounded(w: Any, highest: Any, n: Any) -> Any:
    """A weight in ``[0, highest]``, and in the range of its format."""
    return fitted(clamped(w, 0, highest), n.to)
