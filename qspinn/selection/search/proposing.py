"""Which mixture of precisions to measure next."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qspinn.selection.pareto import Point, pareto_front
from qspinn.selection.search.expected import expected_gain
from qspinn.selection.search.greedy import greedy_path
from qspinn.selection.search.kriging import Kriging
from qspinn.selection.search.significance import FLOAT_BITS, Significance

Lengths = tuple[int, ...]
"""Word lengths in the order of the groups, 32 for what is in 32-bit."""

MOST = 20_000
"""Mixtures that are all looked at; of more, those along the greedy path and around the front."""


@dataclass(frozen=True)
class Measured:
    """A network that was evaluated.

    Attributes:
        word_lengths: Of the groups; those that are missing were in 32-bit.
        bits: Its footprint.
        accuracy: In [0, 1].
    """

    word_lengths: Mapping[str, int]
    bits: int
    accuracy: float


def propose(
    found: Sequence[Significance],
    levels: Sequence[int],
    measured: Sequence[Measured],
    baseline: Measured,
    count: int = 1,
    without: Collection[Mapping[str, int]] = (),
) -> list[dict[str, int]]:
    """The mixtures that are expected to add most to the hypervolume of what was measured.

    Where several are asked for, each is chosen as if those before it had come out as predicted (the
    "kriging believer" of Ginsbourger, Le Riche & Carraro, Kriging is well-suited to parallelize
    optimization, 2010).

    Args:
        found: The significance of each group.
        levels: Word lengths to choose from.
        measured: Groups alone and mixtures, one or more.
        baseline: The 32-bit network.
        count: How many to propose; fewer where no more are left.
        without: More mixtures not to propose; none that was measured is.

    Returns:
        Mixtures, group name to word length.
    """
    names = [one.name for one in found]
    known = [_lengths(one.word_lengths, names) for one in measured]
    points = [(one.bits / baseline.bits, one.accuracy) for one in measured]
    looked_at = _mixtures(found, sorted(set(levels)), known, points)
    left = sorted(looked_at - {*known, *(_lengths(mixture, names) for mixture in without)})
    table = np.array(left).reshape(len(left), len(found))
    sizes = _bits(found, table, measured, baseline) / baseline.bits
    chosen: list[Lengths] = []
    while len(chosen) < min(count, len(left)):
        accuracies = np.array([accuracy for _, accuracy in points])
        model = Kriging(found, np.array(known), accuracies, baseline.accuracy)
        means, deviations = model.predict(table)
        # What a normal distribution does not know: none loses less than nothing, but for roughness.
        ceiling = max(baseline.accuracy, *accuracies.tolist()) + model.roughness
        gains = expected_gain(points, sizes, means, deviations, ceiling)
        gains[[left.index(lengths) for lengths in chosen]] = -np.inf
        best = int(np.argmax(gains))
        chosen.append(left[best])
        known.append(left[best])
        points.append((float(sizes[best]), float(means[best])))
    return [dict(zip(names, lengths, strict=True)) for lengths in chosen]


def _lengths(mixture: Mapping[str, int], names: Sequence[str]) -> Lengths:
    return tuple(mixture.get(name, FLOAT_BITS) for name in names)


def _mixtures(
    found: Sequence[Significance],
    levels: Sequence[int],
    known: Sequence[Lengths],
    points: Sequence[Point],
) -> set[Lengths]:
    """What to choose from: all mixtures, or of too many the likely ones.

    These are the greedy path, and what differs in one group from a mixture on the front.
    """
    if len(levels) ** len(found) <= MOST:
        return set(itertools.product(levels, repeat=len(found)))
    names = [one.name for one in found]
    mixtures = [_lengths(mixture, names) for mixture in greedy_path(found, levels)]
    places = [place for place, lengths in enumerate(known) if FLOAT_BITS not in lengths]
    for index in pareto_front([points[place] for place in places]):
        lengths = known[places[index]]
        mixtures += [
            (*lengths[:group], level, *lengths[group + 1 :])
            for group in range(len(found))
            for level in levels
        ]
    return set(mixtures)


def _bits(
    found: Sequence[Significance],
    table: NDArray[np.int64],
    measured: Sequence[Measured],
    baseline: Measured,
) -> NDArray[np.float64]:
    """Footprints ``[N]`` of mixtures ``[N, len(found)]``.

    Exact once any mixture was measured, since a footprint is a sum; until then, what belongs to no
    group is taken to be in 32-bit.
    """
    values = np.array([one.values for one in found])
    names = [one.name for one in found]
    nearest = next((one for one in measured if not set(names) - set(one.word_lengths)), baseline)
    rest = nearest.bits - values @ np.array(_lengths(nearest.word_lengths, names))
    footprints: NDArray[np.float64] = (rest + table @ values).astype(np.float64)
    return footprints
