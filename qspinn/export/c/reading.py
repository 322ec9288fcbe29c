"""Loops in C over what an operation takes, in the order of the model, however it lies."""

from __future__ import annotations

from dataclasses import dataclass

from qspinn.export.c.lanes import sum_of
from qspinn.export.c.planning import Place
from qspinn.export.c.text import Lines

__all__ = ["Ending", "Values"]


@dataclass(frozen=True)
class Ending:
    """What makes a sum of a layer its output, where what takes it does that.

    Attributes:
        constants: Definitions, with ``{o}`` for the number of the channel.
        value: An expression of them, with ``{}`` for the sum.
    """

    constants: tuple[str, ...]
    value: str


@dataclass(frozen=True)
class Values:
    """The values ``x`` that an operation takes.

    Attributes:
        place: Where they lie.
        size: How many.
        channels: How many the layer has that makes them.
        ending: What is left to do to them.
    """

    place: Place
    size: int
    channels: int
    ending: Ending

    @property
    def variables(self) -> tuple[str, ...]:
        """What the loops count with; ``i`` is the number of a value."""
        if self.place.lanes is None:
            return ("c", "p", "i") if self.place.interleaved else ("i",)
        return ("lane", "c", "p", "o", "i") if self.place.interleaved else ("lane", "k", "i")

    def open(self, code: Lines) -> str:
        """Opens the loops; an expression of the value."""
        if self.place.lanes is None and not self.place.interleaved:
            code.loop("i", self.size)
            return "x[i]"
        code("i = 0;")
        channels, at, places = self.channels, "p * {}u + c", self.size // self.channels
        if self.place.lanes is None:
            code.loop("c", channels)
            code.loop("p", places)
            return f"x[{at.format(channels)}]"
        channels //= 2
        number = "o" if self.place.interleaved else "i"
        constants = [one.format(o=number) for one in self.ending.constants]
        if self.place.interleaved:
            code("o = 0;")
        code("for (lane = 0; lane < 32u; lane += 16u) {")
        if self.place.interleaved:
            code.loop("c", channels)
            code(*constants)
            code.loop("p", places)
            at = at.format(channels)
        else:
            code.loop("k", channels)
            code(*constants)
            at = "k"
        return self.ending.value.format(sum_of(f"x[{at}]", "lane"))

    def close(self, code: Lines) -> None:
        """Closes them."""
        if self.place.lanes is not None or self.place.interleaved:
            code("i++;")
        code.close()
        if self.place.interleaved:
            code(*(["o++;"] if self.place.lanes else []), "}")
        if self.place.lanes is not None:
            code("}")
