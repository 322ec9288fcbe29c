"""Which time step each recorded number belongs to.

Layers say it: neurons that are given a sequence, or are called once per step; other layers by how
many vectors or images they were given. What is computed between them belongs to the latest step
that it takes numbers from, and the numbers of the input to the step that takes them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from torch import nn

from qspinn.plan.graph.events import Event, Recording
from qspinn.plan.graph.graph import Indices, UnknownGraphError

STATIC = -1
_LAYERS = frozenset({"synapse", "neuron", "declared"})


@dataclass(eq=False)
class Piece:
    """What an event computes in one time step.

    Attributes:
        event: The event.
        step: The step, or `STATIC`.
        numbers: Identities of what it made in that step, in order.
        taken: Identities of what it took: one row for each number that it made; of a layer its
            input.
        shape: Of what it made, for one sample.
        taken_shape: Of a layer's input, for one sample.
        rows: Vectors that a linear layer was given.
    """

    event: Event
    step: int
    numbers: Indices
    taken: tuple[Indices, ...]
    shape: tuple[int, ...]
    taken_shape: tuple[int, ...] = ()
    rows: int = 1

    @property
    def signature(self) -> tuple[object, ...]:
        """What is the same in each step."""
        event = self.event
        return event.kind, event.path, event.what, self.shape, event.signs, event.factor


def pieces_of(recording: Recording, module: nn.Module) -> tuple[list[Piece], int]:
    """All pieces, in the order in which they were computed, and the number of time steps."""
    steps = _count_steps(recording)
    layers = _layer_pieces(recording, module, steps)
    step_of = np.full(1 + max(e.first + e.size for e in recording.events), STATIC)
    for piece in (one for pieces in layers.values() for one in pieces):
        step_of[piece.numbers] = piece.step
    given = recording.events[0]
    span = slice(given.first, given.first + given.size)
    step_of[span] = 0 if steps == 1 else _steps_of_input(recording, layers, len(step_of))[span]
    found: list[Piece] = []
    for number, event in enumerate(recording.events):
        if number in layers:
            found += layers[number]
            continue
        _mark(event, recording, step_of, layers)
        found += _split(event, step_of)
    return found, steps


def _count_steps(recording: Recording) -> int:
    counts: dict[str, int] = defaultdict(int)
    for event in recording.events:
        if event.kind == "neuron":
            counts[event.path] += event.operands[0].shape[0] if event.is_multi else 1
    if not counts:
        return 1
    steps = min(counts.values())
    for path, count in counts.items():
        if count != steps:
            raise UnknownGraphError(
                f"{path}: its neurons do {count} steps where others do {steps}; a device does one "
                "step of all layers at a time"
            )
    return steps


def _layer_pieces(recording: Recording, module: nn.Module, steps: int) -> dict[int, list[Piece]]:
    found: dict[int, list[Piece]] = {}
    calls: dict[str, int] = defaultdict(int)
    total: dict[str, int] = defaultdict(int)
    for event in recording.events:
        total[event.path] += event.kind in _LAYERS
    for number, event in enumerate(recording.events):
        if event.kind not in _LAYERS:
            continue
        call = calls[event.path]
        calls[event.path] += 1
        if event.kind != "synapse":
            found[number] = _of_neurons(event, call)
            continue
        sites = max(1, total[event.path] // steps)
        own = call // sites if total[event.path] % steps == 0 else STATIC
        weight = module.get_submodule(event.path).weight
        found[number] = _of_synapse(event, max(weight.dim() - 2, 0), own, steps)  # type: ignore[operator]
    return found


def _of_neurons(event: Event, call: int) -> list[Piece]:
    taken, made = event.operands[0], event.identities
    if not event.is_multi:
        taken, made, first = taken[None], made[None], call
    else:
        first = call * len(taken)
    shape = _without_batch(made.shape[1:])
    return [
        Piece(event, first + t, out.reshape(-1), (given.reshape(-1),), shape, shape)
        for t, (given, out) in enumerate(zip(taken, made, strict=True))
    ]


def _of_synapse(event: Event, spatial: int, call: int, steps: int) -> list[Piece]:
    taken, made = event.operands[0], event.identities
    given, shape = taken.shape[-1 - spatial :], made.shape[-1 - spatial :]
    rows = math.prod(taken.shape[: -1 - spatial])
    multi = steps > 1 and rows % steps == 0
    count = steps if multi else 1
    if spatial and rows != count:
        raise UnknownGraphError(
            f"{event.path}: convolves {rows // count} images in a step; write an example with one "
            "sample"
        )
    each = rows // count
    if each > 1:
        given, shape = (each, *given), (each, *shape)
    takens, mades = taken.reshape(count, -1), made.reshape(count, -1)
    first = 0 if multi or steps == 1 else call
    return [
        Piece(event, first + t, mades[t], (takens[t],), shape, given, each) for t in range(count)
    ]


def _without_batch(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:] if len(shape) > 1 and shape[0] == 1 else shape


def _steps_of_input(
    recording: Recording, layers: dict[int, list[Piece]], identities: int
) -> Indices:
    """The one step in which a number is taken; `STATIC` where there are several, or none."""
    first = np.full(identities, np.iinfo(np.int64).max)
    last = np.full(identities, STATIC)
    for pieces in layers.values():
        for piece in pieces:
            taken = piece.taken[0][piece.taken[0] > 0]
            first[taken] = np.minimum(first[taken], piece.step)
            last[taken] = np.maximum(last[taken], piece.step)
    for number, event in reversed(list(enumerate(recording.events))):
        if number in layers or event.kind in ("input", "state"):
            continue
        numbers = event.identities.reshape(-1)
        for operand in event.operands:
            rows = operand.reshape(len(numbers), -1) if event.kind != "unknown" else None
            if rows is None:
                continue
            for column in rows.T:
                known = column > 0
                np.minimum.at(first, column[known], first[numbers[known]])
                np.maximum.at(last, column[known], last[numbers[known]])
    return np.where(first == last, first, STATIC)


def _mark(
    event: Event, recording: Recording, step_of: Indices, layers: dict[int, list[Piece]]
) -> None:
    """Says of an event between layers which steps its numbers belong to."""
    numbers = event.identities.reshape(-1)
    if event.kind == "input":
        return
    if event.kind == "state":
        step_of[numbers] = layers[int(event.operands[0][0])][-1].step
        return
    if event.kind == "unknown":
        taken = np.concatenate([one[one > 0] for one in event.operands])
        step_of[numbers] = step_of[taken].max(initial=STATIC)
        return
    for operand in event.operands:
        rows = operand.reshape(len(numbers), -1)
        steps = np.where(rows > 0, step_of[np.maximum(rows, 0)], STATIC)
        step_of[numbers] = np.maximum(step_of[numbers], steps.max(axis=1))


def _split(event: Event, step_of: Indices) -> list[Piece]:
    numbers = event.identities.reshape(-1)
    steps = step_of[numbers]
    pieces = []
    for step in np.unique(steps):
        places = np.flatnonzero(steps == step)
        taken: tuple[Indices, ...] = ()
        if event.kind not in ("input", "state", "unknown"):
            taken = tuple(one.reshape(len(numbers), -1)[places] for one in event.operands)
        shape = _shape_of(event.shape, len(places))
        pieces.append(Piece(event, int(step), numbers[places], taken, shape))
    return pieces


def _shape_of(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """The last axes that hold so many numbers, or one axis."""
    for axis in range(len(shape) - 1, -1, -1):
        if math.prod(shape[axis:]) == size:
            return shape[axis:]
    return (size,)
