"""From a program to a list of calls of kernels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qspinn.export.kernels.calls import (
    CALL,
    COMBINE,
    INPUT,
    LARGEST,
    PLASTIC,
    PRODUCT,
    ROUND,
    SUM,
    SYNAPSE,
    Listing,
)
from qspinn.export.kernels.listed_neurons import neuron_call
from qspinn.export.kernels.listed_plastic import plastic_call, waiting_size
from qspinn.export.kernels.orders import Order, element_places, neighbours, orders_of, same
from qspinn.export.kernels.pools import Numbers, Pool
from qspinn.export.kernels.scatter import scatter_of
from qspinn.export.kernels.widths import is_narrow
from qspinn.export.model import (
    AdaptiveNeuron,
    Arithmetic,
    Compare,
    Gather,
    Input,
    LabelSums,
    Neuron,
    NotExportableError,
    Pooling,
    RandomSpikes,
    Round,
    State,
    Synapse,
    Total,
    Trace,
)
from qspinn.export.program import Instruction, Program, places_of
from qspinn.plan.graph import Operand

__all__ = ["Listing", "listing_of"]


def listing_of(program: Program) -> Listing:
    """Lists the calls of a program.

    Raises:
        NotExportableError: An operation for which there is no kernel; the message names it.
    """
    return _Lister(program).listing(np.int32 if is_narrow(program) else np.int64)


@dataclass(eq=False)
class _Lister:
    program: Program
    calls: list[dict[str, int]] = field(default_factory=list)
    constants: Pool = field(default_factory=Pool)
    tables: Pool = field(default_factory=Pool)
    start: Pool = field(default_factory=Pool)
    size: int = 0
    states: dict[int, int] = field(default_factory=dict)
    previous: dict[int, int] = field(default_factory=dict)
    outs: dict[int, int] = field(default_factory=dict)
    shown: dict[int, int] = field(default_factory=dict)
    waiting: dict[int, int] = field(default_factory=dict)
    most_inputs: int = 0
    drawn: int = 0

    def __post_init__(self) -> None:
        self.orders = orders_of(self.program)
        operations = self.program.model.operations
        for number, one in enumerate(operations):
            if isinstance(one.what, Neuron):
                self.states[number] = self.start.add(np.full(one.size, one.what.initial))
            elif isinstance(one.what, AdaptiveNeuron):
                self.states[number] = self.start.add(np.zeros(one.size))
                self.waiting[number] = self.start.add(np.zeros(waiting_size(one)))
            elif isinstance(one.what, Trace | Total):  # whose output is the state
                self.outs[number] = self.start.add(np.zeros(one.size))
        for source in sorted({o.source for one in operations for o in one.operands if o.delay}):
            self.previous[source] = self.start.add(np.zeros(operations[source].size))
        self.size = self.start.size
        for number, one in enumerate(operations):
            if number not in self.outs:
                self.outs[number] = self._room(one.size)

    def listing(self, dtype: type[np.int32] | type[np.int64]) -> Listing:
        for number, one in enumerate(self.program.instructions):
            what = type(one.what)
            if what not in _LISTED:
                raise NotExportableError(
                    f"{one.operation.path or number}: {what.__name__} has no compiled kernel; run "
                    "it with qspinn.export.IntegerEngine"
                )
            _LISTED[what](self, number, one)
            self.calls[-1]["checks"] = isinstance(one.what, Synapse | Pooling | Arithmetic)
        for source, place in self.previous.items():
            size = self.program.model.operations[source].size
            self._combine(source, self.outs[source], out=place, size=size, once=0)
        kinds = {call["kind"] for call in self.calls}
        return Listing(
            self._records(),
            self.start.joined(dtype),
            self.size,
            self.constants.joined(dtype),
            self.tables.joined(np.int32),
            self._answers(),
            self.most_inputs,
            len(self.shown),
            self.drawn,
            not kinds.isdisjoint(PLASTIC),
            dtype,
        )

    def _records(self) -> NDArray[Any]:
        records = np.zeros(len(self.calls), CALL)
        for record, call in zip(records, self.calls, strict=True):
            for name, value in call.items():
                record[name] = value
        return records

    def _answers(self) -> Numbers:
        output, model = self.program.model.output, self.program.model
        size = model.operations[output.operation].size
        places = element_places(self.orders[output.operation], size)
        return self.outs[output.operation] + places[model.table(output.table)]

    def _room(self, size: int) -> int:
        self.size += size
        return self.size - size

    def _call(self, number: int, kind: int, **fields: int) -> None:
        operation = self.program.model.operations[number]
        call = {"kind": kind, "operation": number, "once": int(operation.is_static)}
        call |= {"out": self.outs[number], "size": operation.size, "order": -1}
        call |= {"final": int(operation.is_final), "shown": -1}
        self.calls.append(call | fields)

    def _place(self, operand: Operand) -> int:
        return self.previous[operand.source] if operand.delay else self.outs[operand.source]

    def _aligned(self, number: int, operand: Operand) -> int:
        """Where an operand lies in the order of an operation, element by element."""
        order, given = self.orders[number], self.orders[operand.source]
        size = self.program.model.operations[number].size
        taken = self.program.model.operations[operand.source].size
        assert taken == size, (number, taken, size)
        if same(order, given):
            return self._place(operand)
        table = self._place(operand) + element_places(given, size)
        out = self._room(size)
        self._read(number, SUM, table.reshape(-1, 1), order, out=out)
        return out

    def _read(self, number: int, kind: int, table: Numbers, order: Order, **fields: int) -> None:
        """Sums or maxima over places, ``[size, terms]`` in the order of elements."""
        table = table if order is None else table[order]
        block = neighbours(table)
        kept = self.tables.add(table[::block])
        self._call(number, kind, table=kept, terms=table.shape[1], block=block, **fields)

    def _combine(self, number: int, x: int, factor: int = 1, **fields: int) -> None:
        self._call(number, COMBINE, x=x, factor=factor, **fields)

    def input(self, number: int, one: Instruction) -> None:
        self._call(number, INPUT)

    def synapse(self, number: int, one: Instruction) -> None:
        scatter, operand = scatter_of(one), one.operation.operands[0]
        source = self.program.instructions[operand.source]
        order, inputs = self.orders[operand.source], len(scatter.channel)
        elements = np.arange(inputs) if order is None else order
        weights = self.constants.add(scatter.weight)
        slots = np.stack(
            [
                scatter.position[elements],
                weights + scatter.channel[elements] * scatter.weight.shape[1],
                self.outs[number] + scatter.sums[elements],
            ],
            axis=1,
        )
        runs = self.tables.add(scatter.runs)
        self.most_inputs = max(self.most_inputs, inputs)
        self._call(
            number,
            SYNAPSE,
            x=self._place(operand),
            inputs=inputs,
            binary=int(source.low >= 0 and source.high <= 1),
            channels=scatter.channels,
            none=self.constants.add(np.zeros(scatter.weight.shape[1], np.int64)),
            bias=-1 if one.bias is None else self.constants.add(one.bias),
            slots=self.tables.add(slots),
            starts=self.tables.add(runs + 3 * scatter.starts),
        )

    def neuron(self, number: int, one: Instruction) -> None:
        x = self._aligned(number, one.operation.operands[0])
        self._call(number, **neuron_call(one, self.orders[number], self.constants))
        self.calls[-1] |= {"x": x, "state": self.states[number], "order": self._order(number)}

    def round(self, number: int, one: Instruction) -> None:
        assert one.to is not None
        x = self._aligned(number, one.operation.operands[0])
        shifts = {"up": max(-one.down, 0), "down": max(one.down, 0)}
        order = self._order(number)
        self._call(number, ROUND, x=x, order=order, **shifts, **one.to._asdict())

    def _order(self, number: int) -> int:
        order = self.orders[number]
        return -1 if order is None else self.tables.add(order)

    def arithmetic(self, number: int, one: Instruction) -> None:
        places = [self._aligned(number, operand) for operand in one.operation.operands]
        kind = one.what.kind
        if kind == "multiply":
            self._call(number, PRODUCT, x=places[0], y=places[1])
        elif kind == "scale":
            self._combine(number, places[0], one.factor)
        elif kind == "offset":
            self._combine(number, places[0], 1 << one.ups[0], offset=one.factor)
        else:
            factors = [sign << up for sign, up in zip(one.what.signs, one.ups, strict=True)]
            for index, (x, factor) in enumerate(zip(places, factors, strict=True)):
                self._combine(number, x, factor, adds=int(index > 0))

    def pooling(self, number: int, one: Instruction) -> None:
        what, operand = one.what, one.operation.operands[0]
        table = places_of(self.program.model, one.operation)
        if what.kind == "max" and bool((table < 0).all(-1).any()):
            raise NotExportableError(f"{one.operation.path}: a maximum of nothing")
        size = self.program.model.operations[operand.source].size
        places = self._place(operand) + element_places(self.orders[operand.source], size)
        kind = SUM if what.kind == "sum" else LARGEST
        self._read(number, kind, _looked_up(places, table), self.orders[number])

    def gather(self, number: int, one: Instruction) -> None:
        parts = []
        for operand, up in zip(one.operation.operands, one.ups, strict=True):
            size = self.program.model.operations[operand.source].size
            place = self._place(operand)
            if up:
                lifted = self._room(size)
                self._combine(number, place, 1 << up, out=lifted, size=size)
                place = lifted
            parts.append(place + element_places(self.orders[operand.source], size))
        table = places_of(self.program.model, one.operation).reshape(-1, 1)
        self._read(number, SUM, _looked_up(np.concatenate(parts), table), self.orders[number])

    def plastic(self, number: int, one: Instruction) -> None:
        x, call = self._aligned(number, one.operation.operands[0]), plastic_call(one)
        self._call(number, **call, x=x, order=self._order(number))

    def adaptive(self, number: int, one: Instruction) -> None:
        self.plastic(number, one)
        fields = {"state": self.states[number], "waiting": self.waiting[number]}
        fields["threshold"] = self.constants.add(one.threshold)
        for chances in one.operation.operands[1:]:
            fields["shown"] = self.shown[chances.source]
        self.calls[-1] |= fields

    def random_spikes(self, number: int, one: Instruction) -> None:
        self.plastic(number, one)
        self.shown[number] = len(self.shown)
        self.calls[-1] |= {"shown": self.shown[number], "words": self.drawn}
        self.drawn += one.operation.size

    def total(self, number: int, one: Instruction) -> None:
        x = self._aligned(number, one.operation.operands[0])
        self._combine(number, x, adds=1, begins=one.what.first)

    def label_sums(self, number: int, one: Instruction) -> None:
        operand, classes = one.operation.operands[0], one.operation.size
        assert one.weight is not None
        places = element_places(self.orders[operand.source], len(one.weight))
        places = self._place(operand) + places
        table = np.full((classes, np.bincount(one.weight).max()), -1)
        for label in range(classes):
            of_label = places[one.weight == label]
            table[label, : len(of_label)] = of_label
        self._read(number, SUM, table, self.orders[number])

    def state(self, number: int, one: Instruction) -> None:
        source = one.operation.operands[0].source
        if same(self.orders[source], self.orders[number]):
            self._combine(number, self.states[source])
            return
        places = self.states[source] + element_places(self.orders[source], one.operation.size)
        self._read(number, SUM, places.reshape(-1, 1), self.orders[number])


_LISTED: dict[type, Any] = {
    Input: _Lister.input,
    Synapse: _Lister.synapse,
    Neuron: _Lister.neuron,
    Round: _Lister.round,
    Arithmetic: _Lister.arithmetic,
    Pooling: _Lister.pooling,
    Gather: _Lister.gather,
    State: _Lister.state,
    Trace: _Lister.plastic,
    Compare: _Lister.plastic,
    AdaptiveNeuron: _Lister.adaptive,
    RandomSpikes: _Lister.random_spikes,
    Total: _Lister.total,
    LabelSums: _Lister.label_sums,
}


def _looked_up(places: Numbers, table: Numbers) -> Numbers:
    """Places of the elements that a table names; -1 stays."""
    return np.where(table < 0, -1, places[table])
