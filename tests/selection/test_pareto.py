"""The Pareto front against the definition, point by point."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qspinn.selection import dominates, pareto_front

# Few different values, so that ties and duplicates abound; and all floats.
few = st.tuples(st.integers(1, 6), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
many = st.tuples(st.integers(1, 2**60), st.floats(0, 1))


def brute_force(points):
    """Indices that no point beats: better in one respect and not worse in the other."""
    front = []
    for index, (size, accuracy) in enumerate(points):
        beaten = any(
            (other_size < size and other_accuracy >= accuracy)
            or (other_size <= size and other_accuracy > accuracy)
            for other_size, other_accuracy in points
        )
        if not beaten:
            front.append(index)
    return front


@given(st.lists(few | many, max_size=40))
def test_it_is_what_the_definition_says(points):
    assert pareto_front(points) == brute_force(points)


@given(st.lists(few, min_size=1, max_size=20))
def test_equal_points_share_their_fate(points):
    front = set(pareto_front(points + points))
    assert {index for index in front if index < len(points)} == {
        index - len(points) for index in front if index >= len(points)
    }


@given(few | many, few | many)
def test_dominance_of_two(a, b):
    better_in_one = a[0] < b[0] or a[1] > b[1]
    worse_in_one = a[0] > b[0] or a[1] < b[1]
    assert dominates(a, b) == (better_in_one and not worse_in_one)
    assert not (dominates(a, b) and dominates(b, a))


def test_small_cases():
    assert pareto_front([]) == []
    assert pareto_front([(8, 0.9)]) == [0]
    assert pareto_front([(8, 0.9), (8, 0.9)]) == [0, 1]
    assert pareto_front([(8, 0.9), (4, 0.9), (4, 0.8)]) == [1]
    assert pareto_front([(8, 0.9), (4, 0.8), (6, 0.8), (2, 0.1)]) == [0, 1, 3]


def test_sizes_beyond_the_precision_of_a_float():
    assert pareto_front([(2**53 + 1, 0.9), (2**53, 0.9)]) == [1]


@pytest.mark.parametrize("point", [(math.nan, 0.5), (1, math.nan)])
def test_nan_is_refused(point):
    with pytest.raises(ValueError, match=r"point 1 is .*NaN cannot be compared"):
        pareto_front([(1, 0.5), point])
