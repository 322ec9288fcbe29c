"""Of how many bits the memory of a sample must be."""

from __future__ import annotations

from typing import Any

import numpy as np

from qspinn.export.model import (
    AdaptiveNeuron,
    Arithmetic,
    Gather,
    LabelSums,
    Neuron,
    Pooling,
    Synapse,
    Total,
)
from qspinn.export.program import Program

__all__ = ["is_narrow"]

INT32 = 32


def is_narrow(program: Program) -> bool:
    """Whether all results and states are numbers of 32 bits; steps are computed in 64."""
    for one in program.instructions:
        if isinstance(one.what, Synapse | Pooling | Arithmetic | Gather | Total | LabelSums):
            if one.word_length > INT32:
                return False
            continue
        numbers = [one.low, one.high]
        if isinstance(one.what, Neuron | AdaptiveNeuron):
            numbers += [one.what.state.code_min, one.what.state.code_max, one.reset or 0]
            numbers.append(getattr(one.what, "initial", 0))
            thresholds = 0 if one.threshold is None else one.threshold
            leaks: Any = getattr(one.numbers, "leak", 0)
            for constants in (thresholds, leaks):
                numbers += [int(np.min(constants)), int(np.max(constants))]
        if min(numbers) < -(1 << 31) or max(numbers) >= 1 << 31:
            return False
    return True
