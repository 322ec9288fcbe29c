"""The guided search, on functions whose best mixtures are known."""

import itertools
import sys

import pytest

from qspinn.app.errors import ConfigurationError
from qspinn.app.explore.searching import Searched, bayesian, gp, greedy, nsga2
from qspinn.selection import SweepPoint, dominates, hypervolume
from qspinn.selection.search.proposing import Measured
from qspinn.selection.search.significance import Significance

LEVELS = range(2, 9)
NAMES = ("weight", "theta", "decay")
VALUES = {"weight": 80, "theta": 15, "decay": 5}
NEEDED = {"weight": 3, "theta": 5, "decay": 4}


def accuracy_of(mixture):
    missing = sum(max(0, NEEDED[name] - length) for name, length in mixture.items())
    return round(0.9 * 0.7**missing, 4)


@pytest.fixture
def evaluated(make_record):
    """Return an evaluation and the list of mixtures that it was asked for."""
    asked = []

    def evaluate(mixtures):
        asked.extend(mixtures)
        return [
            make_record(
                bits=sum(VALUES[name] * length for name, length in mixture.items()),
                accuracy=accuracy_of(mixture),
            )
            for mixture in mixtures
        ]

    return evaluate, asked


def alone(name):
    points = []
    for length in (2, 3, 4, 6, 8):
        mixture = {**dict.fromkeys(NAMES, 8), name: length}
        points.append(SweepPoint(length, accuracy_of(mixture), 0.0, 0.9 - accuracy_of(mixture), 1))
    return Significance(name, name, (name,), VALUES[name], tuple(points), None)


FOUND = [alone(name) for name in NAMES]
BASELINE = Measured({}, 32 * sum(VALUES.values()), 0.9)
ALONE = [
    Measured(
        {one.name: point.word_length},
        BASELINE.bits - VALUES[one.name] * (32 - point.word_length),
        point.accuracy,
    )
    for one in FOUND
    for point in one.points
]


@pytest.fixture
def optuna():
    """Skip what needs Optuna where it is not installed."""
    return pytest.importorskip("optuna", reason="not installed: pip install '.[search]'")


def points_of(searched):
    return {(record.footprint_bits, record.accuracy) for record in searched.found.values()}


def volume_of(points):
    return hypervolume(points, (32 * sum(VALUES.values()), 0.0))


def test_the_budget_is_kept_and_nothing_is_evaluated_twice(evaluated, optuna):
    evaluate, asked = evaluated
    searched = Searched(evaluate, 30, {})
    greedy(searched, FOUND, LEVELS, share=0.5)
    after_greedy = len(asked)
    assert 1 < after_greedy <= 15
    nsga2(searched, NAMES, LEVELS, seed=0)
    assert len(asked) == len(searched.found) == 30
    assert searched.left == 0
    assert len({tuple(sorted(mixture.items())) for mixture in asked}) == 30


def test_the_search_ends_when_there_is_nothing_new(evaluated, optuna):
    evaluate, asked = evaluated
    searched = Searched(evaluate, 100, {})
    nsga2(searched, NAMES[:2], range(2, 4), seed=0)
    assert len(asked) == 4
    assert searched.left == 96


def test_the_search_is_the_same_every_time(evaluated, optuna):
    evaluate, _ = evaluated
    found = []
    for _ in range(2):
        searched = Searched(evaluate, 25, {})
        greedy(searched, FOUND, LEVELS, share=0.5)
        nsga2(searched, NAMES, LEVELS, seed=3)
        found.append(list(searched.found))
    assert found[0] == found[1]


def test_the_greedy_path_finds_what_is_best(evaluated):
    """The smallest mixture without a loss is on the path, for a seventeenth of all evaluations."""
    evaluate, asked = evaluated
    searched = Searched(evaluate, 20, {})
    greedy(searched, FOUND, LEVELS)
    every = list(itertools.product(LEVELS, repeat=len(NAMES)))
    assert len(asked) * 17 <= len(every)
    best = (sum(VALUES[name] * NEEDED[name] for name in NAMES), 0.9)
    assert not any(dominates(point, best) for point in points_of(searched))
    assert any(size <= 1.1 * best[0] and accuracy == 0.9 for size, accuracy in points_of(searched))


def test_what_is_expected_to_add_most_keeps_the_budget_and_repeats_nothing(evaluated):
    evaluate, asked = evaluated
    searched = Searched(evaluate, 30, {})
    bayesian(searched, FOUND, LEVELS, ALONE, BASELINE)
    assert len(asked) == len(searched.found) == 30
    assert searched.left == 0
    again = Searched(evaluate, 30, {})
    bayesian(again, FOUND, LEVELS, ALONE, BASELINE)
    assert list(again.found) == list(searched.found)


def test_what_is_expected_to_add_most_finds_what_is_best(evaluated):
    """The smallest mixture without a loss itself, for less than a twenty-eighth of all."""
    evaluate, asked = evaluated
    searched = Searched(evaluate, 12, {})
    bayesian(searched, FOUND, LEVELS, ALONE, BASELINE)
    assert len(asked) * 28 <= len(LEVELS) ** len(NAMES)
    best = (sum(VALUES[name] * NEEDED[name] for name in NAMES), 0.9)
    assert best in points_of(searched)


def test_a_search_of_few_mixtures_ends_with_the_last(evaluated):
    evaluate, asked = evaluated
    searched = Searched(evaluate, 100, {})
    bayesian(searched, FOUND[:2], range(2, 5), ALONE[:10], BASELINE)
    assert len(asked) == 9
    assert searched.left == 91


def test_mixtures_that_failed_are_not_tried_again():
    asked = []
    searched = Searched(lambda mixtures: [asked.append(m) for m in mixtures], 20, {})
    bayesian(searched, FOUND, LEVELS, ALONE, BASELINE)
    assert len(asked) == 20
    assert len({tuple(sorted(mixture.items())) for mixture in asked}) == 20
    assert set(searched.found.values()) == {None}


@pytest.mark.slow
def test_a_search_without_significance_keeps_the_budget_and_repeats_nothing(evaluated, optuna):
    evaluate, asked = evaluated
    searched = Searched(evaluate, 25, {})
    gp(searched, NAMES, LEVELS, seed=3)
    assert len(asked) == len(searched.found) == 25
    assert searched.left == 0
    again = Searched(evaluate, 25, {})
    gp(again, NAMES, LEVELS, seed=3)
    assert list(again.found) == list(searched.found)


@pytest.mark.slow
def test_a_search_without_significance_finds_almost_the_best_front(evaluated, optuna):
    """A tenth of all mixtures, against the hypervolume of all."""
    evaluate, asked = evaluated
    searched = Searched(evaluate, 34, {})
    gp(searched, NAMES, LEVELS, seed=2)
    every = [dict(zip(NAMES, each, strict=True)) for each in itertools.product(LEVELS, repeat=3)]
    assert len(asked) * 10 <= len(every)
    best = volume_of((record.footprint_bits, record.accuracy) for record in evaluate(every))
    assert volume_of(points_of(searched)) >= 0.99 * best


@pytest.mark.few(0.2)
@pytest.mark.parametrize("seed", range(3))
def test_without_significance_as_well_a_search_ends_with_the_last(evaluated, optuna, seed):
    """Where all that is left is proposed by nobody, it is drawn."""
    evaluate, asked = evaluated
    searched = Searched(evaluate, 100, {})
    gp(searched, NAMES[:2], range(2, 6), seed)
    assert len(asked) == 16
    assert searched.left == 84


def test_without_significance_as_well_nothing_that_failed_is_tried_again(optuna):
    asked = []
    searched = Searched(lambda mixtures: [asked.append(m) for m in mixtures], 20, {})
    gp(searched, NAMES, LEVELS, seed=0)
    assert len(asked) == 20
    assert len({tuple(sorted(mixture.items())) for mixture in asked}) == 20
    assert set(searched.found.values()) == {None}


def test_mixtures_that_fail_are_left_out(make_record, optuna):
    searched = Searched(lambda mixtures: [None for _ in mixtures], 10, {})
    nsga2(searched, NAMES, LEVELS, seed=0)
    assert searched.left == 0
    assert set(searched.found.values()) == {None}


@pytest.mark.parametrize("strategy", [gp, nsga2])
def test_without_optuna_it_says_what_to_install(evaluated, monkeypatch, strategy):
    evaluate, _ = evaluated
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigurationError, match=rf"{strategy.__name__} needs Optuna; pip install"):
        strategy(Searched(evaluate, 5, {}), NAMES, LEVELS, seed=0)
