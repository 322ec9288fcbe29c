"""Find the 32-bit accuracy of runs that did not measure it, from the records of their twins."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from qspinn.records import RunRecord, baseline_key_of
from qspinn.selection.runs import Run


def fill_baselines(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Give each run without a `baseline_accuracy` the one of its 32-bit twin, where there is one.

    A twin agrees in data, network and the whole configuration (seed included) apart from
    quantisation. A `scheme=none` run is its own baseline, and the first choice as a twin; next
    are PTQ runs, which measured the same float network before quantising it. Where twins disagree
    (other library versions, say) the highest accuracy counts, the strictest target, and a note
    says so. Interrupted runs are no twins, and neither are runs on data of another fingerprint;
    where one of the two is not known (an older record) they may be.

    Returns:
        The runs in the given order, and notes for the reader.
    """
    own = [_own_baseline(run) for run in runs]
    notes = dict.fromkeys(_other_data(own))  # a set that keeps the order
    if all(run.record.baseline_accuracy is not None for run in own):
        return own, list(notes)
    twins: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in own:
        if run.record.baseline_accuracy is not None and run.record.status == "completed":
            twins[_key(run)].append(run)
    best: dict[tuple[str | None, ...], tuple[Run | None, str | None]] = {}
    filled: list[Run] = []
    for run in own:
        if run.record.baseline_accuracy is None:
            key, data = _key(run), run.record.data_fingerprint
            if (*key, data) not in best:
                best[*key, data] = _best(_on(data, twins.get(key, [])))
            twin, note = best[*key, data]
            if twin is not None:
                record = _with(run.record, _accuracy(twin))
                run = Run(run.path, record, twin.path, run.reported)
            if note is not None:
                notes[note] = None
        filled.append(run)
    return filled, list(notes)


def _own_baseline(run: Run) -> Run:
    if not run.is_reference or run.record.baseline_accuracy is not None:
        return run
    return replace(run, record=_with(run.record, run.record.accuracy))


def _key(run: Run) -> tuple[str, str, str]:
    return run.record.data, run.record.network, baseline_key_of(run.record)


def _accuracy(run: Run) -> float:
    accuracy = run.record.baseline_accuracy
    assert accuracy is not None
    return accuracy


def _other_data(runs: Sequence[Run]) -> Iterator[str]:
    """A note where runs that should have had the same data had not."""
    found: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for run in runs:
        if run.record.data_fingerprint is not None:
            found[_key(run)].add(run.record.data_fingerprint)
    different = [(key[0], len(states)) for key, states in found.items() if len(states) > 1]
    if different:
        name, states = different[0]
        yield (
            f"the data changed between runs: those of {len(different)} 32-bit trainings are "
            f"recorded with more than one data_fingerprint ({name}: {states}), so that their "
            "accuracies need not compare"
        )


def _on(data: str | None, twins: list[Run]) -> list[Run]:
    """Of the twins those on the same data; where none is known to be, those that may be."""
    if data is None:
        return twins
    same = [twin for twin in twins if twin.record.data_fingerprint == data]
    return same or [twin for twin in twins if twin.record.data_fingerprint is None]


def _best(found: list[Run]) -> tuple[Run | None, str | None]:
    """The twin whose accuracy counts, if any, and what a reader should know about it."""
    if not found:
        return None, None
    # Float networks that were trained as such come before what PTQ runs remember of them.
    twins = [twin for twin in found if twin.is_reference] or found
    best = min(twins, key=lambda twin: (-_accuracy(twin), twin.path))
    lowest = min(map(_accuracy, twins))
    if lowest == _accuracy(best):
        return best, None
    return best, (
        f"{len(twins)} twins measured different 32-bit accuracies ({lowest:.6g} to "
        f"{_accuracy(best):.6g}); the highest counts, of {best.path}"
    )


def _with(record: RunRecord, baseline_accuracy: float) -> RunRecord:
    """The record with a baseline accuracy that another record has, and so has been checked."""
    return RunRecord.of_checked(vars(record) | {"baseline_accuracy": baseline_accuracy})
