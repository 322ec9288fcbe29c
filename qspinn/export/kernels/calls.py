"""A call of a kernel: one record of whole numbers, the same for all kinds."""

from __future__ import annotations

import numpy as np

__all__ = ["CALL", "COMBINE", "INPUT", "LARGEST", "NEURON", "PRODUCT", "ROUND", "SUM", "SYNAPSE"]
__all__ += ["COUNTED", "FILTERED", "FIRES", "INTEGRATE", "LEAK", "LEAK_ONLY", "SILENT"]

INPUT, SYNAPSE, NEURON, ROUND, COMBINE, PRODUCT, SUM, LARGEST = range(8)
"""Kinds of kernels."""
INTEGRATE, LEAK, LEAK_ONLY, FILTERED = range(4)
"""Kinds of steps of a neuron."""
SILENT, FIRES, COUNTED = range(3)
"""What a neuron gives: its state, a spike, or a number of spikes."""

# Places in the memory of a sample.
_MEMORY = ("out", "x", "y", "state")
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

CALL = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("kind", "operation", "once", "checks"),
            *_MEMORY,
            *_CONSTANTS,
            *_TABLES,
            *_SIZES,
            *_NUMBERS,
            *_ROUNDING,
            *_NEURON,
            *_SYNAPSE,
            *_COMBINATION,
        )
    ]
)
"""Fields:

* ``kind``, ``operation`` (its number), ``once`` (whether it is static), ``checks`` (whether results
  are counted that an accumulator could not hold);
* memory: ``out``, ``x`` and ``y`` (operands), ``state``;
* constants: ``bias`` ``[channels]``, ``none`` (weights of an input that is missing, all 0),
  ``threshold`` and ``leak`` ``[size]``;
* tables: ``order`` ``[size]`` (of each place, which element of the operation it holds), ``slots``
  and ``starts`` of synapses, see :mod:`qspinn.export.kernels.scatter`, ``table``
  ``[size / block, terms]`` of sums and maxima;
* ``size`` of the output, ``inputs`` of a synapse, ``channels`` of its output, which lie next to
  each other, ``block`` neighbours that a row of ``table`` stands for;
* shifts and constants as in :mod:`qspinn.steps.lowering` (``other_up``: of the rest or the leak),
  ``up`` of a rounding's operand;
* ``mode, low, high, wrap``: a `Rounding`;
* ``step``, ``gives``, ``soft`` (whether the threshold is subtracted), ``reset``, ``most``;
* ``binary``: whether a synapse's inputs are 0 or 1;
* ``offset + factor * x``, which ``adds`` to what is there already or does not.
"""
