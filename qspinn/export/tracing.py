"""What a device model computes, step by step: the names of its values, and their codes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qspinn.export.engine import IntegerEngine
from qspinn.export.model import (
    Codes,
    DeviceModel,
    DeviceOperation,
    Input,
    Neuron,
    Round,
    State,
    Synapse,
)
from qspinn.plan.graph import Operand
from qspinn.steps.models import MODELS

__all__ = ["Trace", "Traced", "names_of", "trace", "with_potentials"]


def names_of(model: DeviceModel) -> tuple[str, ...]:
    """A name for the output of each operation, all of them different.

    ``input``; for layers their path in the network; ``PATH.v`` for the potential after the step;
    ``PATH.input`` for the rounded input of a layer. Other operations are called by their kind and
    the module that does them. Further operations of one name get ``#2``, ``#3``, ...
    """
    found: list[str] = []
    seen: dict[str, int] = {}
    for one in model.operations:
        name = _name(one)
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return tuple(found)


def _name(one: DeviceOperation) -> str:
    what = one.what
    if isinstance(what, Input):
        return "input"
    if isinstance(what, Synapse | Neuron):
        return one.path
    if isinstance(what, State):
        return f"{one.path}.v"
    if isinstance(what, Round):
        return f"{one.path}.input"
    kind = getattr(what, "kind", type(what).__name__.lower())
    return f"{one.path}.{kind}" if one.path else str(kind)


def with_potentials(model: DeviceModel) -> DeviceModel:
    """The model with an operation more for each layer of neurons, which reads its potential.

    Nothing else changes: the new operations are the last ones, and nothing takes them.
    """
    read = {one.operands[0].source for one in model.operations if isinstance(one.what, State)}
    added = [
        DeviceOperation(State(), (Operand(number),), one.shape, one.path)
        for number, one in enumerate(model.operations)
        if isinstance(one.what, Neuron)
        and not MODELS[one.what.model].reads_out
        and number not in read
    ]
    return replace(model, operations=(*model.operations, *added))


@dataclass(frozen=True, eq=False)
class Traced:
    """One value of a device model over time.

    Attributes:
        codes: ``[steps, N, *]``; ``[1, N, *]`` of what is computed once, before the first step.
        fraction_bits: A code stands for ``code * 2^-fraction_bits``.
        order: Its place within a time step.
    """

    codes: Codes
    fraction_bits: int
    order: int


@dataclass(frozen=True, eq=False)
class Trace:
    """All values of a device model over time.

    Attributes:
        values: Name, as :func:`names_of` gives it -> value, in the order within a step.
        sums: The answers, as :class:`~qspinn.export.engine.Answers` has them.
        fraction_bits: Of the answers.
    """

    values: Mapping[str, Traced]
    sums: Codes
    fraction_bits: int

    def __iter__(self) -> Iterator[tuple[str, Traced]]:
        """Names and values."""
        return iter(self.values.items())


def trace(
    model: DeviceModel,
    codes: NDArray[np.int64],
    *,
    keys: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Trace:
    """Runs the integer engine and keeps every value, the potentials of neurons included.

    Args:
        model: The model.
        codes: As :func:`qspinn.export.encode` gives them.
        keys: Layer -> key of the random bits of its roundings; None: from `seed`.
        seed: Of the random bits.
    """
    model = with_potentials(model)
    engine = IntegerEngine(model)
    kept: dict[int, list[Codes]] = {}

    def watch(step: int, number: int, values: Codes) -> None:
        kept.setdefault(number, []).append(np.array(values))

    answers = engine.run(codes, keys=keys, seed=seed, watch=watch)
    names = names_of(model)
    found = {
        names[number]: Traced(
            np.stack(kept[number]), engine.program.instructions[number].fraction_bits, place
        )
        for place, number in enumerate(_in_order(model))
    }
    return Trace(found, answers.sums, answers.fraction_bits)


def _in_order(model: DeviceModel) -> list[int]:
    """Numbers of operations; a potential comes before the spikes that it leads to."""

    def place(number: int) -> float:
        one = model.operations[number]
        return one.operands[0].source + 0.5 if isinstance(one.what, State) else number

    return sorted(range(len(model.operations)), key=place)
