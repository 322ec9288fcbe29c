"""The page: one HTML file with everything in it, for any browser, without a network."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from statistics import fmean
from typing import Any
from urllib.parse import quote

from qspinn.atomic import write_text
from qspinn.records import RECORD_NAME, RunRecord
from qspinn.report.cells import is_partly_quantized, quantized_shares, shown_path, words
from qspinn.report.data import choice_values, lowest_shown
from qspinn.report.footprint import device_model_lines
from qspinn.report.heat import heat_values
from qspinn.selection import Dropped, Row, Selection
from qspinn.selection.target import candidates
from qspinn.selection.verdict import verdict

MOST_POINTS = 5000
"""Candidates that a page holds: the front, then the best. The page says how many are left out."""

_SCRIPTS = ("choice.js", "sliders.js", "chart.js", "tables.js", "behaviour.js", "page.js")


def page(
    selection: Selection,
    significance: Sequence[Mapping[str, Any]] = (),
    problems: Sequence[str] = (),
    folder: str | os.PathLike[str] | None = None,
) -> str:
    """The text of the page.

    Args:
        selection: What to show.
        significance: A curve per role (and layer) that was quantised alone: `{"name", "points"}`,
            each point `{"word_length", "accuracy", "accuracy_std"}`.
        problems: A line for each record that was skipped and each run that failed.
        folder: Where the page will lie, for links to records; None: no links.
    """
    data = {**_about(selection), **_winner(selection)}
    rows = selection.compared
    shown = rows[: max(MOST_POINTS, len(selection.front))]
    hard = _missed_otherwise(selection)
    data |= {
        "points": [_Point(selection, row, folder).values(hard) for row in shown],
        "partly": any(is_partly_quantized(row.group.record) for row in shown),
        "lowest_shown": lowest_shown(selection),
        "left_out": len(rows) - len(shown),
        "heat": heat_values(selection),
        "significance": list(significance),
        "notes": [*selection.notes],
        "problems": list(problems),
    }
    # In a script element nothing but `<` can end the data: as an escape it cannot either.
    encoded = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    before, after = _part("page.html").split("@DATA@")
    before = before.replace("@STYLE@", _part("style.css"))
    script = "\n".join(_part(name) for name in _SCRIPTS)
    return before + encoded + after.replace("@SCRIPT@", script)


def write_page(
    selection: Selection,
    path: str | os.PathLike[str],
    significance: Sequence[Mapping[str, Any]] = (),
    problems: Sequence[str] = (),
) -> Path:
    """Write the page, all of it or nothing; see `page`."""
    return write_text(page(selection, significance, problems, Path(path).parent), path)


def _part(name: str) -> str:
    return resources.files("qspinn.report").joinpath("web", name).read_text(encoding="utf-8")


def _about(selection: Selection) -> dict[str, Any]:
    """What the page says of the selection as a whole."""
    said, target = verdict(selection), selection.target
    turns = [choice.low for choice in selection.choices if choice.low > 0]
    return {
        "target": str(target),
        "bounds": {"max_drop": target.max_drop, "flash": target.flash, "ram": target.ram},
        "learning": target.learning,
        "mu": selection.mu,
        "turns": turns,
        "reward": selection.reward,
        "headline": said.headline,
        "details": list(said.details),
        "common": selection.names.common if len(selection.compared) > 1 else "",
        "chosen_by": selection.chosen_by,
        "hypervolume": selection.hypervolume,
        "choices": [
            c | {"name": selection.names.numbered(c["path"]), "path": shown_path(c["path"])}
            for c in choice_values(selection)
        ],
    }


def _winner(selection: Selection) -> dict[str, Any]:
    """What the page says of the winner's record."""
    winner = selection.winner
    record = None if winner is None else winner.group.record
    is_float = record is None or record.scheme == "none"
    return {
        "winner": None if winner is None else 0,
        "formats": {} if record is None else record.formats,
        "summary": [] if record is None or is_float else record.summary_lines,
        "fidelity": None if record is None else record.fidelity,
        "work": [] if record is None or record.work is None else record.work.get("lines", []),
        "device": [] if record is None else _device_lines(record),
    }


def _device_lines(record: RunRecord) -> list[str]:
    """Whether the winner's device model was checked, and what it takes."""
    return [*device_model_lines(record), *(record.device_model or {}).get("lines", [])]


def _missed_otherwise(selection: Selection) -> dict[str, str]:
    """Path to what is missed of the bounds that the page has no slider for."""
    target = dataclasses.replace(selection.target, max_drop=None, flash=None, ram=None)
    split = candidates([row.group for row in selection.compared], target)
    return {item.group.path: "; ".join(item.reasons) for item in split.dropped}


@dataclasses.dataclass(frozen=True)
class _Point:
    """What the page holds of a candidate."""

    selection: Selection
    row: Row | Dropped
    folder: str | os.PathLike[str] | None

    def values(self, hard: Mapping[str, str]) -> dict[str, Any]:
        """Plain types; of `hard` see `_missed_otherwise`."""
        return self._numbers() | self._texts() | {"hard": hard.get(self.row.group.path, "")}

    def _numbers(self) -> dict[str, Any]:
        group = self.row.group
        memory = group.memory(self.selection.target.learning)
        return {
            "number": self.selection.names.numbers[group.path],
            "seeds": list(group.seeds),
            "bits": group.footprint_bits,
            "share": fmean(run.record.share for run in group.runs),
            "accuracy": group.accuracy,
            "std": group.accuracy_std,
            "interval": group.interval,
            "baseline": group.baseline_accuracy,
            "drop": group.drop,
            "reduction": group.reduction,
            "flash": memory["flash"],
            "ram": memory["ram"],
            "energy": group.energy_nj,
            "agreement": group.agreement,
            "quantized_least": _least_quantized(group.record),
        }

    def _texts(self) -> dict[str, Any]:
        row, group, names = self.row, self.row.group, self.selection.names
        record = group.record
        values = {
            "name": names.names[group.path],
            "title": names.titles[group.path],
            "path": shown_path(group.path),
            "link": self._link(),
            "scheme": record.scheme,
            "rounding": record.rounding or "-",
            "network": record.network,
            "data": record.data,
            "words": words(record.word_lengths),
            "quantized": "-" if group.is_reference else quantized_shares(record),
        }
        if isinstance(row, Row):
            state = "front" if row.on_front else "dominated"
            return values | {"state": state, "reward": row.reward, "why": ""}
        return values | {"state": "dropped", "why": "; ".join(row.reasons)}

    def _link(self) -> str | None:
        """The record's file, as seen from the page; None where there is no such file."""
        path = Path(self.row.group.path)
        if self.folder is None or path.name != RECORD_NAME:
            return None
        try:
            if not path.is_file():
                return None
            relative = os.path.relpath(path, self.folder)
        except (OSError, ValueError):  # a name that no file can have; another drive
            return None
        return quote(Path(relative).as_posix(), safe="/")


def _least_quantized(record: RunRecord) -> float | None:
    """What runs are sorted by: the smaller share, of parameters or of states."""
    shares = [s for s in (record.parameters_share, record.states_share) if s is not None]
    return min(shares) if shares and record.scheme != "none" else None
