"""Metrics by step, sent as complete rows, each once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

STEP = "trainer/global_step"
"""Lightning's name of the step in W&B."""


class History:
    """Collects what is logged at each step and sends a row per step, in order.

    A receiver such as W&B accepts each row once. So a row is sent when it is complete: when a
    step after the next one is logged (pictures of an epoch are logged one step after its metrics),
    or when :meth:`flush` is called.

    Args:
        send: Takes a row and its place; places grow.
        start: The first place that the receiver does not have. What is logged again before it,
            by a run that resumes from a checkpoint, is not sent again.
    """

    def __init__(self, send: Callable[[dict[str, Any], int], None], start: int = 0) -> None:
        self._send = send
        self._start = start
        self._rows: dict[int, dict[str, Any]] = {}
        self._sent: dict[str, Any] = {}  # the last row
        self._sent_step = -1
        self._next = start

    def add(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Put values into the row of a step; None: the latest row."""
        if step is None:
            step = max(self._rows, default=max(self._sent_step, self._next - 1, 0))
        if step < self._start:
            return
        if step <= self._sent_step:
            self._add_late(values, step)
            return
        self._rows.setdefault(step, {}).update(values)
        self._send_up_to(step - 2)

    def flush(self, step: int | None = None) -> None:
        """Send the rows up to a step; None: all."""
        self._send_up_to(max(self._rows, default=-1) if step is None else step)

    def hand_over(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Send rows, each with its ``step``, of an earlier process that are not there yet."""
        for row in rows:
            self.add({k: v for k, v in row.items() if k != "step"}, int(row["step"]))
        self.flush()

    def waiting(self) -> dict[str, Any]:
        """Return the latest values of what has not been sent."""
        return {k: v for step in sorted(self._rows) for k, v in self._rows[step].items()}

    def _add_late(self, values: Mapping[str, Any], step: int) -> None:
        """A row of its own for what is new; Lightning repeats the metrics of an epoch."""
        if step == self._sent_step:
            values = {k: v for k, v in values.items() if repr(self._sent.get(k)) != repr(v)}
        if values:
            self._emit(dict(values), step)

    def _send_up_to(self, step: int) -> None:
        for known in sorted(self._rows):
            if known <= step:
                self._sent, self._sent_step = self._rows.pop(known), known
                self._emit(self._sent, known)

    def _emit(self, row: dict[str, Any], step: int) -> None:
        place = max(step, self._next)
        self._next = place + 1
        self._send({**row, STEP: step}, place)
