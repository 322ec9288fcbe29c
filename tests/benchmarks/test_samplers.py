"""benchmarks/samplers.py compares searches as it says: on a space whose outcomes are a formula."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("optuna")
pytest.importorskip("scipy")

from qspinn.selection.search.proposing import Measured

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
VALUES = {"weight": 900, "membrane": 80, "bias": 20}
LEVELS = (3, 4, 5, 6, 8, 12)
SWEPT = (3, 6, 12)
BUDGET = 14


@pytest.fixture(scope="module")
def scripts():
    """The modules; others must not find their neighbours by accident."""
    sys.path.insert(0, str(FOLDER))
    try:
        import samplers_methods
        import samplers_problems
        import samplers_report
    finally:
        sys.path.remove(str(FOLDER))
    return samplers_methods, samplers_problems, samplers_report


def formula(scripts):
    """A problem, and the mixtures that were evaluated."""
    _, problems, _ = scripts
    asked = []

    def evaluate(mixture):
        asked.append(dict(mixture))
        lengths = {name: mixture.get(name, 32) for name in VALUES}
        bits = sum(values * lengths[name] for name, values in VALUES.items())
        return problems.Outcome(bits, 0.9 - sum(2.0**-length for length in lengths.values()))

    baseline = Measured({}, 32 * sum(VALUES.values()), 0.9)
    return problems.Problem(tuple(VALUES), LEVELS, SWEPT, baseline, evaluate), asked


def methods():
    sys.path.insert(0, str(FOLDER))
    try:
        from samplers_methods import METHODS
    finally:
        sys.path.remove(str(FOLDER))
    return list(METHODS)


@pytest.mark.few(0.1)
@pytest.mark.parametrize("method", methods())
def test_a_search_keeps_to_its_budget_and_repeats_itself(scripts, method):
    module, _, _ = scripts
    problem, asked = formula(scripts)
    points = module.search(problem, method, BUDGET, seed=1)
    assert len(points) == BUDGET
    assert len({tuple(sorted(mixture.items())) for mixture in asked}) == BUDGET
    assert module.search(formula(scripts)[0], method, BUDGET, seed=1) == points


def test_values_and_significance_are_read_from_the_sweep(scripts):
    problem, asked = formula(scripts)
    found, alone = scripts[0].swept_of(problem)
    assert {one.name: one.values for one in found} == VALUES
    assert len(alone) == len(asked) == len(SWEPT) * len(VALUES)


def test_what_is_reached_is_read_at_the_budget(scripts):
    report = scripts[2]
    runs = {"any": {"4": [0.1, 0.2, 0.3, 0.4]}, "of a budget": {"2": [0.2, 0.3], "4": [0.1, 0.2]}}
    network = {"runs": runs, "grid": 0.5}
    assert report.reached(network, "any", 3) == pytest.approx(60)
    assert report.reached(network, "of a budget", 2) == pytest.approx(60)
    assert report.reached(network, "of a budget", 4) == pytest.approx(40)
