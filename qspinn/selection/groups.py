"""Runs that differ in the seed only, taken together: what is compared are their means."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from qspinn.records import RunRecord, setting_key_of
from qspinn.selection.intervals import shown_interval, wilson_interval
from qspinn.selection.runs import Run


@dataclass(frozen=True)
class Group:
    """One or more runs of the same setting.

    Attributes:
        runs: At least one, by seed, then path.
    """

    runs: tuple[Run, ...]

    @property
    def path(self) -> str:
        """Of the first run: what reports call the group."""
        return self.runs[0].path

    @property
    def record(self) -> RunRecord:
        """Of the first run; what the runs share (scheme, word lengths) is read from it."""
        return self.runs[0].record

    @property
    def is_reference(self) -> bool:
        """Whether this is the 32-bit network itself."""
        return self.runs[0].is_reference

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the runs, ascending."""
        return tuple(run.record.seed for run in self.runs)

    @cached_property
    def accuracy(self) -> float:
        """Mean of the runs, a fraction."""
        return _mean([run.record.accuracy for run in self.runs])

    @cached_property
    def accuracy_std(self) -> float | None:
        """Sample standard deviation (n - 1) of the accuracy; None for one run."""
        if len(self.runs) == 1:
            return None
        return statistics.stdev(run.record.accuracy for run in self.runs)

    @cached_property
    def baseline_accuracy(self) -> float | None:
        """Mean of the runs' baselines; None where one is missing."""
        return _known_mean([run.record.baseline_accuracy for run in self.runs])

    @property
    def samples(self) -> int | None:
        """Samples that each accuracy is the share of; None where it is not known, or differs."""
        found = {run.record.samples for run in self.runs}
        return found.pop() if len(found) == 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% confidence interval of the accuracy; None where `samples` is."""
        return None if self.samples is None else wilson_interval(self.accuracy, self.samples)

    @property
    def accuracy_in_words(self) -> str:
        """With its spread over seeds and its interval: `97.20% ± 0.35 [95.60, 98.20]`."""
        spread = "" if self.accuracy_std is None else f" ± {100 * self.accuracy_std:.2f}"
        shown = shown_interval(self.accuracy, self.samples, digits=2)
        return f"{100 * self.accuracy:.2f}%{spread}{shown}"

    @property
    def reported(self) -> Group:
        """The same runs with the accuracies on test data."""
        return Group(tuple(Run(run.path, run.reported or run.record) for run in self.runs))

    @cached_property
    def footprint_bits(self) -> float:
        """Mean of the runs in bits: an int where they agree, as they do with fixed word lengths."""
        return _same_or_mean([run.record.footprint_bits for run in self.runs])

    @cached_property
    def baseline_footprint_bits(self) -> float:
        """Mean of the runs in bits: an int where they agree."""
        return _same_or_mean([run.record.baseline_footprint_bits for run in self.runs])

    @cached_property
    def energy_nj(self) -> float | None:
        """Mean of the runs in nanojoules per sample; None where one is missing."""
        return _known_mean([run.record.energy_nj for run in self.runs])

    @cached_property
    def agreement(self) -> float | None:
        """Mean share of samples that the 32-bit twins classify alike; None where one is missing."""
        return _known_mean([run.record.agreement for run in self.runs])

    def memory(self, learning: bool = False) -> dict[str, float | None]:
        """Bits in `flash` and in `ram`, means of the runs; None where one is missing.

        Args:
            learning: Of a device that learns, instead of one that classifies.
        """
        records = [run.record for run in self.runs]
        if learning:
            ram = [record.learning_ram_bits for record in records]
            flash = [
                None if bits is None else record.training_footprint_bits - bits
                for record, bits in zip(records, ram, strict=True)
            ]
        else:
            ram = [record.ram_bits for record in records]
            flash = [record.flash_bits for record in records]
        return {"flash": _known_mean(flash), "ram": _known_mean(ram)}

    @property
    def share(self) -> float:
        """Footprint over that of the 32-bit network."""
        return self.footprint_bits / self.baseline_footprint_bits

    @property
    def reduction(self) -> float:
        """How many times smaller than the 32-bit network."""
        return self.baseline_footprint_bits / self.footprint_bits

    @property
    def drop(self) -> float | None:
        """Accuracy lost against the baseline, of the means; None where a baseline is missing."""
        baseline = self.baseline_accuracy
        return None if baseline is None else baseline - self.accuracy


def beside(drop: float) -> str:
    """A drop in words, before what it is a drop from: `0.50 points below`."""
    return f"{abs(100 * drop):.2f} points {'above' if drop < 0 else 'below'}"


def group_runs(runs: Sequence[Run], by_seed: bool = True) -> tuple[list[Group], list[str]]:
    """Take runs together whose configurations differ in the seed only.

    Runs of one group agree in data, network, scheme, rounding, status and `setting_key` (the
    configuration without the seed). Their formats may differ, because each run chooses its own
    from its data; so may, with rules that depend on the data, their footprints, and then the mean
    counts.

    Args:
        runs: In any order.
        by_seed: False: every run is a group of its own.

    Returns:
        The groups in the order of their first runs, and notes for the reader.
    """
    if not by_seed:
        return [Group((run,)) for run in runs], []
    found: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        record = run.record
        about = record.data, record.network, record.scheme, record.rounding or "", record.status
        found[*about, setting_key_of(record)].append(run)
    groups = [
        Group(tuple(sorted(members, key=lambda run: (run.record.seed, run.path))))
        for members in found.values()
    ]
    return groups, list(_notes(groups))


def _notes(groups: Iterable[Group]) -> Iterable[str]:
    numbers = {len(group.runs) for group in groups}
    if len(numbers) > 1:
        yield f"the numbers of runs per setting differ ({min(numbers)} to {max(numbers)} seeds)"
    repeated = [group for group in groups if len(set(group.seeds)) < len(group.seeds)]
    if repeated:
        yield (
            f"{len(repeated)} settings hold a seed more than once, and each such run counts; the "
            f"first is {repeated[0].path}"
        )
    varying = [group for group in groups if len(_footprints(group)) > 1]
    if varying:
        yield (
            f"the footprints of {len(varying)} settings differ between seeds, and the mean counts; "
            f"the first is {varying[0].path}"
        )


def _footprints(group: Group) -> set[int]:
    return {run.record.footprint_bits for run in group.runs}


def _mean(values: Sequence[float]) -> float:
    return values[0] if len(values) == 1 else statistics.fmean(values)


def _known_mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _mean(known) if len(known) == len(values) else None


def _same_or_mean(values: Sequence[int]) -> float:
    return values[0] if len(set(values)) == 1 else statistics.fmean(values)
