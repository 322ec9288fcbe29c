"""The functions and buffers that a model has in C."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qspinn.export.c.between import between_function, table_text
from qspinn.export.c.codes import PackedArrays
from qspinn.export.c.neurons import neuron_function
from qspinn.export.c.planning import Plan, plan_of
from qspinn.export.c.plastic import PLASTIC, plastic_function, plastic_members
from qspinn.export.c.reading import Ending
from qspinn.export.c.site import Site, StateArray
from qspinn.export.c.synapses import synapse_function
from qspinn.export.c.text import Lines, bytes_of, comment, holding, identifier
from qspinn.export.model import (
    AdaptiveNeuron,
    Input,
    Neuron,
    RandomSpikes,
    Round,
    State,
    Synapse,
    Trace,
)
from qspinn.export.program import Instruction, Program, word_length_of
from qspinn.steps.targets.c import c_random
from qspinn.steps.words import STOCHASTIC

__all__ = ["CSizes", "Source"]

_MOST_STEPS = 1 << 16
"""Time steps whose counts an answer must hold."""


@dataclass(frozen=True)
class CSizes:
    """What the code of a model takes.

    Attributes:
        payload_bits: Weights, biases, thresholds and decays, at their word lengths.
        constant_bytes: All constant arrays: those, padding, and tables of the wiring.
        state_bytes: States of neurons.
        buffer_bytes: What layers hand to each other.
        ram_bytes: The whole struct, but for what a compiler aligns.
        files: Names of what was written.
        learner_bytes: The struct of what goes on learning, but for what a compiler aligns.
    """

    payload_bits: int
    constant_bytes: int
    state_bytes: int
    buffer_bytes: int
    ram_bytes: int
    files: tuple[str, ...] = ()
    learner_bytes: int = 0


class Source:
    """The functions and buffers of a model in C.

    Attributes:
        program: The model, lowered.
        prefix: Of all names that others see.
        plan: Where values lie.
        names: Of the functions of all operations.
        arrays: Constants, and the functions that read them.
        tables: Definitions of the tables of the wiring.
        functions: Definitions of one function for each operation.
        calls: Operation -> its call in a time step.
        endings: Layer -> what is left to do to its sums, by what takes them.
        states: Operation -> its states.
        draws: Operations that draw random numbers.
        answer_kind: Type of an answer.
        reads_in_order: Whether the answers are sums of values that follow each other.
    """

    def __init__(self, program: Program, prefix: str, packed: bool, learning: bool = False) -> None:
        self.program, self.model, self.prefix = program, program.model, prefix
        self.plan: Plan = plan_of(program, not learning)  # a learner reads weights one by one
        self.names = [
            identifier(f"op{number}_{one.path}") if one.path else f"op{number}"
            for number, one in enumerate(self.model.operations)
        ]
        self.arrays = PackedArrays()
        self.tables: list[str] = []
        self.functions: list[str] = []
        self.calls: dict[int, str] = {}
        self.endings: dict[int, Ending] = {}
        self.states = {
            number: StateArray.of(number, one, self.arrays, packed)
            for number, one in enumerate(program.instructions)
            if isinstance(one.what, Neuron | Trace | AdaptiveNeuron)
        }
        self.draws = [
            number
            for number, one in enumerate(program.instructions)
            if isinstance(one.what, Neuron | Round | Trace) and one.to.mode == STOCHASTIC  # type: ignore[union-attr]
        ]
        output = self.model.output
        read = program.instructions[output.operation]
        terms = self.model.tables[output.table].shape[1]
        terms *= 1 if output.over == "last" else _MOST_STEPS
        low, high = read.low * terms, read.high * terms
        if word_length_of(low, high) > 64:
            raise ValueError(
                f"sums of answers, over up to {_MOST_STEPS:,} time steps, need "
                f"{word_length_of(low, high)} bits, and C has 64 bits; write shorter word lengths"
            )
        self.answer_kind = holding(min(low, -(1 << 31)), max(high, (1 << 31) - 1))
        for number, one in enumerate(program.instructions):
            self._operation(number, one)
        table = self.model.table(output.table)
        self.reads_in_order = np.array_equal(table.reshape(-1), np.arange(table.size))
        if not self.reads_in_order:
            self.tables.append(table_text("places_of_answers", table))

    @property
    def input_kind(self) -> str:
        """Type of a code of the input."""
        return self.plan.places[0].kind

    def _operation(self, number: int, one: Instruction) -> None:
        if isinstance(one.what, Input):
            return
        operands = one.operation.operands
        site = Site(
            model=self.model,
            prefix=self.prefix,
            name=self.names[number],
            number=number,
            one=one,
            sources=tuple(self.program.instructions[o.source] for o in operands),
            taken=tuple(
                self.plan.before[o.source] if o.delay else self.plan.places[o.source]
                for o in operands
            ),
            made=self.plan.places[number],
            arrays=self.arrays,
            tables=self.tables,
            states=self.states.get(number),
            scratch=self.plan.scratch.get(number),
            endings=self.endings,
        )
        text, given = self._function(site)
        self.functions.append(f"{comment(self._about(number, one))}\n{text}")
        self.calls[number] = f"{site.name}({', '.join(given)});"

    def _function(self, site: Site) -> tuple[str, list[str]]:
        """The definition of a function, and what it is given in a time step."""
        what, made = site.one.what, site.made.expression
        taken = [place.expression for place in site.taken]
        if isinstance(what, Synapse):
            sums = [] if site.scratch is None else [site.scratch.expression]
            return synapse_function(site), [*taken, *sums, made]
        if isinstance(what, Neuron):
            return neuron_function(site), ["s", *taken, made]
        if isinstance(what, PLASTIC):
            return plastic_function(site), ["s", taken[0], made]
        if isinstance(what, State):
            return self._state(site), ["s", made]
        return between_function(site), [*(["s"] if site.draws else []), *taken, made]

    def _about(self, number: int, one: Instruction) -> str:
        kind = type(one.what).__name__.lower()
        shape = "x".join(map(str, one.operation.shape))
        grid = f"steps of 2^{-one.fraction_bits}" if one.fraction_bits else "whole numbers"
        return (
            f"Operation {number}, {kind} {one.operation.path}: {shape} values of "
            f"[{one.low}, {one.high}], {grid}."
        )

    def _state(self, site: Site) -> str:
        code, state = Lines(), self.states[site.one.operation.operands[0].source]
        code(f"static void {site.name}(const {self.prefix}_state *s, {site.made.kind} *value)", "{")
        code("uint32_t i;")
        code.loop("i", site.size)
        code(f"value[i] = ({site.made.kind}){state.get};")
        code.close()
        code("}")
        return str(code)

    def members(self) -> list[tuple[str, str, int]]:
        """Name, type and entries of the arrays that a state has for itself."""
        members = [(one.name, one.kind, one.entries) for one in self.states.values()]
        for number, one in enumerate(self.program.instructions):
            members += plastic_members(number, one)
        return members + self.plan.kept

    @property
    def random(self) -> str | None:
        """The functions of random bits, where any are drawn."""
        kinds = [one.what for one in self.program.instructions]
        spreads = any(
            isinstance(what, AdaptiveNeuron) and what.rounding == "stochastic" for what in kinds
        )
        if self.draws or any(isinstance(what, RandomSpikes) for what in kinds):
            return c_random(spreads=spreads)
        return None

    @property
    def finals(self) -> list[str]:
        """Calls of what is computed after the last step."""
        operations = self.model.operations
        return [call for number, call in self.calls.items() if operations[number].is_final]

    def sizes(self) -> CSizes:
        """What the code takes; call it when the text is written."""
        tables = sum(_array_bytes(text) for text in self.arrays.texts + self.tables)
        states = sum(bytes_of(one.kind) * one.entries for one in self.states.values())
        named = {one.name for one in self.states.values()}
        buffers = sum(
            bytes_of(kind) * entries for name, kind, entries in self.members() if name not in named
        )
        buffers += sum(
            max(bytes_of(kind) * entries for kind, entries in slot.items())
            for slot in self.plan.slots
        )
        answers = bytes_of(self.answer_kind) * self.model.answers
        answers *= 2 if self.model.output.over == "each" else 1
        ram = states + buffers + answers + 4 + 16 * len(self.draws)
        return CSizes(self.arrays.payload_bits, tables, states, buffers, ram)


def _array_bytes(text: str) -> int:
    """The bytes of a constant array, from its definition."""
    kind, rest = text.removeprefix("static const ").split(" ", 1)
    return bytes_of(kind) * int(rest[rest.index("[") + 1 : rest.index("]")])
