"""How the spikes of a layer reach the sums of the next: runs of neighbouring weights.

The sums of a layer lie channel by channel for one place, then the next place. An input value is
added to them in runs: so many neighbouring sums, and as many neighbouring weights. A linear layer
has one run per input, all outputs. In a convolution, weights lie such that neighbouring outputs
along the last axis have neighbouring taps: with a stride of 2, every second tap comes first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from qspinn.export.model import Synapse
from qspinn.export.program import Instruction

__all__ = ["Scatter", "scatter_of"]

Numbers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Scatter:
    """A linear or convolutional layer as runs.

    Attributes:
        weight: The weights of an input channel, tap by tap: ``[in, taps * out / groups]``.
        position: Of each input: which list of runs it has.
        channel: Of each input: its row of `weight`.
        sums: Of each input: what to add to a run's place in the sums.
        starts: Where the list of a position begins in `runs`: ``[positions + 1]``.
        runs: ``[*, 3]``: first place in the sums, first place in a row of `weight`, length.
        channels: Neighbouring sums of one place.
    """

    weight: Numbers
    position: Numbers
    channel: Numbers
    sums: Numbers
    starts: Numbers
    runs: Numbers
    channels: int


def scatter_of(one: Instruction) -> Scatter:
    """The runs of a layer."""
    weight, what = one.weight, one.what
    assert weight is not None
    assert one.weight_up is not None
    shifted = weight << one.weight_up.reshape(-1, *(1,) * (weight.ndim - 1))
    if weight.ndim == 2:
        outputs, inputs = weight.shape
        rows = np.arange(one.operation.rows)
        return Scatter(
            np.ascontiguousarray(shifted.T),
            np.repeat(rows, inputs),
            np.tile(np.arange(inputs), len(rows)),
            np.zeros(len(rows) * inputs, np.int64),
            np.arange(len(rows) + 1),
            np.stack([rows * outputs, 0 * rows, 0 * rows + outputs], axis=1),
            outputs,
        )
    return _convolution(shifted, what, one.operation.taken)


def _convolution(weight: Numbers, what: Synapse, taken: tuple[int, ...]) -> Scatter:
    channels, size = taken[0], taken[1:]
    kernel, outputs = weight.shape[2:], len(weight)
    wide, width = outputs // what.groups, weight.shape[1]
    taps = _ordered_taps(kernel, what.stride[-1], what.dilation[-1])
    rows = weight.reshape(what.groups, wide, width, -1)[..., _flat(taps, kernel)]
    rows = rows.transpose(0, 2, 3, 1).reshape(channels, len(taps) * wide)
    pairs = _pairs(what, size, kernel, taps)
    starts, runs = _runs(*pairs, math.prod(size), outputs, wide)
    inputs = np.arange(channels * math.prod(size))
    channel = inputs // math.prod(size)
    group = channel // width
    return Scatter(
        np.ascontiguousarray(rows), inputs % math.prod(size), channel, group * wide, starts, runs,
        outputs,
    )  # fmt: skip


def _ordered_taps(kernel: tuple[int, ...], stride: int, dilation: int) -> Numbers:
    """All taps ``[taps, axes]``; neighbouring outputs along the last axis have neighbours."""
    apart = stride // math.gcd(stride, dilation)
    last = sorted(range(kernel[-1]), key=lambda tap: (tap % apart, -tap))
    return np.array(list(product(*(range(side) for side in kernel[:-1]), last)), np.int64)


def _flat(taps: Numbers, kernel: tuple[int, ...]) -> Numbers:
    return np.ravel_multi_index(tuple(taps.T), kernel)


def _pairs(
    what: Synapse, size: tuple[int, ...], kernel: tuple[int, ...], taps: Numbers
) -> tuple[Numbers, Numbers, Numbers]:
    """Of each input place with each tap that it meets: both, and the output place."""
    places = np.stack(np.unravel_index(np.arange(math.prod(size)), size), axis=1)
    before = np.array([pair[0] for pair in what.padding])
    both = np.array([sum(pair) for pair in what.padding])
    stride, dilation = np.array(what.stride), np.array(what.dilation)
    output = (np.array(size) + both - dilation * (np.array(kernel) - 1) - 1) // stride + 1
    moved = (places + before)[:, None] - dilation * taps[None]  # [places, taps, axes]
    reached = moved // stride
    meets = ((moved % stride == 0) & (reached >= 0) & (reached < output)).all(-1)
    place, tap = np.nonzero(meets)
    target = np.ravel_multi_index(tuple(reached[meets].T), tuple(int(one) for one in output))
    return place, tap, target


def _runs(
    place: Numbers, tap: Numbers, target: Numbers, places: int, outputs: int, wide: int
) -> tuple[Numbers, Numbers]:
    """Joins neighbours, where the channels of a place are not split into groups."""
    first = np.ones(len(place), bool)
    if outputs == wide:
        joined = (np.diff(place) == 0) & (np.diff(tap) == 1) & (np.diff(target) == 1)
        first[1:] = ~joined
    begins = np.flatnonzero(first)
    lengths = np.diff(np.append(begins, len(place))) * wide
    runs = np.stack([target[begins] * outputs, tap[begins] * wide, lengths], axis=1)
    starts = np.searchsorted(place[begins], np.arange(places + 1))
    return starts, runs
