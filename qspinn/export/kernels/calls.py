"""A call of a kernel: one record of whole numbers, the same for all kinds; lists of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qspinn.export.kernels.pools import Numbers

__all__ = ["CALL", "COMBINE", "INPUT", "LARGEST", "NEURON", "PRODUCT", "ROUND", "SUM", "SYNAPSE"]
__all__ += ["COUNTED", "FILTERED", "FIRES", "INTEGRATE", "LEAK", "LEAK_ONLY", "SILENT"]
__all__ += ["ADAPTIVE", "COMPARE", "DRAWN", "PLASTIC", "TRACE", "Listing"]

INPUT, SYNAPSE, NEURON, ROUND, COMBINE, PRODUCT, SUM, LARGEST = range(8)
"""Kinds of kernels."""
TRACE, COMPARE, ADAPTIVE, DRAWN = PLASTIC = tuple(range(LARGEST + 1, LARGEST + 5))
"""More of them, see :mod:`qspinn.export.kernels.plastic_kernels`."""
INTEGRATE, LEAK, LEAK_ONLY, FILTERED = range(4)
"""Kinds of steps of a neuron."""
SILENT, FIRES, COUNTED = range(3)
"""What a neuron gives: its state, a spike, or a number of spikes."""

# Places in the memory of a sample.
_MEMORY = ("out", "x", "y", "state", "waiting")
# Places in the array of constants; -1 for none.
_CONSTANTS = ("bias", "none", "threshold", "leak")
# Places in the array of tables; -1 for none.
_TABLES = ("order", "slots", "starts", "table")
_SIZES = ("size", "inputs", "channels", "terms", "block")
_NUMBERS = ("rest", "one", "v_up", "x_up", "other_up", "down", "up")
_ROUNDING = ("mode", "low", "high", "wrap")
_NEURON = ("step", "gives", "soft", "reset", "most")
_SYNAPSE = ("binary",)
_COMBINATION = ("adds", "offset", "factor")
_TRACE = ("keep", "gain")
_COMPARE = ("least",)
_ADAPTIVE = ("inhibition", "refractory", "delay", "one_winner", "winners")
_DRAWN = ("key", "stream", "shown", "words")

CALL = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("kind", "operation", "once", "final", "begins", "checks"),
            *_MEMORY,
            *_CONSTANTS,
            *_TABLES,
            *_SIZES,
            *_NUMBERS,
            *_ROUNDING,
            *_NEURON,
            *_SYNAPSE,
            *_COMBINATION,
            *_TRACE,
            *_COMPARE,
            *_ADAPTIVE,
            *_DRAWN,
        )
    ]
)
"""Fields:

* ``kind``, ``operation`` (its number), ``once`` (whether it is static), ``final`` (whether it is
  computed after the last step alone), ``begins`` (the first step in which it is computed),
  ``checks`` (whether results are counted that an accumulator could not hold);
* memory: ``out``, ``x`` and ``y`` (operands), ``state``, ``waiting`` (refractory steps left
  ``[size]``, then the spikes of the last ``delay`` steps, each ``[size]``);
* constants: ``bias`` ``[channels]``, ``none`` (weights of an input that is missing, all 0),
  ``threshold`` and ``leak`` ``[size]``;
* tables: ``order`` ``[size]`` (of each place, which element of the operation it holds), ``slots``
  and ``starts`` of synapses, see :mod:`qspinn.export.kernels.scatter`, ``table``
  ``[size / block, terms]`` of sums and maxima;
* ``size`` of the output, ``inputs`` of a synapse, ``channels`` of its output, which lie next to
  each other, ``block`` neighbours that a row of ``table`` stands for;
* shifts and constants as in :mod:`qspinn.steps.lowering` (``other_up``: of the rest or the leak),
  ``up`` of a rounding's operand, and of what is compared with a threshold;
* ``mode, low, high, wrap``: a `Rounding`;
* ``step``, ``gives``, ``soft`` (whether the threshold is subtracted), ``reset``, ``most``;
* ``binary``: whether a synapse's inputs are 0 or 1;
* ``offset + factor * x``, which ``adds`` to what is there already or does not;
* ``keep``, ``gain``: of a trace; ``keep`` also of an adaptive neuron;
* ``least``: what an operand is compared with;
* ``inhibition``, ``refractory`` and ``delay`` (steps), ``one_winner``, ``winners`` (number of the
  stream that these are drawn from): of adaptive neurons;
* ``key`` of all presentations, ``factor`` of a code, ``stream``: of random spikes; ``shown``: place
  in the keys of what is shown, -1 for none; ``words``: place of the first input in each row of
  words.
"""


@dataclass(frozen=True, eq=False)
class Listing:
    """A program as calls of kernels.

    Attributes:
        calls: In order, of dtype `CALL`.
        start: What the memory of a sample begins with, where it must be set: states, and what was
            computed in the step before.
        memory: Values of the memory of a sample.
        constants: Weights, biases, thresholds, leaks.
        tables: int32: places.
        answers: Places in the memory whose sum is an answer: ``[answers, terms]``.
        most_inputs: Of a synapse layer.
        shown: Operations that draw random spikes.
        drawn: Inputs of all of them.
        has_plastic: Whether some call is of a kind of `PLASTIC`.
        dtype: int32 where all results fit, else int64.
    """

    calls: NDArray[Any]
    start: NDArray[Any]
    memory: int
    constants: NDArray[Any]
    tables: NDArray[np.int32]
    answers: Numbers
    most_inputs: int
    shown: int
    drawn: int
    has_plastic: bool
    dtype: type[np.int32] | type[np.int64]
