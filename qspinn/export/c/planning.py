"""Where the values of a time step lie: what is shared, and what stays until the next step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from qspinn.export.c.lanes import LaneOrder, lane_order
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
        lanes: Whether they are sums of two channels in each word, see
            :mod:`qspinn.export.c.lanes`; and how the weights lie that they are made from.
    """

    expression: str
    kind: str
    interleaved: bool = False
    lanes: LaneOrder | None = None


@dataclass(eq=False)
class Plan:
    """The buffers of a model.

    Attributes:
        lanes: Whether sums may lie two in a word.
        places: Operation -> where its output lies.
        scratch: Operation -> where a layer adds up, whose output is then put in order.
        slots: Buffers that operations share, one after the other: type -> values in each.
        kept: Buffers of their own: name, type, values.
        before: Operation -> where its output of the step before lies.
    """

    lanes: bool
    places: dict[int, Place] = field(default_factory=dict)
    scratch: dict[int, Place] = field(default_factory=dict)
    slots: list[dict[str, int]] = field(default_factory=list)
    kept: list[tuple[str, str, int]] = field(default_factory=list)
    before: dict[int, Place] = field(default_factory=dict)


def plan_of(program: Program, lanes: bool = True) -> Plan:
    """Gives each output a buffer; one that is not read any more is used again.

    Args:
        program: The model, lowered.
        lanes: Whether sums may lie two in a word.
    """
    plan, model = Plan(lanes), program.model
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
    in_place = isinstance(one.what, Synapse) and _all_neurons(program, number)
    interleaved = convolves and in_place
    sums = plain = Place("", kind)
    if plan.lanes and isinstance(one.what, Synapse) and kind == "int16_t":
        sums = _lanes(program, one) or plain
    made = replace(sums if in_place else plain, interleaved=interleaved)
    size = operation.size if made.lanes is None else operation.size // 2
    if operation.is_static or isinstance(one.what, Total):
        plan.kept.append((f"value{number}", made.kind, size))
        plan.places[number] = replace(made, expression=f"s->value{number}")
    else:
        plan.places[number] = _slot(plan, busy, end, made, size)
    if not in_place and (convolves or sums.lanes is not None):
        size = operation.size if sums.lanes is None else operation.size // 2
        scratch = replace(sums, interleaved=convolves)
        plan.scratch[number] = _slot(plan, busy, number, scratch, size)


def _lanes(program: Program, one: Instruction) -> Place | None:
    """Sums of a layer, two in a word, where its weights can lie accordingly."""
    what = one.what
    assert isinstance(what, Synapse)
    assert one.weight is not None
    source = program.instructions[one.operation.operands[0].source]
    fmt = program.model.tensors[what.weight].format
    if what.groups > 1 or one.operation.rows > 1 or source.word_length > 32:
        return None
    order = lane_order(fmt.word_length, fmt.signed, len(one.weight), fmt.is_sign)
    return None if order is None else Place("", "uint32_t", lanes=order)


def _slot(plan: Plan, busy: dict[int, int], end: int, place: Place, size: int) -> Place:
    """A free buffer, for so many values of the type of `place`."""
    kind = place.kind
    free = [slot for slot in range(len(plan.slots)) if slot not in busy]
    if not free:
        plan.slots.append({})
        free = [len(plan.slots) - 1]
    slot = free[0]
    busy[slot] = end
    plan.slots[slot][kind] = max(size, plan.slots[slot].get(kind, 0))
    return replace(place, expression=f"s->slot{slot}.{member(kind)}")


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
    if not takers or delayed or read:
        return False
    return all(isinstance(one, Neuron) for one in takers)


def _kind(one: Instruction) -> str:
    """The smallest type for all outputs, and for what sums are on the way to them.

    Sums over time steps get 32 bits: there can be more steps than the model has.
    """
    if isinstance(one.what, Total | LabelSums):
        return "int32_t" if one.word_length <= 32 else "int64_t"
    if isinstance(one.what, Synapse):
        return holding(-1 << (one.word_length - 1), (1 << (one.word_length - 1)) - 1)
    return holding(one.low, one.high)
