"""A program: the integer constants of each operation of a device model, grids and ranges.

The value of a code is ``code * 2^-fraction_bits`` of its operation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from qspinn.export.model import Codes, DeviceModel, DeviceOperation, Gather, Pooling, Synapse
from qspinn.steps.lowering import (
    AdaptiveNumbers,
    FilterNumbers,
    FollowingNumbers,
    LeakyNumbers,
)
from qspinn.steps.random_spikes import SpikeNumbers
from qspinn.steps.words import Rounding

__all__ = ["LONGEST", "Instruction", "Program", "places_of", "word_length_of"]

LONGEST = 62
"""Bits, sign excluded, that no sum may need: what an int64 holds with room for a rounding."""


Numbers = LeakyNumbers | FilterNumbers | FollowingNumbers | AdaptiveNumbers | SpikeNumbers


@dataclass(frozen=True, eq=False)
class Instruction:
    """An operation with its integer constants.

    Attributes:
        operation: The operation.
        fraction_bits: Of its output.
        low: No output is smaller.
        high: No output is larger.
        ups: How far each operand is shifted up to the common grid.
        weight: Of synapses: ``[out, in]`` or ``[out, in / groups, *kernel]``; labels of sums.
        weight_up: Shift of each output channel's sum: ``[out]``.
        bias: On the grid of the output: ``[out]``.
        numbers: Of neurons and traces, see :mod:`qspinn.steps.lowering`; of random spikes.
        threshold: On the grid of the state, for each neuron or for all; of adaptive neurons and
            comparisons on the grid that the operand is shifted up to.
        reset: Code after a spike; None: the threshold is subtracted.
        to: Of roundings.
        down: Fraction bits that a rounding takes away; negative: how many it adds.
        factor: Of a scale, as a whole number; of an offset, on the grid of the output.
        word_length: What the largest intermediate result needs, sign included.
    """

    operation: DeviceOperation
    fraction_bits: int
    low: int
    high: int
    ups: tuple[int, ...] = ()
    weight: Codes | None = None
    weight_up: Codes | None = None
    bias: Codes | None = None
    numbers: Numbers | None = None
    threshold: Any = None
    reset: int | None = None
    to: Rounding | None = None
    down: int = 0
    factor: int = 1
    word_length: int = 1

    @property
    def what(self) -> Any:
        """What the operation does."""
        return self.operation.what


@dataclass(frozen=True, eq=False)
class Program:
    """A device model, lowered.

    Attributes:
        model: The model.
        instructions: One for each operation.
    """

    model: DeviceModel
    instructions: tuple[Instruction, ...]

    @property
    def accumulators(self) -> dict[str, int]:
        """Layer -> word length of its sums, sign included."""
        return {
            one.operation.path: one.word_length
            for one in self.instructions
            if isinstance(one.what, Synapse)
        }


def places_of(model: DeviceModel, operation: DeviceOperation) -> Codes:
    """What each output of a pooling ``[outputs, terms]`` or a gather ``[outputs]`` looks at.

    Places in the operands, one operand after the other; -1: none.
    """
    what = operation.what
    assert isinstance(what, Pooling | Gather)
    if isinstance(what, Pooling) and what.window is not None:
        return what.window.table(operation.size // math.prod(what.window.output))
    assert what.table is not None
    return model.table(what.table)


def word_length_of(*bounds: int) -> int:
    """The word length, sign included, that holds all of these."""
    return 1 + max(max(bound, -bound - 1).bit_length() for bound in bounds)
