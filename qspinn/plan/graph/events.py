"""What a recorded forward pass consists of."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from qspinn.plan.graph.graph import Indices, Window

ZERO, UNKNOWN, NOTHING = 0, -1, -2
"""Identities of the number 0, of a constant, and of the padding of a maximum."""


@dataclass(eq=False)
class Event:
    """Something that was computed.

    Attributes:
        kind: Of the operation, see :class:`~qspinn.plan.graph.Operation`; ``unknown`` for one that
            no graph holds.
        path: Of the layer, or of the module that computes.
        operands: Identities of what it took: of a layer its input as it was given; else one row
            for each number that it made.
        shape: Of its output.
        first: The identity of its first number.
        is_multi: Whether the first axis of a neuron's input is the time.
        signs, factor, window: See :class:`~qspinn.plan.graph.Operation`.
        what: The operation, in words, for errors.
    """

    kind: str
    path: str
    operands: tuple[Indices, ...]
    shape: tuple[int, ...]
    first: int = 0
    is_multi: bool = False
    signs: tuple[int, ...] = ()
    factor: Fraction = Fraction(1)
    window: Window | None = None
    what: str = ""

    @property
    def size(self) -> int:
        """How many numbers it made."""
        return math.prod(self.shape)

    @property
    def identities(self) -> Indices:
        """Of the numbers that it made, in its shape."""
        return np.arange(self.first, self.first + self.size).reshape(self.shape)


@dataclass(eq=False)
class Recording:
    """What one forward pass computed.

    Attributes:
        events: In order; the first is the input.
        output: Identities of what came out.
    """

    events: list[Event] = field(default_factory=list)
    output: Indices = field(default_factory=lambda: np.empty(0, np.int64))
