"""Find the 32-bit accuracy of runs that did not measure it, from the records of their twins."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from qspinn.records import RunRecord, baseline_key_of
from qspinn.selection.runs import Run

__all__ = ["fill_baselines"]


def fill_baselines(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Give each run without a `baseline_accuracy` the one of its 32-bit twin, where there is one.

    A twin agrees in data, network and the whole configuration (seed included) apart from
    quantisation. A `scheme=none` run is its own baseline, and the first choice as a twin; next
    are PTQ runs, which measured the same float network before quantising it. Where twins disagree
    (other library versions, say) the highest accuracy counts, the strictest target, and a note
    says so. Interrupted runs are no twins.

    Returns:
        The runs in the given order, and notes for the reader.
    """
    own = [_own_baseline(run) for run in runs]
    if all(run.record.baseline_accuracy is not None for run in own):
        return own, []
    twins: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in own:
        if run.record.baseline_accuracy is not None and run.record.status == "completed":
            twins[_key(run)].append(run)
    best = {key: _best(found) for key, found in twins.items()}
    filled: list[Run] = []
    notes: dict[str, None] = {}  # a set that keeps the order
    for run in own:
        if run.record.baseline_accuracy is None:
            twin, note = best.get(_key(run), (None, None))
            if twin is not None:
                record = _with(run.record, _accuracy(twin))
                run = replace(run, record=record, baseline_path=twin.path)
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


def _best(found: list[Run]) -> tuple[Run, str | None]:
    """The twin whose accuracy counts, and what a reader should know about it."""
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
