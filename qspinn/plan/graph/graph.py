"""The graph of a network: what is computed in one time step of one sample, and what feeds what."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Graph", "Indices", "Operand", "Operation", "Readout", "Window"]

Indices = NDArray[np.int64]
Kind = Literal[
    "input",
    "synapse",
    "neuron",
    "declared",
    "state",
    "add",
    "multiply",
    "scale",
    "offset",
    "sum",
    "max",
    "gather",
]
Over = Literal["sum", "last", "each"]


class UnknownGraphError(ValueError):
    """A network does something that no operation of a graph says."""


@dataclass(frozen=True)
class Window:
    """What a pooling looks at; one entry per spatial axis.

    Attributes:
        size: Of the input.
        kernel: Sides of the window.
        stride: Steps of the window.
        padding: Zeros (of a sum) or nothing (of a maximum) on both sides.
    """

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    @property
    def output(self) -> tuple[int, ...]:
        """Sizes of the output."""
        axes = zip(self.size, self.kernel, self.stride, self.padding, strict=True)
        return tuple((size + 2 * pad - kernel) // step + 1 for size, kernel, step, pad in axes)

    def table(self, channels: int) -> Indices:
        """What each output looks at: ``[channels * outputs, window]``, -1 for padding."""
        places = np.arange(channels * math.prod(self.size)).reshape(channels, *self.size)
        edges = [(0, 0), *((pad, pad) for pad in self.padding)]
        padded = np.pad(places, edges, constant_values=-1)
        axes = tuple(range(1, padded.ndim))
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.kernel, axes)
        steps = tuple(slice(None, None, step) for step in self.stride)
        windows = windows[(slice(None), *steps)]
        return windows.reshape(channels * math.prod(self.output), math.prod(self.kernel))


@dataclass(frozen=True)
class Operand:
    """A value that an operation takes.

    Attributes:
        source: Number of the operation whose output it is.
        delay: 0 for this time step, 1 for the one before; zeros in the first one.
    """

    source: int
    delay: int = 0


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation of a time step, or one that is computed once for all steps.

    Attributes:
        kind: ``input`` (a frame, or an image that stays), ``synapse``, ``neuron`` and ``declared``
            (layers, by their path), ``state`` (what a neuron holds after its step), ``add``,
            ``multiply``, ``scale`` (by ``factor``), ``offset`` (adds ``factor``), ``sum`` and
            ``max`` (over a ``window`` or the rows of a ``table``), ``gather`` (elements of its
            operands, one after the other, by ``table``).
        operands: What it takes.
        shape: Of its output, of one sample.
        path: Of the layer; of an operation between layers, the module that does it.
        is_static: Whether it is computed once, from an image that stays.
        signs: Of the operands of ``add``.
        factor: Of ``scale`` and ``offset``.
        window: Of a pooling.
        table: Of ``sum`` and ``max``: ``[outputs, terms]``; of ``gather``: ``[outputs]``; -1 stands
            for zero in sums and gathers, for nothing in a maximum.
        taken: Of a layer: shape of what it takes, of one sample.
        rows: Of a linear layer that is applied to several vectors: how many.
    """

    kind: Kind
    operands: tuple[Operand, ...]
    shape: tuple[int, ...]
    path: str = ""
    is_static: bool = False
    signs: tuple[int, ...] = ()
    factor: Fraction = Fraction(1)
    window: Window | None = None
    table: Indices | None = field(default=None, repr=False)
    taken: tuple[int, ...] = ()
    rows: int = 1

    @property
    def size(self) -> int:
        """Values of its output."""
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class Readout:
    """What the network answers.

    Attributes:
        operand: The operation that is read.
        table: Elements whose sum is an answer: ``[answers, terms]``.
        over: ``sum`` over all time steps, the ``last`` one, or ``each`` one by itself.
        scale: What the network multiplies the sums by.
    """

    operand: int
    table: Indices = field(repr=False)
    over: Over
    scale: Fraction

    @property
    def answers(self) -> int:
        """How many there are."""
        return len(self.table)


@dataclass(frozen=True, eq=False)
class Graph:
    """A network as operations in order.

    Attributes:
        operations: In the order in which a time step computes them. The first is the input.
        readout: What comes out.
        steps: Time steps that were seen.
        frame: For each element of a frame (or of an image that stays), its place in a sample as the
            network takes it, in the first time step: ``[values]``.
        frame_stride: From there to the same element of the next step; 0 for an image that stays.
    """

    operations: tuple[Operation, ...]
    readout: Readout
    steps: int
    frame: Indices = field(repr=False)
    frame_stride: int

    def __iter__(self) -> Iterator[tuple[int, Operation]]:
        """Numbers and operations, in order."""
        return iter(enumerate(self.operations))

    def takers(self, number: int) -> tuple[int, ...]:
        """Numbers of the operations that take an operation's output."""
        return tuple(
            taker
            for taker, operation in self
            if any(operand.source == number for operand in operation.operands)
        )

    def __str__(self) -> str:
        """A line per operation."""
        lines = []
        for number, one in self:
            sources = ", ".join(f"%{o.source}" + ("[t-1]" if o.delay else "") for o in one.operands)
            shape = "x".join(map(str, one.shape))
            when = " once" if one.is_static else ""
            lines.append(f"%{number} = {one.kind} {one.path}({sources}): {shape}{when}")
        read = self.readout
        lines.append(f"answers: {read.answers}, {read.over} of %{read.operand} x {read.scale}")
        return "\n".join(lines)
