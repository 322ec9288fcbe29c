"""Explorations that choose what to evaluate: significance, and guided searches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from qspinn.app.compose.completing import complete, to_plain
from qspinn.app.compose.gate_settings import gate_settings
from qspinn.app.errors import ConfigurationError, refused
from qspinn.app.explore.exploring import Candidate, check_workers, explore, report
from qspinn.app.explore.groups import Group, alone, find_groups, jointly
from qspinn.app.explore.searching import Mixture, Searched, bayesian, gp, greedy, nsga2
from qspinn.plan.roles import UNSTORED_ROLES
from qspinn.records import MEASURED_ON, RunRecord, write_json
from qspinn.selection import LinearReward, Significance, pareto_front, significance
from qspinn.selection.naming import in_words
from qspinn.selection.search.proposing import Measured

STRATEGIES = ("significance", "greedy", "nsga2", "bayesian", "gp")
LONGEST = 24


def explore_by_strategy(config: DictConfig, output: Path) -> float:
    """Explore as the group ``exploration`` says.

    Candidates have folders of their own below the output folder, with records as any run has them.
    Started again, it goes on where it was stopped.

    Returns:
        The best reward found (accuracy with ``objective=accuracy``), on the data that choose.

    Raises:
        ConfigurationError: An invalid value.
        RuntimeError: A candidate failed; the others have been evaluated.
    """
    if config.objective not in ("reward", "accuracy"):
        raise ConfigurationError(
            f"objective={config.objective!r}: a search has many records, and returns the best "
            "reward or accuracy among them; write objective=reward or objective=accuracy"
        )
    explorer = Explorer(config, output)
    if config.exploration.strategy == "gp":
        explorer.search_without_significance()
    else:
        found = explorer.significance()
        if config.exploration.strategy != "significance":
            explorer.search(found)
    if explorer.failed:
        raise RuntimeError(f"{explorer.failed} candidates failed; see failure.json in {output}/*/*")
    reward = LinearReward() if config.objective == "reward" else lambda record: record.accuracy
    return max(reward(record) for record in explorer.records)


class Explorer:
    """Evaluates candidates in processes, and keeps count.

    Args:
        config: What ``conf/train.yaml`` composes.
        output: The folder of the exploration.
    """

    def __init__(self, config: DictConfig, output: Path) -> None:
        settings = config.exploration
        if settings.strategy not in STRATEGIES:
            wanted = f"null or one of {', '.join(STRATEGIES)}"
            raise refused("exploration.strategy", settings.strategy, wanted)
        if config.quantization.scheme == "none":
            raise ConfigurationError(
                "quantization.scheme='none': there is no precision to explore; write ptq or itq"
            )
        if gate_settings(to_plain(complete(config))["exploration"]) is not None:
            raise ConfigurationError(
                f"exploration.gate.enabled=true with exploration.strategy={settings.strategy}: a "
                "search needs the accuracy of every candidate that it asks for; write false"
            )
        self.config = config
        self.output = output
        self.workers = check_workers(settings.workers)
        self.word_lengths = _word_lengths(settings.word_lengths)
        self.chosen_by = _chosen_by(settings.by)
        self.groups = find_groups(config, settings.unit, settings.roles, self.chosen_by)
        self.failed = 0
        self.records: list[RunRecord] = []
        self.alone: list[Measured] = []
        self.swept: dict[tuple[str, ...], Group] = {}  # by the paths of its tensors

    def evaluate(self, candidates: Sequence[Candidate]) -> list[RunRecord | None]:
        """Evaluate candidates and return their records in the same order.

        The accuracies in them are those on the data that choose.
        """
        done = report(explore(candidates, self.workers), len(candidates))
        by_folder = {evaluation.candidate.folder: evaluation.record for evaluation in done}
        records = [self._choosing(by_folder[candidate.folder]) for candidate in candidates]
        known = [record for record in records if record is not None]
        self.failed += len(records) - len(known)
        self.records += known
        return records

    def _choosing(self, record: RunRecord | None) -> RunRecord | None:
        if record is None:
            return None
        choosing = record.measured_on(self.chosen_by)
        if choosing is None:
            raise ConfigurationError(
                "exploration.by='validation': the learning module logs no val/accuracy in its "
                "validation_step; let it, or write exploration.by=test"
            )
        return choosing

    def significance(self) -> tuple[Significance, ...]:
        """Sweep each group alone; print, and write ``significance.json`` and ``.png``."""
        from qspinn.report.pictures import save_png
        from qspinn.report.significance import draw_significance, print_significance

        folder = self.output / "alone"
        pairs = [(group, length) for group in self.groups for length in self.word_lengths]
        records = self.evaluate([alone(self.config, folder, *pair) for pair in pairs])
        for (group, length), record in zip(pairs, records, strict=True):
            if record is not None:
                bits, accuracy = record.footprint_bits, record.accuracy
                self.alone.append(Measured({group.name: length}, bits, accuracy))
                self.swept[tuple(sorted(record.formats))] = group
        max_drop = self.config.exploration.max_drop
        try:
            found, _ = significance(self.records, max_drop)
        except ValueError as error:
            raise ConfigurationError(f"exploration: {error}") from error
        print_significance(found, max_drop)
        title = f"{self.records[0].network} on {self.records[0].data}"
        picture = draw_significance(found, max_drop, title, self.chosen_by)
        save_png(picture, self.output / "significance.png")
        write_json([one.to_dict() for one in found], self.output / "significance.json")
        print(f"significance: {self.output / 'significance.png'}", flush=True)
        return found

    def search(self, found: Sequence[Significance]) -> None:
        """Search mixtures with the evaluations that are left, and write ``search.json``."""
        settings = self.config.exploration
        groups = {self.swept[one.paths].name: one for one in found if one.values > 0}
        named = [group for group in self.groups if group.name in groups]
        spent = len(self.groups) * len(self.word_lengths)
        if settings.evaluations <= spent:
            raise ConfigurationError(
                f"exploration.evaluations={settings.evaluations}: {len(self.groups)} groups at "
                f"{len(self.word_lengths)} word lengths, each alone, take {spent} of them; write "
                "more, or fewer word lengths"
            )
        searched = self._searched(named, settings.evaluations - spent)
        self._spend(searched, [replace(one, name=name) for name, one in groups.items()])
        self._write(searched, spent)

    def search_without_significance(self) -> None:
        """Search mixtures with all evaluations, and write ``search.json``."""
        evaluations = self.config.exploration.evaluations
        if evaluations < 1:
            raise refused("exploration.evaluations", evaluations, "1 or more")
        stored = [group for group in self.groups if group.role not in UNSTORED_ROLES]
        searched = self._searched(stored, evaluations)
        gp(searched, [group.name for group in stored], self._levels(), self.config.seed)
        self._write(searched, 0)

    def _levels(self) -> Sequence[int]:
        return range(min(self.word_lengths), max(self.word_lengths) + 1)

    def _searched(self, groups: Sequence[Group], evaluations: int) -> Searched:
        folder = self.output / "mixed"

        def evaluate(mixtures: Sequence[Mixture]) -> list[RunRecord | None]:
            return self.evaluate([jointly(self.config, folder, groups, m) for m in mixtures])

        return Searched(evaluate, evaluations, {})

    def _spend(self, searched: Searched, found: Sequence[Significance]) -> None:
        """Search as the strategy says."""
        levels = self._levels()
        known = {one.name for one in found}
        strategy = self.config.exploration.strategy
        if strategy == "bayesian":
            alone = [one for one in self.alone if known.issuperset(one.word_lengths)]
            bayesian(searched, found, levels, alone, self._baseline())
        elif strategy == "greedy":
            greedy(searched, found, levels)
        else:
            greedy(searched, found, levels, share=0.5)
            names = [group.name for group in self.groups if group.name in known]
            nsga2(searched, names, levels, self.config.seed)

    def _baseline(self) -> Measured:
        record = self.records[0]
        assert record.baseline_accuracy is not None  # else there were no significance
        return Measured({}, record.baseline_footprint_bits, record.baseline_accuracy)

    def _write(self, searched: Searched, spent: int) -> None:
        mixtures = searched.measured()
        known = [*self.alone, *mixtures]
        front = pareto_front([(one.bits, one.accuracy) for one in known])
        best = sorted((known[index] for index in front), key=lambda one: one.bits)
        values = {
            "chosen_by": self.chosen_by,
            "evaluations_before": spent,
            "alone": [_row(number, one) for number, one in enumerate(self.alone, 1)],
            "evaluated": [
                _row(number, one) for number, one in enumerate(mixtures, len(self.alone) + 1)
            ],
            "front": [_row(known.index(one) + 1, one) for one in best],
        }
        path = write_json(values, self.output / "search.json")
        for one in best:
            rest = "" if one in mixtures else ", the rest in 32-bit"
            about = f"#{known.index(one) + 1} {in_words(one.word_lengths)}{rest}"
            print(f"{one.bits:>12,} bits  {100 * one.accuracy:6.2f}%  {about}")
        print(f"search: {len(mixtures)} mixtures, {len(best)} on the front: {path}", flush=True)


def _row(number: int, one: Measured) -> dict[str, object]:
    return {
        "number": number,
        "name": in_words(one.word_lengths),
        "word_lengths": one.word_lengths,
        "footprint_bits": one.bits,
        "accuracy": one.accuracy,
    }


def _chosen_by(given: object) -> str:
    if given not in MEASURED_ON:
        raise refused("exploration.by", given, " or ".join(MEASURED_ON))
    return str(given)


def _word_lengths(given: object) -> list[int]:
    lengths = list(given) if hasattr(given, "__iter__") and not isinstance(given, str) else []
    if not lengths or not all(type(n) is int and 1 <= n <= LONGEST for n in lengths):
        raise refused("exploration.word_lengths", given, f"a list of bits from 1 to {LONGEST}")
    return sorted(set(lengths))
