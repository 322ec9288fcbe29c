"""The searches of samplers.py: those of this package, Optuna's, and one in between."""

import itertools
from unittest.mock import patch

import measuring  # noqa: F401  (the path, one thread)

import numpy as np

from qspinn.app.explore.searching import Searched, bayesian, gp, greedy, nsga2
from qspinn.selection import Significance, SweepPoint
from qspinn.selection.search import proposing
from qspinn.selection.search.proposing import Measured

POPULATION = 10
MOST_REPEATS = 500


def swept_of(problem):
    """The significance of each group, and what it was read from."""
    found, alone = [], []
    for name in problem.names:
        points = []
        for length in problem.swept:
            outcome = problem.evaluate({name: length})
            alone.append(Measured({name: length}, outcome.footprint_bits, outcome.accuracy))
            drop = problem.baseline.accuracy - outcome.accuracy
            points.append(SweepPoint(length, outcome.accuracy, 0.0, drop, 1))
        values = (problem.baseline.bits - alone[-1].bits) // (32 - alone[-1].word_lengths[name])
        found.append(Significance(name, name, (name,), values, tuple(points), None))
    found.sort(key=lambda one: (-sum(point.drop for point in one.points), one.name))
    return found, alone


def guided(problem, strategy, budget, seed):
    """As ``exploration.strategy``: a significance sweep counts among the evaluations."""
    found, alone = ([], []) if strategy == "gp" else swept_of(problem)
    searched = Searched(
        lambda mixtures: [problem.evaluate(mixture) for mixture in mixtures],
        budget - len(alone),
        {},
    )
    if strategy == "bayesian":
        bayesian(searched, found, problem.levels, alone, problem.baseline)
    elif strategy == "gp":
        gp(searched, problem.names, problem.levels, seed)
    elif strategy == "greedy":
        greedy(searched, found, problem.levels)
    else:
        greedy(searched, found, problem.levels, share=0.5)
        nsga2(searched, problem.names, problem.levels, seed)
    measured = [*alone, *searched.measured()]
    return [(one.bits / problem.baseline.bits, one.accuracy) for one in measured]


def with_plain_kernel(problem, strategy, budget, seed):
    """`bayesian`, but with a general-purpose Gaussian process; all the rest is the same."""
    with patch.object(proposing, "Kriging", Matern):
        return guided(problem, strategy, budget, seed)


class Matern:
    """A Gaussian process with a Matérn kernel (nu = 5/2) over word lengths, one scale for each.

    It has the interface of `Kriging`, and of what the significance says takes nothing. Its
    parameters are the likeliest ones under the priors of Hvarfner, Hellsten & Nardi (Vanilla
    Bayesian Optimization Performs Great in High Dimensions, 2024): scales log-normal around a
    value that grows with the square root of the number of groups.
    """

    def __init__(self, found, word_lengths, accuracies, baseline):
        self.longest = max(point.word_length for one in found for point in one.points)
        self.inputs = self._inputs(word_lengths)
        self.mean, self.spread = accuracies.mean(), max(accuracies.std(), 1e-6)
        self.targets = (accuracies - self.mean) / self.spread
        self.logs = self._fitted(len(found))
        root, self.weights = self._solved(self.logs)
        self.root = root
        self.roughness = self.spread * float(np.exp(self.logs[-1]))

    def predict(self, word_lengths):
        known = np.linalg.solve(self.root, self._kernel(self._inputs(word_lengths), self.logs).T)
        variances = np.maximum(0.0, 1 - np.sum(known**2, axis=0)) + np.exp(2 * self.logs[-1])
        return self.mean + self.spread * known.T @ self.weights, self.spread * np.sqrt(variances)

    def _inputs(self, word_lengths):
        return np.minimum(np.asarray(word_lengths, float), self.longest) / self.longest

    def _kernel(self, inputs, logs):
        differences = (inputs[:, None] - self.inputs[None]) / np.exp(logs[:-1])
        distance = np.sqrt(5 * np.sum(differences**2, axis=2))
        return (1 + distance + distance**2 / 3) * np.exp(-distance)

    def _solved(self, logs):
        kernel = self._kernel(self.inputs, logs)
        root = np.linalg.cholesky(kernel + (np.exp(2 * logs[-1]) + 1e-8) * np.eye(len(kernel)))
        return root, np.linalg.solve(root, self.targets)

    def _fitted(self, groups):
        from scipy.optimize import minimize

        usual = np.array([np.sqrt(2) + np.log(groups) / 2] * groups + [-2.0])
        widths = np.array([np.sqrt(3)] * groups + [1.0])

        def loss(logs):
            root, weights = self._solved(logs)
            prior = np.sum(((logs - usual) / widths) ** 2) / 2
            return weights @ weights / 2 + np.log(np.diag(root)).sum() + prior

        bounds = [(-3.0, 5.0)] * groups + [(-7.0, 1.0)]
        return minimize(loss, usual, method="L-BFGS-B", bounds=bounds, options={"maxiter": 50}).x


def sampled(problem, sampler, budget, seed):
    """One of Optuna's samplers; what it proposes again is told again, but not counted."""
    return _sampled(problem, sampler, budget, seed, [])


def sampled_after_sweep(problem, sampler, budget, seed):
    """The same, after each group at the shorter word lengths, with the rest at the longest.

    What the significance sweep of this package evaluates has the rest in 32-bit; this is of the
    space that the sampler searches.
    """
    longest = dict.fromkeys(problem.names, max(problem.levels))
    shorter = [length for length in problem.swept if length < max(problem.levels)]
    each = itertools.product(problem.names, shorter)
    starts = [longest, *({**longest, name: length} for name, length in each)]
    return _sampled(problem, sampler, budget, seed, starts)


def sampled_with_significance(problem, sampler, budget, seed):
    """The same, told of the significance sweep that `bayesian` begins with, which counts.

    A group in 32-bit is told as one at the longest word length, with the footprint of that: the
    space has no 32-bit, and a footprint is known without an evaluation.
    """
    import optuna

    found, alone = swept_of(problem)
    study = _study(sampler, seed, len(alone))
    longest = dict.fromkeys(problem.names, max(problem.levels))
    kind = optuna.distributions.IntDistribution(0, len(problem.levels) - 1)
    values = {one.name: one.values for one in found}
    for one in alone:
        lengths = longest | dict(one.word_lengths)
        others = set(problem.names) - one.word_lengths.keys()
        bits = one.bits - sum(values[name] * (32 - longest[name]) for name in others)
        study.add_trial(
            optuna.trial.create_trial(
                params={name: problem.levels.index(lengths[name]) for name in problem.names},
                distributions=dict.fromkeys(problem.names, kind),
                values=(bits / problem.baseline.bits, one.accuracy),
            )
        )
    points = [(one.bits / problem.baseline.bits, one.accuracy) for one in alone]
    return points + _asked(problem, study, budget - len(alone))


def _sampled(problem, sampler, budget, seed, starts):
    study = _study(sampler, seed, len(starts))
    for mixture in starts:
        indices = {name: problem.levels.index(length) for name, length in mixture.items()}
        study.enqueue_trial(indices)
    return _asked(problem, study, budget)


def _study(sampler, seed, known):
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    directions = ["minimize", "maximize"]
    return optuna.create_study(directions=directions, sampler=_sampler(sampler, seed, known))


def _asked(problem, study, budget):
    levels, found, repeats = problem.levels, {}, 0
    while len(found) < budget and repeats < MOST_REPEATS:
        trial = study.ask()
        lengths = tuple(levels[trial.suggest_int(n, 0, len(levels) - 1)] for n in problem.names)
        repeats += lengths in found
        point = problem.point(problem.evaluate(dict(zip(problem.names, lengths, strict=True))))
        found[lengths] = point
        study.tell(trial, point)
    return list(found.values())


def _sampler(name, seed, starts):
    """With Optuna's defaults, where they make sense for so few evaluations."""
    from optuna import samplers

    if name == "random":
        return samplers.RandomSampler(seed=seed)
    if name == "NSGA-II":
        return samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
    if name == "NSGA-III":
        return samplers.NSGAIIISampler(seed=seed, population_size=POPULATION)
    kind = {"TPE": samplers.TPESampler, "GP": samplers.GPSampler}[name]
    return kind(seed=seed, n_startup_trials=starts or 10)


METHODS = {
    "`bayesian`": (guided, "bayesian"),
    "`bayesian`, plain kernel": (with_plain_kernel, "bayesian"),
    "`gp`": (guided, "gp"),
    "`greedy`": (guided, "greedy"),
    "`nsga2`": (guided, "nsga2"),
    "GPSampler, told of the significance": (sampled_with_significance, "GP"),
    "GPSampler after a sweep": (sampled_after_sweep, "GP"),
    "TPESampler after a sweep": (sampled_after_sweep, "TPE"),
    "GPSampler": (sampled, "GP"),
    "TPESampler": (sampled, "TPE"),
    "NSGAIISampler": (sampled, "NSGA-II"),
    "NSGAIIISampler": (sampled, "NSGA-III"),
    "RandomSampler": (sampled, "random"),
}
"""Name to function and what it is told."""


def depends_on_budget(method):
    """Whether a search has to be run for each budget.

    `gp` hands out more together while more is left, and nothing else: it is run with the largest.
    """
    return METHODS[method][0] in (guided, with_plain_kernel) and METHODS[method][1] != "gp"


def search(problem, method, budget, seed):
    """The points of a search, in the order of evaluation."""
    function, given = METHODS[method]
    return function(problem, given, budget, seed)
