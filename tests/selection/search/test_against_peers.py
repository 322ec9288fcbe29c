"""Front, hypervolume and weights against brute force and a peer library."""

import itertools
import math

import moocore
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from qspinn.selection import choices, hypervolume, pareto_front

# Few values, so that there are ties and duplicates; and any.
few = st.tuples(st.sampled_from([0.1, 0.25, 0.5, 1.0, 1.5]), st.sampled_from([0.0, 0.5, 0.75, 1.0]))
any_point = st.tuples(st.floats(0, 1.25), st.floats(-0.25, 1))
fronts = st.lists(few, min_size=1, max_size=20) | st.lists(any_point, min_size=1, max_size=40)


@given(points=fronts)
def test_the_front_is_the_peers(points):
    to_minimise = np.array([(size, -accuracy) for size, accuracy in points])
    expected = moocore.is_nondominated(to_minimise, maximise=False, keep_weakly=True)
    assert pareto_front(points) == np.flatnonzero(expected).tolist()


@given(points=fronts, reference=st.sampled_from([(1.0, 0.0), (2.0, -1.0), (0.3, 0.6)]))
def test_the_hypervolume_is_the_peers(points, reference):
    to_minimise = np.array([(size, -accuracy) for size, accuracy in points])
    expected = moocore.hypervolume(to_minimise, ref=[reference[0], -reference[1]])
    assert hypervolume(points, reference) == pytest.approx(expected, rel=1e-12, abs=1e-15)


@given(points=fronts)
def test_the_hypervolume_counts_the_cells_of_a_grid_that_are_dominated(points):
    # On a grid of the points' own coordinates each cell is dominated as a whole or not at all.
    xs = sorted({0.0, 1.0, *(size for size, _ in points if 0 <= size <= 1)})
    ys = sorted({0.0, 1.0, *(accuracy for _, accuracy in points if 0 <= accuracy <= 1)})
    cells = (
        (x1 - x0) * (y1 - y0)
        for x0, x1 in itertools.pairwise(xs)
        for y0, y1 in itertools.pairwise(ys)
        if any(size <= x0 and accuracy >= y1 for size, accuracy in points)
    )
    assert hypervolume(points) == pytest.approx(math.fsum(cells), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("function", [pareto_front, hypervolume, choices])
def test_nan_is_refused(function):
    for point in [(math.nan, 0.5), (0.5, math.nan)]:
        with pytest.raises(ValueError, match="NaN cannot be compared"):
            function([(0.1, 0.2), point])


def test_one_point_and_none():
    assert hypervolume([(0.25, 0.8)]) == pytest.approx(0.75 * 0.8)
    assert hypervolume([]) == 0.0
    assert hypervolume([(1.0, 1.0), (0.5, 0.0)]) == 0.0


def worth(point, mu):
    return point[1] - mu * point[0]


@given(points=fronts)
def test_each_choice_is_worth_most_between_its_weights_and_only_there(points):
    found = choices(points)
    assert found[0].low == 0.0
    assert math.isinf(found[-1].high)
    for choice, following in itertools.pairwise(found):
        assert choice.high == following.low
        assert points[choice.index][0] > points[following.index][0]
    for choice in found:
        assume(choice.high - choice.low > 1e-9)
        middle = choice.low + 1.0 if math.isinf(choice.high) else (choice.low + choice.high) / 2
        best = max(worth(point, middle) for point in points)
        assert worth(points[choice.index], middle) == pytest.approx(best, abs=1e-12)


def test_where_the_choice_changes_by_hand():
    # From the largest: one point of accuracy for half of the memory, then nine for a quarter; the
    # third point lies below the line between its neighbours.
    points = [(1.0, 0.98), (0.5, 0.97), (0.4, 0.9), (0.25, 0.88), (0.6, 0.5), (0.5, 0.97)]
    found = choices(points)
    assert [choice.index for choice in found] == [0, 1, 3]
    assert [choice.high for choice in found] == pytest.approx([0.02, 0.36, math.inf])


def test_on_a_straight_line_the_ends_are_chosen():
    assert [c.index for c in choices([(0.25, 0.25), (0.5, 0.5), (0.75, 0.75)])] == [2, 0]
