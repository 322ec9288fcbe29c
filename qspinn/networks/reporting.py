"""What networks share that say by themselves how much they compute."""

from __future__ import annotations

from typing import Any

from spikingjelly.activation_based import base

__all__ = ["ReportsWork"]


class ReportsWork(base.MemoryModule):
    """Knows who asks what is computed, if anybody does."""

    _report: Any = None

    def report_work(self, report: Any) -> None:
        """Reports from now on; nothing more, for None."""
        self._report = report

    def _tell_sequence(self, samples: int) -> None:
        if self._report is not None:
            self._report.sequence(samples)
