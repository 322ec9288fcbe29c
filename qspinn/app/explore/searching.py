"""A guided search over mixed precisions, with a budget of evaluations."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qspinn.app.errors import ConfigurationError
from qspinn.records import RunRecord
from qspinn.selection import Significance, greedy_path
from qspinn.selection.search.proposing import Measured, propose

Mixture = dict[str, int]
"""Name of a group to its word length."""

Evaluate = Callable[[Sequence[Mixture]], Sequence[RunRecord | None]]
"""Evaluates mixtures; the record of one that failed is None."""

BATCH = 8
"""Mixtures evaluated together, for any number of processes: the result depends on it."""
MOST_REPEATS = 500


@dataclass
class Searched:
    """What a search has evaluated so far.

    Attributes:
        evaluate: Evaluates mixtures.
        left: Evaluations that may still be done.
        found: Mixtures, as sorted items, with their records, in the order of evaluation.
    """

    evaluate: Evaluate
    left: int
    found: dict[tuple[tuple[str, int], ...], RunRecord | None]

    def of(self, mixture: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
        """The key of a mixture."""
        return tuple(sorted(mixture.items()))

    def run(self, mixtures: Sequence[Mixture]) -> None:
        """Evaluate those that are new, as many as the budget allows."""
        new = list({self.of(m): m for m in mixtures if self.of(m) not in self.found}.values())
        new = new[: self.left]
        for mixture, record in zip(new, self.evaluate(new) if new else [], strict=True):
            self.found[self.of(mixture)] = record
        self.left -= len(new)

    def measured(self) -> list[Measured]:
        """What did not fail."""
        return [
            Measured(dict(key), record.footprint_bits, record.accuracy)
            for key, record in self.found.items()
            if record is not None
        ]


def greedy(
    searched: Searched, found: Sequence[Significance], word_lengths: Sequence[int], share: float = 1
) -> None:
    """Evaluate mixtures along the greedy path, evenly spread over it.

    Args:
        searched: Takes what is evaluated.
        found: The significance of each group.
        word_lengths: To choose from.
        share: Of the budget that is left.
    """
    path = greedy_path(found, word_lengths)
    count = min(len(path), max(1, int(searched.left * share)))
    chosen = [path[round(i * (len(path) - 1) / max(count - 1, 1))] for i in range(count)]
    searched.run(chosen)


def bayesian(
    searched: Searched,
    found: Sequence[Significance],
    word_lengths: Sequence[int],
    alone: Sequence[Measured],
    baseline: Measured,
) -> None:
    """Spend the budget on what is expected to add most to the hypervolume (see `propose`).

    An eighth of the remaining budget at a time: the fewer are evaluated together, the more is known
    when the next one is chosen.

    Args:
        searched: What has been evaluated, and takes what is.
        found: The significance of each group.
        word_lengths: To choose from.
        alone: What the significance was read from: one group each, the rest in 32-bit.
        baseline: The 32-bit network.
    """
    while searched.left:
        count = max(1, min(BATCH, searched.left // 8))
        failed = [dict(key) for key, record in searched.found.items() if record is None]
        measured = [*alone, *searched.measured()]
        mixtures = propose(found, word_lengths, measured, baseline, count, failed)
        if not mixtures:
            return
        searched.run(mixtures)


def gp(searched: Searched, names: Sequence[str], word_lengths: Sequence[int], seed: int) -> None:
    """Spend the budget by the GPSampler of Optuna, which needs no significance.

    It evaluates what is expected to add most to the hypervolume, as predicted by a Gaussian process
    for the footprint and one for the accuracy (Emmerich, Giannakoglou, Naujoks, IEEE Trans. Evol.
    Comput. 10(4), 2006), after ten mixtures at random. Where it proposes what has been evaluated, a
    mixture is drawn at random instead. An eighth of the remaining budget at a time, as `bayesian`.

    Args:
        searched: What has been evaluated, and takes what is.
        names: Of the groups.
        word_lengths: To choose from.
        seed: Of its random choices.

    Raises:
        ConfigurationError: Optuna is not installed.
    """
    optuna = _optuna("gp")
    chance = random.Random(seed)
    _ask(searched, names, word_lengths, optuna.samplers.GPSampler(seed=seed), 8, chance)


def nsga2(searched: Searched, names: Sequence[str], word_lengths: Sequence[int], seed: int) -> None:
    """Spend the rest of the budget by the genetic algorithm NSGA-II (Deb et al. 2002) of Optuna.

    What has been evaluated is its first generation. Arguments and errors are those of :func:`gp`.
    """
    population = max(BATCH, len(searched.found))
    sampler = _optuna("nsga2").samplers.NSGAIISampler(population_size=population, seed=seed)
    _ask(searched, names, word_lengths, sampler)


def _optuna(strategy: str) -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"exploration.strategy={strategy} needs Optuna; pip install '.[search]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _ask(
    searched: Searched,
    names: Sequence[str],
    word_lengths: Sequence[int],
    sampler: Any,
    share: int = 1,
    chance: random.Random | None = None,
) -> None:
    """Evaluate what a sampler proposes.

    A repeated proposal is answered with the known result and costs no evaluation.

    Args:
        searched: What has been evaluated, which the sampler is told first, and takes what is.
        names: Of the groups.
        word_lengths: To choose from.
        sampler: One of Optuna's.
        share: At most one in so many of the remaining evaluations are done together.
        chance: Draws a new mixture after each that was proposed again; None: the sampler goes on.
    """
    import optuna

    levels = sorted(set(word_lengths))
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler)
    for key in searched.found:
        study.enqueue_trial({name: levels.index(length) for name, length in key})
    repeats, every = 0, len(levels) ** len(names)
    while searched.left and len(searched.found) < every and repeats < MOST_REPEATS:
        count = max(1, min(BATCH, searched.left // share))
        asked: list[tuple[Any, Mixture]] = []
        while len(asked) < count and repeats < MOST_REPEATS:
            trial = study.ask()
            mixture = {name: levels[trial.suggest_int(name, 0, len(levels) - 1)] for name in names}
            if searched.of(mixture) in searched.found:
                repeats += 1
                _tell(study, trial, searched.found[searched.of(mixture)])
                if chance is not None:
                    study.enqueue_trial(_drawn(searched, names, levels, chance))
            else:
                asked.append((trial, mixture))
        searched.run([mixture for _, mixture in asked])
        for trial, mixture in asked:
            _tell(study, trial, searched.found.get(searched.of(mixture)))


def _drawn(
    searched: Searched, names: Sequence[str], levels: Sequence[int], chance: random.Random
) -> dict[str, int]:
    """Places among the levels of a mixture that has not been evaluated."""
    while True:
        places = {name: chance.randrange(len(levels)) for name in names}
        if searched.of({name: levels[i] for name, i in places.items()}) not in searched.found:
            return places


def _tell(study: Any, trial: Any, record: RunRecord | None) -> None:
    import optuna

    if record is None:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    else:
        study.tell(trial, (record.footprint_bits, record.accuracy))
