"""Where a function in C is written: an operation, and what its code works with."""

from __future__ import annotations

from dataclasses import dataclass, field

from qspinn.export.c.codes import WHOLE, PackedArrays
from qspinn.export.c.planning import Place
from qspinn.export.c.reading import Ending, Values
from qspinn.export.c.text import holding
from qspinn.export.model import DeviceModel
from qspinn.export.program import Instruction
from qspinn.steps.words import STOCHASTIC

__all__ = ["Site", "StateArray"]


@dataclass(frozen=True)
class StateArray:
    """The states of a layer in the struct.

    Attributes:
        name: Of the member.
        kind: Type of an entry.
        entries: How many.
        get: Expression of state ``i``.
        put: Statement that stores ``v`` as state ``i``.
    """

    name: str
    kind: str
    entries: int
    get: str
    put: str

    @classmethod
    def of(cls, number: int, one: Instruction, arrays: PackedArrays, packed: bool) -> StateArray:
        """The states of a layer: packed, or in the smallest type that holds one."""
        name, size, fmt = f"v{number}", one.operation.size, one.what.state
        kind = holding(fmt.code_min, fmt.code_max)
        if not packed or fmt.word_length in WHOLE:
            return cls(name, kind, size, f"s->{name}[i]", f"s->{name}[i] = ({kind})v;")
        entries = (size * fmt.word_length + 7) // 8 + 4  # a read goes so far beyond the last one
        get = arrays.read(f"s->{name}", fmt.word_length, fmt.signed, "i")
        put = f"{arrays.putter(fmt.word_length)}(s->{name}, i, (int32_t)v);"
        return cls(name, "uint8_t", entries, get, put)


@dataclass(frozen=True, eq=False)
class Site:
    """An operation, and what the function that computes it works with.

    Attributes:
        model: The model.
        prefix: Of the type of the state.
        name: Of the function.
        number: Of the operation.
        one: The operation.
        sources: What it takes.
        taken: Where that lies.
        made: Where its output lies.
        arrays: Takes constants, and knows the functions that read them.
        tables: Takes the definitions of tables of the wiring.
        states: Where its states lie, where it has any.
        scratch: Where a layer adds up, the channels of one place after each other, if its output
            is then put in order.
        endings: Layer -> what is left to do to its sums, by what takes them.
    """

    model: DeviceModel
    prefix: str
    name: str
    number: int
    one: Instruction
    sources: tuple[Instruction, ...]
    taken: tuple[Place, ...]
    made: Place
    arrays: PackedArrays
    tables: list[str]
    states: StateArray | None = None
    scratch: Place | None = None
    endings: dict[int, Ending] = field(default_factory=dict)

    @property
    def values(self) -> Values:
        """What it takes first."""
        number, source = self.one.operation.operands[0].source, self.sources[0]
        ending = self.endings.get(number, Ending((), "{}"))
        return Values(self.taken[0], source.operation.size, source.operation.shape[0], ending)

    @property
    def state(self) -> StateArray:
        """Its states, of an operation that has some."""
        assert self.states is not None
        return self.states

    @property
    def size(self) -> int:
        """Values of its output."""
        return self.one.operation.size

    @property
    def draws(self) -> bool:
        """Whether it rounds stochastically."""
        return self.one.to is not None and self.one.to.mode == STOCHASTIC

    @property
    def random(self) -> str:
        """The next random bits of its roundings."""
        return f"draw(s->key{self.number}, s->drawn{self.number}++)"
