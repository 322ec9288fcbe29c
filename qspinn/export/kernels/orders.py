"""In which order the elements of an operation lie in memory.

An order says of each place which element lies there; None: all lie as the device model numbers
them. The sums of a convolution lie channel by channel for each place, which is what scattering a
spike wants, and what follows keeps that order.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qspinn.export.model import (
    Arithmetic,
    Compare,
    DeviceOperation,
    Gather,
    Neuron,
    Pooling,
    Round,
    State,
    Total,
    Trace,
)
from qspinn.export.model import Synapse as SynapseLayer
from qspinn.export.program import Program

__all__ = ["Order", "element_places", "neighbours", "orders_of", "same"]

Order = NDArray[np.int64] | None
_ELEMENTWISE = Neuron | Round | Arithmetic | State | Trace | Compare | Total


def orders_of(program: Program) -> list[Order]:
    """The order of each operation."""
    found: list[Order] = []
    for number, one in enumerate(program.instructions):
        operation = one.operation
        sources = [o.source for o in operation.operands if o.source < number]
        before = found[sources[0]] if sources else None
        if isinstance(one.what, SynapseLayer):
            found.append(_channels_last(operation) if one.what.stride else None)
        elif isinstance(one.what, _ELEMENTWISE):
            fits = before is not None and len(before) == operation.size
            found.append(before if fits else None)
        elif isinstance(one.what, Pooling | Gather):
            found.append(None if before is None else _channels_last(operation))
        else:
            found.append(None)
    return found


def _channels_last(operation: DeviceOperation) -> Order:
    shape = operation.shape
    if len(shape) < 2 or shape[0] == 1 or math.prod(shape[1:]) == 1:
        return None
    return np.arange(operation.size).reshape(shape[0], -1).T.ravel()


def element_places(order: Order, size: int) -> NDArray[np.int64]:
    """The inverse: where each element lies."""
    if order is None:
        return np.arange(size)
    places = np.empty(size, np.int64)
    places[order] = np.arange(size)
    return places


def same(one: Order, other: Order) -> bool:
    """Whether two orders are the same."""
    if one is None or other is None:
        return one is other
    return one is other or np.array_equal(one, other)


def neighbours(table: NDArray[np.int64]) -> int:
    """How many rows of a table of places can be read as one: their places are next to each other.

    Args:
        table: ``[rows, terms]``, -1 for none.
    """
    after, before = table[1:], table[:-1]
    joined = (((after == before + 1) & (before >= 0)) | ((after < 0) & (before < 0))).all(-1)
    return math.gcd(len(table), *(int(place) + 1 for place in np.flatnonzero(~joined)))
