"""Which accuracies choose: those on validation data, unless test data are asked for.

The best of many accuracies is, on the data that chose it, better than on others. So one part of
the data chooses, and the accuracy on another part is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qspinn.records import MEASURED_ON
from qspinn.selection.runs import Run


@dataclass(frozen=True)
class ChosenBy:
    """Runs whose records hold the accuracies that choose.

    Attributes:
        runs: Those that have such accuracies.
        chosen_by: What chooses, `validation` or `test`.
        notes: What a reader should know about it.
    """

    runs: tuple[Run, ...]
    chosen_by: str
    notes: tuple[str, ...]


def check_chosen_by(chosen_by: object) -> None:
    """Refuse what is no name of data.

    Raises:
        ValueError: It says what to write.
    """
    if chosen_by not in MEASURED_ON:
        raise ValueError(
            f"select.by={chosen_by!r}; write validation (held out of the training data) or test "
            "(then the accuracy of what is chosen is the best of many, and too high)"
        )


def runs_chosen_by(runs: Sequence[Run], chosen_by: str = "validation") -> ChosenBy:
    """Put the accuracies that choose into the records of runs.

    Runs without a validation accuracy are of an earlier qspinn, or their data have no validation
    part. Among others that have one they are left out, and a note says so; where none has one, all
    are compared by test data, and a note says that.

    Args:
        runs: With their records as they were read.
        chosen_by: `validation` or `test`.
    """
    check_chosen_by(chosen_by)
    if chosen_by == "test":
        note = (
            "test data chose (select.by=test), so the accuracy of what is chosen is the best of "
            "many on the same data, and too high for other data"
        )
        return ChosenBy(tuple(runs), chosen_by, (note,))
    known, unknown = [], []
    for run in runs:
        choosing = run.record.measured_on(chosen_by)
        if choosing is None:
            unknown.append(run)
        else:
            known.append(Run(run.path, choosing, run.baseline_path, run.record))
    if known and not unknown:
        return ChosenBy(tuple(known), chosen_by, ())
    if known:
        note = (
            f"{len(unknown)} of {len(runs)} runs have only test figures and are left out (run them "
            f"again, or write select.by=test for all); the first is {unknown[0].path}"
        )
        return ChosenBy(tuple(known), chosen_by, (note,))
    note = (
        "these records have only test figures (no part of the training data was held out, or an "
        "earlier qspinn wrote them), so test data chose: the accuracy of what is chosen is the "
        "best of many on the same data, and too high for other data"
    )
    return ChosenBy(tuple(runs), "test", (note,))
