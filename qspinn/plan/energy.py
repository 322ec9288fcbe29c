"""What an operation and the access to a bit of memory cost: documented constants, as data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["FLOAT", "EnergyModel"]

FLOAT = None
"""The word length of a float32 value."""

FLOAT_BITS = 32
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class EnergyModel:
    """Energy of single operations and memory accesses, in picojoules.

    The defaults are the figures for 45 nm and 0.9 V of M. Horowitz, "1.1 Computing's energy problem
    (and what we can do about it)", ISSCC 2014, pp. 10-14 (the figures that most estimates for
    neural networks use). Between and beyond them,

    * an addition of ``b`` bits costs what a straight line through the origin and the points of
      ``integer_add`` says: ``0.03 b/8`` up to 8 bits, ``0.03 + 0.07 (b - 8)/24`` from there on;
    * a multiplication of ``a`` by ``b`` bits, whose multiplier has ``a b`` cells, costs what a
      straight line through the origin and the points of ``integer_multiply`` says, taken over
      ``a b``: ``0.2 ab/64`` up to 64 cells, ``0.2 + 2.9 (ab - 64)/960`` from there on;
    * a bit of memory costs its share in an access of ``access_bits`` to the smallest memory that
      holds the whole network, and to ``dram`` where none does.

    Args:
        name: Where the figures come from.
        integer_add: Pairs of word length and pJ, the word lengths ascending.
        integer_multiply: The same of a multiplication of two such numbers.
        float_add: A float32 addition.
        float_multiply: A float32 multiplication.
        memories: Pairs of bytes and pJ per access, the sizes ascending.
        dram: pJ per access to what fits no memory. Horowitz gives 1.3 to 2.6 nJ.
        access_bits: Bits of an access.

    Raises:
        ValueError: An invalid figure.
    """

    name: str = "Horowitz, ISSCC 2014: 45 nm, 0.9 V"
    integer_add: Points = ((8, 0.03), (32, 0.1))
    integer_multiply: Points = ((8, 0.2), (32, 3.1))
    float_add: float = 0.9
    float_multiply: float = 3.7
    memories: Points = ((8192, 10.0), (32768, 20.0), (1048576, 100.0))
    dram: float = 1300.0
    access_bits: int = 64

    def __post_init__(self) -> None:
        for field in ("integer_add", "integer_multiply", "memories"):
            object.__setattr__(self, field, _points(field, getattr(self, field)))
        for field in ("float_add", "float_multiply", "dram", "access_bits"):
            value = getattr(self, field)
            if not _is_number(value) or value <= 0:
                raise ValueError(f"EnergyModel: {field}={value!r}; write a number above 0")

    def addition(self, bits: int | None) -> float:
        """PJ of adding two numbers of so many bits; ``FLOAT``: of two float32."""
        return self.float_add if bits is FLOAT else _on_line(self.integer_add, bits)

    def multiplication(self, bits: int | None, others: int | None) -> float:
        """PJ of multiplying numbers of these word lengths; one ``FLOAT`` makes it a float32's."""
        if bits is FLOAT or others is FLOAT:
            return self.float_multiply
        cells = tuple((length**2, cost) for length, cost in self.integer_multiply)
        return _on_line(cells, bits * others)

    def per_bit(self, held: int) -> float:
        """PJ per bit read or written, of a network that takes so many bits."""
        fitting = (cost for size, cost in self.memories if held <= 8 * size)
        return next(fitting, self.dram) / self.access_bits


def _on_line(points: Iterable[tuple[float, float]], at: float) -> float:
    """The value at ``at`` of straight lines through the origin and ``points``; the last goes on."""
    line = [(0.0, 0.0), *points]
    last = next((i for i, (x, _) in enumerate(line) if i and at <= x), len(line) - 1)
    (x0, y0), (x1, y1) = line[last - 1], line[last]
    return y0 + (y1 - y0) * (at - x0) / (x1 - x0)


def _points(field: str, given: Sequence[Sequence[float]]) -> Points:
    wanted = "write pairs of ascending sizes and pJ, such as [[8, 0.03], [32, 0.1]]"
    try:
        points = tuple((float(size), float(cost)) for size, cost in given)
    except (TypeError, ValueError):
        raise ValueError(f"EnergyModel: {field}={given!r}; {wanted}") from None
    sizes = [size for size, _ in points]
    ascending = sizes == sorted(set(sizes)) and all(size > 0 for size in sizes)
    if not points or not ascending or not all(0 < cost < math.inf for _, cost in points):
        raise ValueError(f"EnergyModel: {field}={given!r}; {wanted}")
    return points


def _is_number(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)  # type: ignore[arg-type]
