"""A record together with where it was read, and which runs may be compared at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from qspinn.records import RunRecord


@dataclass(frozen=True)
class Run:
    """One run that takes part in a selection.

    Attributes:
        path: Of the record; what reports call the run, and the last tie-break.
        record: What was measured, with the accuracies that choose.
        baseline_path: Record of the twin that the baseline accuracy was taken from; None where
            the run measured its own, or has none.
        reported: The record as it was read, with the accuracies on test data; None: `record` is.
    """

    path: str
    record: RunRecord
    baseline_path: str | None = None
    reported: RunRecord | None = None

    @property
    def is_reference(self) -> bool:
        """Whether this is the 32-bit network itself."""
        return self.record.scheme == "none"


class MixedRunsError(ValueError):
    """Runs of different data or network were to be compared without being asked for."""


def check_comparable(runs: Iterable[Run]) -> None:
    """Refuse runs whose data or network differ: their accuracies and footprints mean other things.

    Raises:
        MixedRunsError: Names the data and networks found and how many runs have each.
    """
    groups = Counter((run.record.data, run.record.network) for run in runs)
    if len(groups) <= 1:
        return
    listed = "; ".join(
        f"data {data}, network {network}: {count} {'run' if count == 1 else 'runs'}"
        for (data, network), count in sorted(groups.items())
    )
    raise MixedRunsError(
        f"the runs differ in data or network ({listed}); name the runs of one of these, or set "
        "allow_mixed=true to compare them nevertheless"
    )
