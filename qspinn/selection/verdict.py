"""The verdict in words: the winner, the alternatives, and what each would change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from qspinn.selection.groups import Group, beside
from qspinn.selection.quantities import shown_energy, shown_memory
from qspinn.selection.selection import Row, Selection
from qspinn.selection.target import Dropped


@dataclass(frozen=True)
class Step:
    """A candidate beside the winner, and what it would change.

    Attributes:
        row: It, whether or not it meets the target.
        bits: Footprint that it takes more (negative: less).
        accuracy: Accuracy that it gains (negative: loses), a fraction.
    """

    row: Row | Dropped
    bits: float
    accuracy: float


@dataclass(frozen=True)
class Verdict:
    """The verdict on a selection.

    Attributes:
        headline: One sentence.
        details: More sentences, the most important first.
        runner_up: Second best of the candidates on the front; None where there is none.
        larger: The smallest that is more accurate than the winner; None likewise.
        smaller: The most accurate that is smaller.
    """

    headline: str
    details: tuple[str, ...]
    runner_up: Row | None = None
    larger: Step | None = None
    smaller: Step | None = None


def verdict(selection: Selection) -> Verdict:
    """Make the verdict on a selection."""
    winner = selection.winner
    if winner is None:
        nearest = selection.dropped[0]
        return Verdict(
            f"No candidate meets the target ({selection.target}).",
            (
                f"The nearest is {selection.names.titles[nearest.group.path]}: "
                f"{'; '.join(nearest.reasons)}.",
            ),
        )
    front = selection.front
    runner_up = front[1] if len(front) > 1 else None
    larger, smaller = _larger(selection, winner), _smaller(selection, winner)
    details = [*_about(selection, winner.group)]
    if runner_up is not None:
        details.append(f"Runner-up: {_entry(selection, runner_up.group)}.")
    details += _steps(selection, larger, smaller)
    return Verdict(_headline(selection, winner.group), tuple(details), runner_up, larger, smaller)


def _headline(selection: Selection, group: Group) -> str:
    """The winner in one sentence: `PTQ, 3-bit weights, nearest: 10.3x smaller, 0.1 points ...`."""
    title = selection.names.titles[group.path]
    if group.is_reference:
        return f"{title}: no quantised candidate has a higher reward."
    reported = group.reported
    data = "" if selection.chosen_by == "test" else " on the test data"
    if reported.drop is None:
        accuracy = f"accuracy {100 * reported.accuracy:.2f}%"
    else:
        accuracy = f"{beside(reported.drop)} 32-bit"
    return f"{title}: {group.reduction:.1f}x smaller, {accuracy}{data}."


def _about(selection: Selection, group: Group) -> Iterator[str]:
    """Accuracies, memory, energy and behaviour of the winner."""
    has_drop = group.drop is not None and not group.is_reference
    drop = f", {beside(group.drop or 0.0)} the 32-bit baseline" if has_drop else ""
    seeds = f", mean of {len(group.runs)} seeds" if len(group.runs) > 1 else ""
    yield f"Chosen by {selection.chosen_by} accuracy: {group.accuracy_in_words}{drop}{seeds}."
    if selection.report:
        yield selection.report
    size = f"{shown_memory(group.footprint_bits)} instead of "
    size += shown_memory(group.baseline_footprint_bits)
    learning = selection.target.learning
    memory = group.memory(learning)
    if memory["flash"] is not None and memory["ram"] is not None:
        flash, ram = shown_memory(memory["flash"]), shown_memory(memory["ram"])
        size += f"; {'to learn, ' if learning else ''}{flash} in flash, {ram} in RAM"
    yield f"Memory: {size}."
    if group.energy_nj is not None:
        yield f"Energy: {shown_energy(group.energy_nj)} per sample, estimated from operations."
    if group.agreement is not None and not group.is_reference:
        yield f"It classifies {100 * group.agreement:.1f}% of samples as its 32-bit twin does."


def _entry(selection: Selection, group: Group) -> str:
    drop = "" if group.drop is None else f", {beside(group.drop)} 32-bit"
    return f"{selection.names.numbered(group.path)}: {group.reduction:.1f}x smaller{drop}"


def _larger(selection: Selection, winner: Row) -> Step | None:
    """The smallest candidate that is larger and more accurate, whether or not it fits."""
    own = winner.group
    found = [
        row
        for row in _complete(selection)
        if row.group.footprint_bits > own.footprint_bits and row.group.accuracy > own.accuracy
    ]
    return _step(winner, found, lambda group: (group.footprint_bits, -group.accuracy))


def _smaller(selection: Selection, winner: Row) -> Step | None:
    """The most accurate candidate that is smaller, whether or not it meets the target."""
    bits = winner.group.footprint_bits
    found = [row for row in _complete(selection) if row.group.footprint_bits < bits]
    return _step(winner, found, lambda group: (-group.accuracy, group.footprint_bits))


def _complete(selection: Selection) -> Iterator[Row | Dropped]:
    yield from (row for row in selection.compared if row.group.record.status == "completed")


def _step(
    winner: Row, found: Sequence[Row | Dropped], key: Callable[[Group], tuple[float, float]]
) -> Step | None:
    """To the first of some candidates by a key; None where there is none."""
    best = min(found, key=lambda row: key(row.group), default=None)
    if best is None:
        return None
    own, group = winner.group, best.group
    return Step(best, group.footprint_bits - own.footprint_bits, group.accuracy - own.accuracy)


def _steps(selection: Selection, larger: Step | None, smaller: Step | None) -> Iterator[str]:
    if larger is None:
        yield "Nothing larger is more accurate."
    else:
        yield (
            f"One step larger: {100 * larger.accuracy:.2f} points more for "
            f"{shown_memory(larger.bits)} more, {_named(selection, larger)}."
        )
    if smaller is not None:
        change = "less" if smaller.accuracy <= 0 else "more"
        yield (
            f"One step smaller: {abs(100 * smaller.accuracy):.2f} points {change} for "
            f"{shown_memory(-smaller.bits)} less, {_named(selection, smaller)}."
        )


def _named(selection: Selection, step: Step) -> str:
    name = selection.names.numbered(step.row.group.path)
    if isinstance(step.row, Row):
        return name
    return f"{name}, which misses the target ({'; '.join(step.row.reasons)})"
