"""What a network answers, as sums of what its layers computed."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from qspinn.plan.graph.events import Event, Recording
from qspinn.plan.graph.graph import Indices, UnknownGraphError


@dataclass(eq=False)
class Expanded:
    """Answers as sums.

    Attributes:
        terms: Identities: ``[answers, terms]``.
        scale: What each sum is multiplied by.
    """

    terms: Indices
    scale: Fraction


def expanded(recording: Recording) -> Expanded:
    """The answers as sums of numbers that no addition made.

    Raises:
        UnknownGraphError: Terms that count differently.
    """
    firsts = np.array([event.first for event in recording.events])
    answers = recording.output.reshape(-1)
    waiting: list[tuple[Indices, Fraction]] = [(answers[:, None], Fraction(1))]
    found: list[tuple[Indices, Fraction]] = []
    while waiting:
        numbers, scale = waiting.pop()
        for columns, event in _by_event(numbers, firsts, recording.events):
            if event is None:  # zeros, with which a sum begins
                continue
            operands = _terms(event, columns)
            if not operands:
                found.append((columns, scale))
            for terms, factor in operands:
                waiting.append((terms, scale * factor))
    if not found:
        raise UnknownGraphError("the output does not depend on any layer")
    scales = {scale for _, scale in found}
    if len(scales) > 1:
        raise UnknownGraphError(
            f"the output adds up numbers with different factors ({_shown(scales)}); a device adds "
            "up spikes or potentials as they are"
        )
    return Expanded(np.concatenate([columns for columns, _ in found], axis=1), scales.pop())


def _by_event(
    numbers: Indices, firsts: Indices, events: list[Event]
) -> list[tuple[Indices, Event | None]]:
    """The columns, by the event that made them; those of several rows at once where they agree."""
    if (numbers < 0).any():
        raise UnknownGraphError("the output depends on a constant tensor that is no layer's")
    owners = np.searchsorted(firsts, numbers, side="right") - 1
    owners[numbers == 0] = -1
    if len(numbers) and (owners == owners[:1]).all():
        return [
            (numbers[:, owners[0] == owner], None if owner < 0 else events[owner])
            for owner in np.unique(owners[0])
        ]
    kinds = {events[owner].kind for owner in np.unique(owners) if owner >= 0}
    if kinds & {"sum", "scale", "add"}:
        raise UnknownGraphError("the output is put together from sums of different layers")
    return [(numbers, events[owners.max()])]


def _terms(event: Event, numbers: Indices) -> list[tuple[Indices, Fraction]]:
    """What sums of `numbers` are sums of; nothing where no addition made them."""
    places = numbers - event.first
    if event.kind == "sum":
        rows = event.operands[0].reshape(event.size, -1)[places]
        return [(rows.reshape(len(numbers), -1), Fraction(1))]
    if event.kind == "scale":
        return [(event.operands[0].reshape(-1)[places], event.factor)]
    if event.kind == "add":
        pairs = zip(event.operands, event.signs, strict=True)
        return [(one.reshape(-1)[places], Fraction(sign)) for one, sign in pairs]
    return []


def _shown(scales: set[Fraction]) -> str:
    return ", ".join(str(one) for one in sorted(scales)[:3])
