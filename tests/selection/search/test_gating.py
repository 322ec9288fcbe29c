"""The rules of the gate: nothing is stopped that could have been chosen."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qspinn.selection.search.gating import GateRules, Standing

SHARES = st.integers(1, 31).map(lambda n: n / 32)
ACCURACIES = st.integers(0, 500).map(lambda n: n / 500)
GRIDS = st.lists(st.tuples(SHARES, ACCURACIES), min_size=1, max_size=12)


def area(points):
    """The hypervolume, as a sum over thin stripes between neighbouring accuracies."""
    levels = sorted({0.0, *(accuracy for _, accuracy in points)})
    stripes = []
    for low, high in pairwise(levels):
        size = min((share for share, accuracy in points if accuracy >= high), default=1.0)
        stripes.append((high - low) * (1 - size))
    return math.fsum(stripes)


def worth(point, mu):
    return point[1] - mu * point[0]


def evaluated(grid, rules, baseline=0.9, samples=500):
    """What a gate with these rules leaves of a grid, measured one after the other."""
    known = []
    for share, accuracy in grid:
        standing = Standing(rules, baseline, samples, tuple(known))
        if standing.adds_too_little(share, standing.ceiling) is None:
            reasons = standing.misses_target(accuracy), standing.dominated(share, accuracy)
            if reasons == (None, None):
                known.append((share, accuracy))
    return known


@given(GRIDS, st.sampled_from([0.0, 0.1, 0.5]), st.sampled_from([0.0, 0.005, 0.2]))
def test_the_best_of_a_grid_is_never_stopped(grid, mu, tolerance):
    rules = GateRules(mu=mu, tolerance=tolerance)
    ceiling = Standing(rules, 0.9, 500).ceiling
    grid = [(share, min(accuracy, ceiling)) for share, accuracy in grid]
    candidates = [point for point in grid if point[1] >= 0.89 - 1.5e-7]
    left = evaluated(grid, rules)
    assert set(left) <= set(candidates)
    if candidates:
        assert max(worth(point, mu) for point in left) == max(worth(one, mu) for one in candidates)


@given(GRIDS)
def test_without_tolerance_the_front_is_that_of_the_whole_grid(grid):
    rules = GateRules(tolerance=0.0, mu=0.0, max_drop=None)
    ceiling = Standing(rules, 0.9, 500).ceiling
    grid = [(share, min(accuracy, ceiling)) for share, accuracy in grid]
    assert area(evaluated(grid, rules)) == pytest.approx(area(grid), abs=1e-12)


@given(GRIDS, SHARES, ACCURACIES)
def test_what_is_too_little(grid, share, most):
    standing = Standing(GateRules(max_drop=None), 0.9, 500, tuple(grid))
    gain = area([*grid, (share, most)]) - area(grid)
    best = max(worth(point, 0.1) for point in grid)
    if abs(gain - 0.005 * area(grid)) < 1e-9 or abs(most - 0.1 * share - best) < 1e-9:
        return
    expected = gain < 0.005 * area(grid) and most - 0.1 * share < best
    assert (standing.adds_too_little(share, most) is not None) is expected


def test_one_that_is_smaller_than_all_others_is_evaluated():
    standing = Standing(GateRules(), 0.9, 500, ((0.5, 0.95),))
    assert standing.adds_too_little(0.4, standing.ceiling) is None
    assert "one that is no larger has 95.00%" in standing.adds_too_little(0.6, standing.ceiling)


def test_those_that_miss_the_target_are_no_front():
    standing = Standing(GateRules(), 0.9, 500, ((0.1, 0.88),))
    assert standing.front == ()
    assert standing.adds_too_little(0.9, 0.0) is None
    assert Standing(GateRules(max_drop=0.02), 0.9, 500, ((0.1, 0.88),)).front == ((0.1, 0.88),)


@pytest.mark.parametrize(
    ("baseline", "samples", "chance", "ceiling"),
    [(0.91, 900, 2, 0.93), (0.91, 900, 0, 0.91), (0.99, 100, 3, 1.0), (1.0, 100, 3, 1.0)],
)
def test_the_ceiling(baseline, samples, chance, ceiling):
    standing = Standing(GateRules(chance=chance), baseline, samples)
    assert standing.ceiling == pytest.approx(ceiling)


def test_the_target():
    standing = Standing(GateRules(max_drop=0.01), 0.9, 500)
    assert standing.misses_target(0.89) is None
    assert "reaches 88.80% at most, and 89.00% are needed" in standing.misses_target(0.888)
    assert Standing(GateRules(max_drop=None), 0.9, 500).misses_target(0.0) is None


def test_equals_do_not_dominate_each_other():
    standing = Standing(GateRules(), 0.9, 500, ((0.2, 0.9),))
    assert standing.dominated(0.2, 0.9) is None
    assert standing.dominated(0.1, 0.5) is None
    assert standing.dominated(0.2, 0.91) is None
    assert "one of 50% of its size 90.00%" in standing.dominated(0.4, 0.9)


@given(st.integers(1, 499), st.data())
def test_a_few_samples_say_no_less_than_is_possible(count, data):
    right = data.draw(st.integers(0, count))
    standing = Standing(GateRules(), 0.9, 500)
    most = standing.most_after(right / count, count)
    assert right / 500 <= most <= (right + 500 - count) / 500 + 1e-12


@pytest.mark.parametrize("share", [0.5, 0.8, 0.9, 0.98])
@pytest.mark.parametrize("count", [50, 100, 256])
def test_few_samples_are_wrong_as_seldom_as_said(share, count):
    """Exact shares of all draws from 500 answers, counted in whole numbers."""
    standing, right = Standing(GateRules(), 0.9, 500), round(500 * share)
    wrong = sum(
        math.comb(right, found) * math.comb(500 - right, count - found)
        for found in range(count + 1)
        if standing.most_after(found / count, count) < share
    )
    assert wrong / math.comb(500, count) < 0.001
    assert wrong > 0 or (share, count) == (0.98, 256)  # where 10 errors may all be seen at once


def test_all_samples_say_it_all():
    assert Standing(GateRules(), 0.9, 500).most_after(0.8, 500) == 0.8
    assert Standing(GateRules(), 0.9, 500).most_after(0.8, 900) == 0.8


def test_one_that_seldom_agrees():
    standing = Standing(GateRules(), 0.9, 500)
    assert standing.most_agreeing(0.5, 500) == pytest.approx(0.6)
    assert standing.most_agreeing(0.95, 500) == 1.0
    assert standing.most_agreeing(0.5, 64) > 0.6
    # Right where both are, and wherever the twin is wrong: there is no more.
    twin = [True] * 450 + [False] * 50
    answers = [i < 200 or i >= 450 for i in range(500)]
    agreement = sum(t and a for t, a in zip(twin, answers, strict=True)) / 500
    assert standing.most_agreeing(agreement, 500) == pytest.approx(sum(answers) / 500)


def test_a_training_falls_behind():
    standing = Standing(GateRules(behind=2), 0.9, 10_000)
    others = [(0.2, {0.5: 0.8, 1.0: 0.9}), (0.4, {0.5: 0.85}), (0.9, {0.5: 0.99})]
    assert standing.falls_behind(0.5, 0.5, 0.72, others) is None  # 0.28 against 2 x 0.15
    assert "one that is no larger had 85.00%" in standing.falls_behind(0.5, 0.5, 0.68, others)
    assert standing.falls_behind(0.3, 0.5, 0.68, others) is None  # 0.32 against 2 x 0.20
    assert standing.falls_behind(0.1, 0.5, 0.1, others) is None  # smaller than all of them
    assert standing.falls_behind(0.5, 0.25, 0.1, others) is None  # nobody was looked at there
    assert standing.falls_behind(0.5, 0.5, 0.68, others, 50) is None  # chance explains it


def test_a_training_will_miss_the_target():
    standing = Standing(GateRules(behind=2), 0.9, 10_000)
    twin = {0.5: 0.8, 1.0: 0.9}  # half of the errors go
    assert standing.will_miss_target(0.5, 0.6, twin) is None  # a quarter of 0.40 is 0.10
    assert "has to end with 89.00%" in standing.will_miss_target(0.5, 0.5, twin)
    assert standing.will_miss_target(1.0, 0.5, twin) is None
    assert standing.will_miss_target(0.25, 0.5, twin) is None
    assert standing.will_miss_target(0.5, 0.5, {0.5: 1.0}) is None
    # A twin that has become worse predicts no more errors than there are.
    assert standing.will_miss_target(0.5, 0.88, {0.5: 0.95, 1.0: 0.9}) is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("max_drop", 2, r"max_drop=2 is not a number in \[-1, 1\]"),
        ("tolerance", -0.1, "tolerance=-0.1 .* 0.005 for half a percent"),
        ("tolerance", None, "tolerance=None is not a number"),
        ("chance", math.nan, "chance=nan is not a number of at least 0"),
        ("chance", math.inf, "chance=inf is not a number"),
        ("mu", True, "mu=True is not a number"),
        ("mu", "0.1", "mu='0.1' is not a number"),
        ("behind", 0.5, "behind=0.5 is not a number of at least 1"),
    ],
)
def test_rules_that_cannot_be(name, value, said):
    with pytest.raises(ValueError, match=said):
        GateRules(**{name: value})
