"""The page: one HTML file with everything in it, for any browser, without a network."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from qspinn.records import RunRecord, write_text
from qspinn.report.cells import quantized_shares, shown_path, words
from qspinn.report.data import choice_values, lowest_shown
from qspinn.selection import Dropped, Row, Selection

__all__ = ["MOST_POINTS", "page", "write_page"]

MOST_POINTS = 5000
"""Candidates that a page holds: the front, then the best. The page says how many are left out."""


def page(
    selection: Selection,
    significance: Sequence[Mapping[str, Any]] = (),
    problems: Sequence[str] = (),
) -> str:
    """The text of the page.

    Args:
        selection: What to show.
        significance: A curve per role (and layer) that was quantised alone: `{"name", "points"}`,
            each point `{"word_length", "accuracy", "accuracy_std"}`.
        problems: A line for each record that was skipped and each run that failed.
    """
    rows = selection.compared
    shown = rows[: max(MOST_POINTS, len(selection.front))]
    winner = selection.winner
    record = None if winner is None else winner.group.record
    data = {
        "target": str(selection.target),
        "reward": selection.reward,
        "reason": f"{selection.reason} {selection.report}".strip(),
        "chosen_by": selection.chosen_by,
        "hypervolume": selection.hypervolume,
        "winner": None if winner is None else 0,
        "points": [_point(row) for row in shown],
        "lowest_shown": lowest_shown(selection),
        "left_out": len(rows) - len(shown),
        "choices": [c | {"path": shown_path(c["path"])} for c in choice_values(selection)],
        "formats": {} if record is None else record.formats,
        "summary": [] if record is None or record.scheme == "none" else record.summary_lines,
        "significance": list(significance),
        "notes": [*selection.notes],
        "problems": list(problems),
    }
    # In a script element nothing but `<` can end the data: as an escape it cannot either.
    encoded = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    folder = resources.files("qspinn.report")
    template = folder.joinpath("page.html").read_text(encoding="utf-8")
    script = folder.joinpath("page.js").read_text(encoding="utf-8")
    before, after = template.split("@DATA@")
    return before.replace("@SCRIPT@", script) + encoded + after.replace("@SCRIPT@", script)


def write_page(
    selection: Selection,
    path: str | os.PathLike[str],
    significance: Sequence[Mapping[str, Any]] = (),
    problems: Sequence[str] = (),
) -> Path:
    """Write the page, all of it or nothing; see `page`."""
    return write_text(page(selection, significance, problems), path)


def _point(row: Row | Dropped) -> dict[str, Any]:
    group = row.group
    record = group.record
    values = {
        "path": shown_path(group.path),
        "scheme": record.scheme,
        "rounding": record.rounding or "-",
        "network": record.network,
        "data": record.data,
        "words": words(record.word_lengths),
        "seeds": list(group.seeds),
        "bits": group.footprint_bits,
        "accuracy": group.accuracy,
        "std": group.accuracy_std,
        "interval": group.interval,
        "drop": group.drop,
        "reduction": group.reduction,
        "quantized": "-" if group.is_reference else quantized_shares(record),
        "quantized_least": _least_quantized(record),
    }
    if isinstance(row, Row):
        state = "front" if row.on_front else "dominated"
        return values | {"state": state, "reward": row.reward}
    return values | {"state": "dropped", "why": "; ".join(row.reasons)}


def _least_quantized(record: RunRecord) -> float | None:
    """What runs are sorted by: the smaller share, of parameters or of states."""
    shares = [s for s in (record.parameters_share, record.states_share) if s is not None]
    return min(shares) if shares and record.scheme != "none" else None
