"""Significance and the greedy path, against numbers worked out by hand."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qspinn.selection import SweepPoint, greedy_path, significance
from qspinn.selection.search.significance import Significance

BASELINE = 0.9
VALUES = {"weight": 90, "theta": 10}


@pytest.fixture
def swept(make_record):
    """Return a function that makes the record of one role alone at one word length."""

    def make(role, word_length, accuracy, paths=None, **more):
        values = VALUES[role]
        paths = paths or [f"network.{role}"]
        saved = values * (32 - word_length)
        return make_record(
            bits=3200 - saved,
            baseline_bits=3200,
            accuracy=accuracy,
            **{"baseline_accuracy": BASELINE, **more},
            word_lengths={role: word_length},
            formats={
                path: {
                    "role": role,
                    "format": f"Q0.{word_length - 1}",
                    "rounding": "nearest",
                    "overflow": "saturate",
                }
                for path in paths
            },
        )

    return make


def test_a_role_in_fixed_point_of_32_bits_saves_nothing_and_counts(swept):
    (weight,), _ = significance([swept("weight", 32, 0.9), swept("weight", 4, 0.8)])
    assert (weight.values, [point.word_length for point in weight.points]) == (90, [4, 32])
    alone = swept("weight", 32, 0.9)
    (weight,), _ = significance([alone])
    assert weight.values == 3200 // 32


def test_the_table_is_what_was_measured(swept):
    records = [
        swept("weight", 2, 0.5),
        swept("weight", 4, 0.895),
        swept("weight", 8, 0.9),
        swept("theta", 2, 0.88),
        swept("theta", 4, 0.9, seed=0),
        swept("theta", 4, 0.88, seed=1),
        swept("theta", 8, 0.91),
    ]
    (weight, theta), left_out = significance(records, max_drop=0.01)
    assert left_out == 0
    assert (weight.name, weight.values, weight.smallest) == ("weight", 90, 4)
    assert (theta.name, theta.values, theta.smallest) == ("theta", 10, 4)
    assert [point.word_length for point in theta.points] == [2, 4, 8]
    mean = theta.points[1]
    assert (mean.runs, mean.accuracy) == (2, pytest.approx(0.89))
    assert mean.deviation == pytest.approx(0.02 / 2**0.5)
    assert mean.drop == pytest.approx(0.01)
    assert theta.points[2].drop == pytest.approx(-0.01)


def test_the_smallest_holds_together_with_every_longer_one(swept):
    """A short word length that was lucky does not count below one that misses the target."""
    records = [swept("weight", n, a) for n, a in ((2, 0.9), (3, 0.7), (4, 0.9), (8, 0.89))]
    ((found,), _) = significance(records, max_drop=0.01)
    assert found.smallest == 4
    ((missed,), _) = significance(records, max_drop=0.005)
    assert missed.smallest is None


def test_tensors_of_one_role_are_told_from_the_role(swept):
    records = [
        swept("weight", 4, 0.9, ["a.weight", "b.weight"]),
        swept("weight", 4, 0.8, ["b.weight"]),
    ]
    found, _ = significance(records)
    assert [one.name for one in found] == ["weight of b.weight", "weight"]
    assert found[0].paths == ("b.weight",)


def test_runs_that_are_no_sweep_of_one_role_are_counted(swept, make_record):
    mixed = make_record(word_lengths={"weight": [4, 8]}, formats=swept("weight", 4, 0.9).formats)
    found, left_out = significance([swept("weight", 4, 0.9), make_record(), mixed])
    assert (len(found), left_out) == (1, 2)
    with pytest.raises(ValueError, match=r"none of 1 runs.*experiment=significance"):
        significance([make_record()])
    with pytest.raises(ValueError, match="no baseline_accuracy"):
        significance([swept("weight", 4, 0.9, baseline_accuracy=None)])


def one(name, values, drops):
    points = tuple(SweepPoint(n, BASELINE - d, 0.0, d, 1) for n, d in sorted(drops.items()))
    return Significance(name, name, (name,), values, points, None)


def test_drops_between_and_beyond_what_was_measured():
    found = one("weight", 9, {2: 0.4, 4: 0.1, 8: -0.1})
    wanted = {1: 0.4, 2: 0.4, 3: 0.25, 4: 0.1, 6: 0.0, 8: 0.0, 9: 0.0}
    for word_length, drop in wanted.items():
        assert found.drop(word_length) == pytest.approx(drop)


def test_the_path_takes_the_cheapest_step_by_hand():
    found = [
        one("weight", 90, {2: 0.9, 4: 0.09, 8: 0.0}),
        one("theta", 10, {2: 0.001, 4: 0.0, 8: 0.0}),
    ]
    # theta to 4 costs nothing; theta to 2 costs 0.001 for 20 bits, 0.00005 a bit; weight to 4 costs
    # 0.09 for 360 bits, 0.00025 a bit; weight to 2 costs 0.81 for 180 bits.
    assert greedy_path(found, [2, 4, 8]) == [
        {"weight": 8, "theta": 8},
        {"weight": 8, "theta": 4},
        {"weight": 8, "theta": 2},
        {"weight": 4, "theta": 2},
        {"weight": 2, "theta": 2},
    ]


@given(
    st.lists(
        st.tuples(st.integers(1, 1000), st.lists(st.floats(0, 1), min_size=3, max_size=3)),
        min_size=1,
        max_size=3,
    )
)
def test_where_losses_are_convex_no_mixture_beats_the_path(groups):
    """Losses that grow ever faster: then every point of the path is optimal for its footprint."""
    found = []
    for index, (values, growth) in enumerate(groups):
        steps = sorted(growth)
        losses = [0.0, steps[0], steps[0] + steps[1], sum(steps)]
        found.append(one(f"r{index}", values, dict(zip((5, 4, 3, 2), losses, strict=True))))
    path = greedy_path(found, [2, 3, 4, 5])
    assert len(path) == 3 * len(found) + 1

    def size(mixture):
        return sum(item.values * mixture[item.name] for item in found)

    def drop(mixture):
        return sum(item.drop(mixture[item.name]) for item in found)

    names = [item.name for item in found]
    for lengths in itertools.product([2, 3, 4, 5], repeat=len(names)):
        mixture = dict(zip(names, lengths, strict=True))
        for point in path:
            better = drop(mixture) < drop(point) - 1e-9
            assert not (better and size(mixture) <= size(point))
