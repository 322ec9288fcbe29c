"""Where the values of a time step lie: what is shared, and what stays until the next step."""

from __future__ import annotations

from dataclasses import dataclass, field

from qspinn.export.c.text import holding
from qspinn.export.model import Input, LabelSums, Neuron, Synapse, Total
from qspinn.export.program import Instruction, Program

__all__ = ["Place", "Plan", "plan_of"]


@dataclass(frozen=True)
class Place:
    """Where the output of an operation lies.

    Attributes:
        expression: A pointer to its first value, in a function that has the state ``s``.
        kind: Type of a value.
        interleaved: Whether the values of all channels at one place follow each other, as
            convolutions compute them; else in the order of the model.
    """

    expression: str
    kind: str
    interleaved: bool = False


@dataclass(eq=False)
class Plan:
    """The buffers of a model.

    Attributes:
        places: Operation -> where its output lies.
        scratch: Operation -> where a convolution adds up, whose output is then put in order.
        slots: Buffers that operations share, one after the other: type -> values in each.
        kept: Buffers of their own: name, type, values.
        before: Operation -> where its output of the step before lies.
    """

    places: dict[int, Place] = field(default_factory=dict)
    scratch: dict[int, Place] = field(default_factory=dict)
    slots: list[dict[str, int]] = field(default_factory=list)
    kept: list[tuple[str, str, int]] = field(default_factory=list)
    before: dict[int, Place] = field(default_factory=dict)


def plan_of(program: Program) -> Plan:
    """Gives each output a buffer; one that is not read any more is used again."""
    plan, model = Plan(), program.model
    last: dict[int, int] = {}
    for number, one in enumerate(model.operations):
        for operand in one.operands:
            if operand.delay == 0:
                last[operand.source] = number
    last[model.output.operation] = len(model.operations)
    delayed = sorted({o.source for one in model.operations for o in one.operands if o.delay})
    for source in delayed:
        last[source] = len(model.operations)
        kind = _kind(program.instructions[source])
        plan.kept.append((f"before{source}", kind, model.operations[source].size))
        plan.before[source] = Place(f"s->before{source}", kind)
    busy: dict[int, int] = {}  # slot -> the operation after which it is free
    for number, instruction in enumerate(program.instructions):
        busy = {slot: end for slot, end in busy.items() if end >= number}
        _place(plan, program, number, instruction, busy, last.get(number, number))
    return plan


def _place(
    plan: Plan, program: Program, number: int, one: Instruction, busy: dict[int, int], end: int
) -> None:
    kind, operation = _kind(one), one.operation
    if isinstance(one.what, Input):
        plan.places[number] = Place("input", kind)
        return
    convolves = isinstance(one.what, Synapse) and len(operation.shape) > 1 and bool(one.what.stride)
    interleaved = convolves and _all_neurons(program, number)
    if operation.is_static or isinstance(one.what, Total):
        plan.kept.append((f"value{number}", kind, operation.size))
        plan.places[number] = Place(f"s->value{number}", kind, interleaved)
    else:
        plan.places[number] = _slot(plan, busy, end, kind, operation.size, interleaved)
    if convolves and not interleaved:
        plan.scratch[number] = _slot(plan, busy, number, kind, operation.size, True)


def _slot(
    plan: Plan, busy: dict[int, int], end: int, kind: str, size: int, interleaved: bool
) -> Place:
    free = [slot for slot in range(len(plan.slots)) if slot not in busy]
    if not free:
        plan.slots.append({})
        free = [len(plan.slots) - 1]
    slot = free[0]
    busy[slot] = end
    plan.slots[slot][kind] = max(size, plan.slots[slot].get(kind, 0))
    return Place(f"s->slot{slot}.{member(kind)}", kind, interleaved)


def member(kind: str) -> str:
    """The name of a buffer of this type in a slot: ``int32_t`` -> ``i32``."""
    return kind.removesuffix("_t").replace("uint", "u").replace("int", "i")


def _all_neurons(program: Program, number: int) -> bool:
    model = program.model
    takers = [
        one.what
        for one in model.operations
        for operand in one.operands
        if operand.source == number and operand.delay == 0
    ]
    delayed = any(o.source == number and o.delay for one in model.operations for o in one.operands)
    read = model.output.operation == number
    return not delayed and not read and all(isinstance(one, Neuron) for one in takers)


def _kind(one: Instruction) -> str:
    """The smallest type for all outputs, and for what sums are on the way to them.

    Sums over time steps get 32 bits: there can be more steps than the model has.
    """
    if isinstance(one.what, Total | LabelSums):
        return "int32_t" if one.word_length <= 32 else "int64_t"
    if isinstance(one.what, Synapse):
        return holding(-1 << (one.word_length - 1), (1 << (one.word_length - 1)) - 1)
    return holding(one.low, one.high)
