"""From a recorded forward pass to the graph of one time step."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from torch import Tensor, nn

from qspinn.plan.graph.events import UNKNOWN, Recording
from qspinn.plan.graph.graph import Graph, Indices, Operand, Operation, Readout, UnknownGraphError
from qspinn.plan.graph.readout import expanded
from qspinn.plan.graph.recording import Recorder
from qspinn.plan.graph.steps import STATIC, Piece, pieces_of
from qspinn.plan.graph.wiring import Draft, Key, Pattern, Wiring
from qspinn.plan.neurons import evaluation_mode, reset_states
from qspinn.plan.operations import tensors_in

__all__ = ["graph_of"]


def graph_of(module: nn.Module, example: Tensor) -> Graph:
    """The graph of a network, from one forward pass in evaluation mode.

    Args:
        module: Any network whose layers a plan understands. Batch norms must be folded, as
            :func:`qspinn.quantizers.attach` does. Its states are reset before and after.
        example: Its input, of one sample (a batch dimension of size 1); sequences of at least two
            time steps, so that what is fed back shows.

    Raises:
        UnknownGraphError: It does something that no operation says; the message names the module.
    """
    recorder = Recorder(module, example)
    reset_states(module)
    try:
        with evaluation_mode(module), recorder.hooked(), recorder:
            result = module(example)
    finally:
        reset_states(module)
    made = tensors_in(result)
    if not made or len({one.shape for one in made}) > 1:
        raise UnknownGraphError(f"the network returns {len(made)} tensors; a device has one output")
    output = [recorder.identities(one) for one in made]  # several: one for each time step
    recording = Recording(recorder.events, output[0] if len(output) == 1 else np.stack(output))
    pieces, steps = pieces_of(recording, module)
    return _Roller(recording, pieces, steps).graph()


@dataclass(eq=False)
class _Roller:
    recording: Recording
    pieces: list[Piece]
    steps: int

    def __post_init__(self) -> None:
        size = 1 + max(one.first + one.size for one in self.recording.events)
        self.piece_of = np.full(size, -1)
        self.place_of = np.full(size, -1)
        for number, piece in enumerate(self.pieces):
            self.piece_of[piece.numbers] = number
            self.place_of[piece.numbers] = np.arange(len(piece.numbers))
        self.step_of_piece = np.array([piece.step for piece in self.pieces])
        self.node_of_piece = np.full(len(self.pieces), -1)
        self.nodes: list[Piece] = []
        self.wiring = Wiring(self.nodes)

    def graph(self) -> Graph:
        answers = expanded(self.recording)
        needed = self._needed(answers.terms)
        self._number(needed)
        frame, stride = self._frame()
        for number, piece in enumerate(self.nodes):
            self._draft(number, piece)
        numbers = {draft.key: place for place, draft in enumerate(self.wiring.drafts)}
        operations = tuple(self._numbered(draft, numbers) for draft in self.wiring.drafts)
        node, table, over = self._answers(answers.terms)
        readout = Readout(numbers["node", node], table, over, answers.scale)
        return Graph(operations, readout, self.steps, frame, stride)

    def _needed(self, answers: Indices) -> set[int]:
        """The pieces that the answers depend on."""
        found: set[int] = set()
        neurons = {
            (piece.event.path, piece.step): piece.numbers
            for piece in self.pieces
            if piece.event.kind == "neuron"
        }
        waiting = [answers]
        while waiting:
            numbers = waiting.pop()
            for one in np.unique(self.piece_of[numbers[numbers > 0]]):
                if int(one) in found:
                    continue
                found.add(int(one))
                piece = self.pieces[one]
                self._check(piece)
                waiting += piece.taken
                if piece.event.kind == "neuron" and piece.step > 0:
                    # What it holds comes from the step before.
                    waiting.append(neurons[piece.event.path, piece.step - 1])
                if piece.event.kind == "state":
                    neuron = self.recording.events[int(piece.event.operands[0][0])]
                    waiting.append(neuron.identities.reshape(-1))
        return found

    def _check(self, piece: Piece) -> None:
        event = piece.event
        place = event.path or "the network itself"
        if event.kind == "unknown":
            raise UnknownGraphError(
                f"{place}: computes {event.what}, which no operation of a device model says; "
                "use layers, poolings, sums and products of spikes"
            )
        if any((one == UNKNOWN).any() for one in piece.taken):
            raise UnknownGraphError(
                f"{place}: {event.what or event.kind} takes a constant tensor that is neither a "
                "layer's parameter nor zero, or something that was computed outside of the network"
            )

    def _number(self, needed: set[int]) -> None:
        """Gives pieces of different steps that are the same operation one number."""
        given = [number for number in range(len(self.pieces)) if self._is_input(number)]
        taken = [number for number in given if number in needed]
        self.node_of_piece[taken] = 0
        first = next((n for n in taken if self.pieces[n].step in (self._middle, STATIC)), None)
        if first is None:
            raise UnknownGraphError("the output does not depend on the input")
        self.nodes.append(self.pieces[first])
        by_step: dict[int, list[int]] = defaultdict(list)
        read: dict[str, list[int]] = defaultdict(list)
        for number in sorted(needed - set(given)):
            piece = self.pieces[number]
            if piece.event.kind == "state":  # which may be read in the last step alone
                read[piece.event.path].append(number)
            else:
                by_step[piece.step].append(number)
        for number in by_step.pop(STATIC, []):
            self.node_of_piece[number] = len(self.nodes)
            self.nodes.append(self.pieces[number])
        reference = by_step.get(self._middle, [])
        begins = len(self.nodes)
        self.nodes += [self.pieces[number] for number in reference]
        computed: dict[int, list[int]] = defaultdict(list)
        for number, piece in enumerate(self.pieces):
            if not self._is_input(number) and piece.event.kind != "state":
                computed[piece.step].append(number)
        for step in range(self.steps):
            same = self._matched(step, computed[step], reference, set(by_step.get(step, [])))
            self.node_of_piece[same] = np.arange(begins, begins + len(same))
        for states in read.values():
            self.node_of_piece[states] = len(self.nodes)
            self.nodes.append(self.pieces[states[-1]])

    @property
    def _middle(self) -> int:
        """The step whose operations are those of all: neither the first nor the last if it can."""
        return min(1, self.steps - 1)

    def _is_input(self, number: int) -> bool:
        return self.pieces[number].event is self.recording.events[0]

    def _matched(
        self, step: int, computed: list[int], reference: list[int], needed: set[int]
    ) -> list[int]:
        """The pieces `computed` in a step that are the operations of `reference`, one for each.

        Some are not needed in the last step: what only the next one would take.
        """
        found: list[int] = []
        wanted = iter(reference)
        expected = next(wanted, None)
        for number in computed:
            piece = self.pieces[number]
            signature = None if expected is None else self.pieces[expected].signature
            if piece.signature == signature:
                found.append(number)
                expected = next(wanted, None)
            elif number in needed:
                raise UnknownGraphError(
                    f"{piece.event.path or 'the network itself'}: {piece.event.what or 'a layer'} "
                    f"is computed in step {step} where another step computes something else; a "
                    "device does the same in each step"
                )
        if expected is not None:
            piece = self.pieces[expected]
            raise UnknownGraphError(
                f"{piece.event.path or 'the network itself'}: {piece.event.what or 'a layer'} is "
                f"computed in step {piece.step} and not in step {step}; a device does the same in "
                "each step"
            )
        return found

    def _pattern(self, numbers: Indices, step: int) -> Pattern:
        known = numbers > 0
        pieces = np.where(known, self.piece_of[np.maximum(numbers, 0)], -1)
        steps = self.step_of_piece[pieces]
        nodes = np.where(known, self.node_of_piece[pieces], -1)
        delays = np.where(known & (steps != STATIC) & (step != STATIC), step - steps, 0)
        places = np.where(known, self.place_of[np.maximum(numbers, 0)], -1)
        return Pattern(nodes, delays, places)

    def _draft(self, number: int, piece: Piece) -> None:
        """Writes one operation, and the gathers that its operands take."""
        event, kind = piece.event, piece.event.kind
        if kind == "input":
            self.wiring.drafts.append(Draft(("node", 0), [], self._input(piece)))
            return
        if kind == "state":
            neuron = int(self.node_of_piece[self.piece_of[self._neuron_of(piece)]])
            operation = Operation("state", (), piece.shape, event.path)
            self.wiring.drafts.append(Draft(("node", number), [(("node", neuron), 0)], operation))
            return
        sources: list[tuple[Key, int]] = []
        table = None
        for place, taken in enumerate(piece.taken):
            pattern = self._pattern(taken.reshape(-1), piece.step)
            self._check_steps(number, piece, place, pattern)
            if kind in ("sum", "max"):
                source, table = self.wiring.with_table(pattern, taken.shape)
            else:
                source = self.wiring.gathered(pattern, event.path)
            sources.append(source)
        window = event.window
        if table is not None and window is not None:
            channels = len(table) // max(1, int(np.prod(window.output)))
            fits = np.array_equal(window.table(channels), table)
            window, table = (window, None) if fits else (None, table)
        operation = Operation(
            kind,  # type: ignore[arg-type]
            (),
            piece.shape,
            event.path,
            is_static=piece.step == STATIC,
            signs=event.signs,
            factor=event.factor,
            window=window,
            table=table,
            taken=piece.taken_shape,
            rows=piece.rows,
        )
        self.wiring.drafts.append(Draft(("node", number), sources, operation))

    def _neuron_of(self, piece: Piece) -> int:
        event = self.recording.events[int(piece.event.operands[0][0])]
        return int(event.identities.reshape(-1)[-1])

    def _input(self, piece: Piece) -> Operation:
        """A frame, in the shape in which the first layer takes it."""
        shapes = (
            one.taken_shape
            for one in self.pieces
            if one.taken_shape and np.array_equal(one.taken[0], piece.numbers)
        )
        shape = next(shapes, piece.shape)
        return Operation("input", (), shape, is_static=piece.step == STATIC)

    def _check_steps(self, number: int, piece: Piece, place: int, pattern: Pattern) -> None:
        """That the other steps take the same."""
        if ((pattern.delays < 0) | (pattern.delays > 1)).any():
            raise UnknownGraphError(
                f"{piece.event.path}: takes what was computed more than one step before"
            )
        if ((pattern.nodes < 0) & (pattern.places >= 0)).any():
            raise UnknownGraphError(f"{piece.event.path}: takes what differs from step to step")
        for other in np.flatnonzero(self.node_of_piece == number):
            one = self.pieces[other]
            if one is piece or one.step == self.steps - 1:
                continue  # in the last step what is not needed may be something else
            same = self._pattern(one.taken[place].reshape(-1), one.step)
            if not pattern.agrees(same, one.step == 0):
                raise UnknownGraphError(
                    f"{piece.event.path or 'the network itself'}: {piece.event.what} takes "
                    f"something else in step {one.step} than in step {piece.step}; a device does "
                    "the same in each step"
                )

    def _numbered(self, draft: Draft, numbers: dict[Key, int]) -> Operation:
        operands = tuple(Operand(numbers[key], delay) for key, delay in draft.sources)
        return replace(draft.operation, operands=operands)

    def _frame(self) -> tuple[Indices, int]:
        given = {one.step: one.numbers for n, one in enumerate(self.pieces) if self._is_input(n)}
        if self.nodes[0].step == STATIC:
            return given[STATIC] - 1, 0
        frames = [given[step] - 1 for step in range(self.steps) if step in given]
        stride = int(frames[1][0] - frames[0][0]) if len(frames) > 1 else 0
        for step, frame in enumerate(frames):
            if len(frames) != self.steps or not np.array_equal(frame, frames[0] + step * stride):
                raise UnknownGraphError("the time steps do not take one part of the input each")
        return frames[0], stride

    def _answers(self, terms: Indices) -> tuple[int, Indices, Literal["sum", "last", "each"]]:
        pieces = self.piece_of[terms]
        nodes, steps = self.node_of_piece[pieces], self.step_of_piece[pieces]
        if len(np.unique(nodes)) != 1:
            raise UnknownGraphError("the output adds up what different layers computed")
        node = int(nodes.flat[0])
        places = self.place_of[terms]
        if (steps == steps[:, :1]).all() and len(np.unique(steps)) == self.steps > 1:
            size = len(terms) // self.steps
            table = places.reshape(self.steps, size, -1)
            if (steps.reshape(self.steps, -1) == np.arange(self.steps)[:, None]).all() and (
                table == table[0]
            ).all():
                return node, table[0], "each"
        per_step = {
            int(s): np.sort(self._of_step(places, steps, s), axis=1) for s in np.unique(steps)
        }
        tables = list(per_step.values())
        if any(not np.array_equal(one, tables[0]) for one in tables[1:]):
            raise UnknownGraphError("the output counts some time steps in another way than others")
        if len(per_step) == self.steps:
            return node, tables[0], "sum"
        if list(per_step) in ([self.steps - 1], [STATIC]):
            return node, tables[0], "last"
        raise UnknownGraphError("the output counts some time steps and leaves out others")

    def _of_step(self, places: Indices, steps: Indices, step: int) -> Indices:
        chosen = steps == step
        counts = chosen.sum(axis=1)
        if (counts != counts[0]).any():
            raise UnknownGraphError("the outputs are sums of different numbers of terms")
        return places[chosen].reshape(len(places), -1)
