"""A selection as plain types: what selection.json and the page hold."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from qspinn.records import RunRecord
from qspinn.selection import REFERENCE, Dropped, Group, Row, Selection
from qspinn.selection.naming import CandidateNames
from qspinn.selection.search.significance import role_alone, significance
from qspinn.selection.verdict import Step, verdict

LEAST_SHOWN = 0.01
"""Accuracy that pictures show below the candidates, at least."""


def lowest_shown(selection: Selection) -> float | None:
    """The accuracy from which on pictures show what was compared; None: everything.

    That is as far below the worst candidate as the best is above it. Candidates far
    below the target would leave no room for the differences that matter.
    """
    if not selection.rows:
        return None
    groups = [row.group for row in selection.compared]
    best = max(group.accuracy + (group.accuracy_std or 0.0) for group in groups)
    worst = min(row.group.accuracy for row in selection.rows)
    lowest = worst - max(best - worst, LEAST_SHOWN)
    return lowest if min(group.accuracy for group in groups) < lowest else None


def selection_values(
    selection: Selection, skipped: Sequence[str] = (), failed: Sequence[str] = ()
) -> dict[str, Any]:
    """Plain types for `selection.json`.

    Args:
        selection: What was chosen.
        skipped: A line for each record that could not be read.
        failed: A line for each run that failed.
    """
    winner, said = selection.winner, verdict(selection)
    return {
        "target": dataclasses.asdict(selection.target),
        "reward": selection.reward,
        "chosen_by": selection.chosen_by,
        "reported": None if winner is None else _accuracies(winner.group.reported),
        "winner": None if winner is None else winner.group.path,
        "winner_summary": None if winner is None else winner.group.record.summary,
        "winner_formats": {} if winner is None else winner.group.record.formats,
        "reason": selection.reason,
        "headline": said.headline,
        "details": list(said.details),
        "runner_up": None if said.runner_up is None else said.runner_up.group.path,
        "larger": _step_values(said.larger),
        "smaller": _step_values(said.smaller),
        "common": selection.names.common,
        "hypervolume": selection.hypervolume,
        "hypervolume_reference": {"share": REFERENCE[0], "accuracy": REFERENCE[1]},
        "choices": choice_values(selection),
        "front": [row.group.path for row in selection.front],
        "candidates": [row_values(row, selection.names) for row in selection.rows],
        "dropped": [row_values(item, selection.names) for item in selection.dropped],
        "notes": list(selection.notes),
        "skipped": list(skipped),
        "failed": list(failed),
    }


def choice_values(selection: Selection) -> list[dict[str, Any]]:
    """The choices: path, and the weights `mu` from and to; None: unbounded."""
    return [
        {
            "path": selection.rows[choice.index].group.path,
            "from_mu": choice.low,
            "to_mu": None if math.isinf(choice.high) else choice.high,
        }
        for choice in selection.choices
    ]


def _step_values(step: Step | None) -> dict[str, Any] | None:
    """An alternative: path, and how many bits and how much accuracy (a fraction) more."""
    if step is None:
        return None
    return {"path": step.row.group.path, "bits": step.bits, "accuracy": step.accuracy}


def row_values(row: Row | Dropped, names: CandidateNames) -> dict[str, Any]:
    """A candidate or what was dropped, as plain types; the records stay in their files."""
    path = row.group.path
    about = {"number": names.numbers[path], "name": names.names[path]}
    values = about | _group_values(row.group)
    if isinstance(row, Row):
        return values | {"reward": row.reward, "dominated_by": row.dominated_by}
    return values | {"reasons": list(row.reasons)}


def _group_values(group: Group) -> dict[str, Any]:
    record = group.record
    memory, learning = group.memory(), group.memory(learning=True)
    return {
        "path": group.path,
        "paths": [run.path for run in group.runs],
        "baseline_paths": [run.baseline_path for run in group.runs],
        "scheme": record.scheme,
        "rounding": record.rounding,
        "word_lengths": record.word_lengths,
        "network": record.network,
        "data": record.data,
        "seeds": list(group.seeds),
        **_accuracies(group),
        "drop": group.drop,
        "quantized_parameters_share": record.parameters_share,
        "quantized_states_share": record.states_share,
        "footprint_bits": group.footprint_bits,
        "baseline_footprint_bits": group.baseline_footprint_bits,
        "reduction": group.reduction,
        "flash_bits": memory["flash"],
        "ram_bits": memory["ram"],
        "learning_flash_bits": learning["flash"],
        "learning_ram_bits": learning["ram"],
        "energy_nj": group.energy_nj,
        "agreement": group.agreement,
    }


def _accuracies(group: Group) -> dict[str, Any]:
    return {
        "accuracy": group.accuracy,
        "accuracy_std": group.accuracy_std,
        "accuracy_interval": group.interval,
        "baseline_accuracy": group.baseline_accuracy,
        "samples": group.samples,
    }


def significance_curves(selection: Selection) -> list[dict[str, Any]]:
    """Accuracy by word length of each role that was quantised alone, where there are such runs.

    Runs of different data, networks, schemes or roundings make curves of their own.
    """
    found: dict[tuple[str, ...], list[RunRecord]] = defaultdict(list)
    for row in selection.compared:
        for run in row.group.runs:
            record = run.record
            if role_alone(record) is not None and record.drop is not None:
                kind = (record.data, record.network, record.scheme, record.rounding or "")
                found[kind].append(record)
    curves = []
    for about, records in sorted(found.items()):
        suffix = "" if len(found) == 1 else f" ({', '.join(about)})"
        for one in significance(records)[0]:
            points = [
                {
                    "word_length": point.word_length,
                    "accuracy": point.accuracy,
                    "accuracy_std": point.deviation if point.runs > 1 else None,
                }
                for point in one.points
            ]
            curves.append({"name": one.name + suffix, "points": points})
    return curves
