"""What a mixture is expected to add: model, gain and choice, against references of their own."""

import itertools
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qspinn.selection import SweepPoint, greedy_path, hypervolume, pareto_front
from qspinn.selection.search.expected import expected_gain
from qspinn.selection.search.kriging import Kriging
from qspinn.selection.search.proposing import Measured, propose
from qspinn.selection.search.significance import Significance
from tests.reference.gaussian_process import conditioned, covariance

BASELINE = 0.9
SWEPT = (2, 5, 8)
shares = st.floats(0.01, 0.99)


def significance_of(name, values, drops):
    points = tuple(SweepPoint(n, BASELINE - d, 0.0, d, 1) for n, d in sorted(drops.items()))
    return Significance(name, name, (name,), values, points, None)


@given(
    st.lists(st.tuples(shares, shares), max_size=6),
    st.tuples(shares, shares, st.floats(0.001, 0.5)),
    shares,
)
def test_the_expected_gain_is_the_mean_of_the_gains(points, candidate, ceiling):
    """Against the hypervolume itself, at a thousand quantiles of the accuracy."""
    size, mean, deviation = candidate
    normal = statistics.NormalDist(mean, deviation)
    before = hypervolume(points)
    gains = []
    for place in range(1000):
        accuracy = min(normal.inv_cdf((place + 0.5) / 1000), ceiling)
        gains.append(hypervolume([*points, (size, accuracy)]) - before)
    (expected,) = expected_gain(
        points, np.array([size]), np.array([mean]), np.array([deviation]), ceiling
    )
    # The quantiles miss the tails: their share is below a thousandth of the deviation.
    assert expected == pytest.approx(statistics.fmean(gains), abs=1e-3 * deviation + 1e-9)


def test_a_candidate_that_is_too_large_or_not_good_enough_adds_nothing():
    gains = expected_gain(
        [(0.2, 0.8)], np.array([0.3, 1.0, 0.3]), np.array([0.5, 0.99, 0.99]), np.full(3, 0.01), 0.8
    )
    assert gains == pytest.approx([0.0, 0.0, 0.0], abs=1e-12)


@pytest.fixture
def fitted():
    """Return a model of two roles and what it was fitted to."""
    found = [
        significance_of("weight", 90, {2: 0.4, 5: 0.1, 8: 0.01}),
        significance_of("theta", 10, {2: 0.2, 5: 0.02, 8: 0.0}),
    ]
    lengths = [(2, 32), (5, 32), (8, 32), (32, 2), (32, 5), (32, 8), (5, 5), (3, 6)]
    accuracies = [0.5, 0.8, 0.89, 0.7, 0.88, 0.9, 0.77, 0.6]
    return Kriging(found, np.array(lengths), np.array(accuracies), BASELINE), lengths, accuracies


def test_the_model_is_a_gaussian_process_by_the_book(fitted):
    """Against sums over motions alone and together, and the inverse of the whole covariance."""
    model, lengths, accuracies = fitted
    # Variances per step, by hand: squared changes of the loss, over the largest step, 1/4.
    scales = (4 * (0.01**2 + 0.09**2 + 0.3**2), 4 * (0.02**2 + 0.18**2))
    mixtures = [(2, 2), (4, 7), (5, 5), (12, 3), (32, 32)]
    residuals = [accuracy - BASELINE for accuracy in accuracies]
    known = covariance(lengths, lengths, scales)
    crossed = covariance(mixtures, lengths, scales)
    own = covariance(mixtures, mixtures, scales)
    means, variances, _ = conditioned(known, crossed, own, residuals, model.roughness)
    predicted, deviations = model.predict(np.array(mixtures))
    assert predicted == pytest.approx(BASELINE + means)
    assert deviations == pytest.approx(np.sqrt(variances))


def test_the_roughness_is_the_likeliest(fitted):
    model, lengths, accuracies = fitted
    scales = (4 * (0.01**2 + 0.09**2 + 0.3**2), 4 * (0.02**2 + 0.18**2))
    known = covariance(lengths, lengths, scales)
    residuals = [accuracy - BASELINE for accuracy in accuracies]

    def likelihood(roughness):
        return conditioned(known, known, known, residuals, roughness)[2]

    others = [model.roughness * factor for factor in (0.25, 0.5, 2, 4)]
    assert all(likelihood(model.roughness) > likelihood(other) for other in others)


def additive(lengths, losses):
    return sum(losses[group][length] for group, length in enumerate(lengths))


def case(seed, groups=3, levels=range(2, 12), interaction=0.0):
    """Sizes, and losses that fall with the word length, of every mixture; deterministic."""
    generator = np.random.default_rng(seed)
    values = np.round(10 ** generator.uniform(1, 4, groups)).astype(int)
    losses = []
    for _ in range(groups):
        knee, slope, most = generator.uniform((1, 0.7, 0.1), (6, 2.5, 0.8))
        losses.append({n: most / (1 + np.exp(slope * (n - knee))) for n in levels} | {32: 0.0})

    def accuracy(lengths):
        alone = [losses[group][length] for group, length in enumerate(lengths)]
        pairs = sum(a * b for a, b in itertools.combinations(alone, 2))
        return float(max(0.1, BASELINE - sum(alone) - interaction * pairs))

    return [int(value) for value in values], accuracy


def search(values, accuracy, levels, budget):
    """Sweep alone, then measure what is proposed, one by one; the points that were measured."""
    names = [f"group {place}" for place in range(len(values))]
    whole = 32 * sum(values)

    def measure(mixture):
        lengths = tuple(mixture.get(name, 32) for name in names)
        bits = sum(value * length for value, length in zip(values, lengths, strict=True))
        return Measured(mixture, bits, accuracy(lengths))

    alone = {name: [measure({name: n}) for n in SWEPT] for name in names}
    found = [
        significance_of(
            name,
            value,
            {one.word_lengths[name]: BASELINE - one.accuracy for one in alone[name]},
        )
        for name, value in zip(names, values, strict=True)
    ]
    measured = [one for name in names for one in alone[name]]
    baseline = Measured({}, whole, BASELINE)
    while len(measured) < budget:
        (mixture,) = propose(found, levels, measured, baseline)
        measured.append(measure(mixture))
    greedy = [measure(mixture) for mixture in greedy_path(found, levels)]
    return [[(one.bits / whole, one.accuracy) for one in which] for which in (measured, greedy)]


def best_possible(values, accuracy, levels):
    whole = 32 * sum(values)
    points = []
    for lengths in itertools.product(levels, repeat=len(values)):
        bits = sum(value * length for value, length in zip(values, lengths, strict=True))
        points.append((bits / whole, accuracy(lengths)))
    return hypervolume(points)


@pytest.mark.parametrize("interaction", [0.0, -1.0, 2.0])
@pytest.mark.parametrize("seed", range(6))
def test_a_fortieth_of_all_mixtures_finds_almost_the_best_front(seed, interaction):
    """Against all thousand mixtures, where losses add up and where they help or harm each other."""
    levels = range(2, 12)
    values, accuracy = case(seed, interaction=interaction)
    searched, _ = search(values, accuracy, levels, budget=25)
    assert hypervolume(searched) >= 0.995 * best_possible(values, accuracy, levels)


def test_many_groups_are_searched_around_the_front():
    """A hundred million mixtures, of which not all can be looked at."""
    levels = range(2, 12)
    values, accuracy = case(1, groups=8)
    searched, greedy = search(values, accuracy, levels, budget=24 + 30)
    assert hypervolume(searched) > hypervolume(searched[:24])
    assert hypervolume(searched) >= 0.995 * hypervolume(greedy)  # 73 mixtures
    front = [searched[index] for index in pareto_front(searched)]
    assert len(front) > 10


def test_proposals_are_new_and_no_more_than_there_are():
    values, accuracy = case(2, groups=2, levels=range(2, 9))
    found = [
        significance_of(name, value, {2: 0.3, 5: 0.1, 8: 0.0})
        for name, value in zip("ab", values, strict=True)
    ]
    baseline = Measured({}, 32 * sum(values), BASELINE)
    measured = [
        Measured({"a": 2}, baseline.bits - 30 * values[0], 0.6),
        Measured({"a": 2, "b": 3}, 2 * values[0] + 3 * values[1], accuracy((2, 3))),
    ]
    failed = {"b": 2, "a": 3}
    proposed = propose(found, [2, 3], measured, baseline, count=9, without=[failed])
    assert sorted((m["a"], m["b"]) for m in proposed) == [(2, 2), (3, 3)]
    everything = [*measured, *(Measured(m, 1, 0.5) for m in [*proposed, failed])]
    assert propose(found, [2, 3], everything, baseline) == []
