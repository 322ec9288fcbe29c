"""What operations take: other operations, or numbers gathered from several."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from qspinn.plan.graph.graph import Indices, Operation
from qspinn.plan.graph.steps import STATIC, Piece

__all__ = ["Draft", "Key", "Pattern", "Wiring"]


@dataclass(eq=False)
class Pattern:
    """Where each number of an operand comes from: node, delay and place in it; -1 for zeros."""

    nodes: Indices
    delays: Indices
    places: Indices

    def agrees(self, other: Pattern, is_first: bool) -> bool:
        """Whether `other`, of another step, is the same; zeros stand for what came before."""
        begins = (self.delays == 1) & (other.nodes < 0) if is_first else np.zeros(1, bool)
        same = (self.nodes == other.nodes) & (self.places == other.places)
        return bool(((same & (self.delays == other.delays)) | begins).all())


Key = tuple[Literal["node", "gather"], int]


@dataclass(eq=False)
class Draft:
    """An operation whose sources have no numbers yet."""

    key: Key
    sources: list[tuple[Key, int]]
    operation: Operation


@dataclass(eq=False)
class Wiring:
    """The operations that were drafted, with the gathers between them.

    Attributes:
        nodes: What each operation computes.
        drafts: The operations, in order.
    """

    nodes: list[Piece]
    drafts: list[Draft] = field(default_factory=list)
    _gathers: dict[tuple[object, ...], Key] = field(default_factory=dict)

    def _sources(self, pattern: Pattern) -> tuple[list[tuple[int, int]], Indices]:
        """Nodes and delays, and the places in what they are together; -1 for zeros."""
        together: list[tuple[int, int]] = []
        table = np.full(len(pattern.nodes), -1)
        offset = 0
        known = pattern.nodes >= 0
        pairs = pattern.nodes * 2 + pattern.delays
        firsts = {int(pair): int(np.argmax(pairs == pair)) for pair in np.unique(pairs[known])}
        for pair in sorted(firsts, key=firsts.__getitem__):
            node, delay = divmod(pair, 2)
            chosen = known & (pairs == pair)
            table[chosen] = pattern.places[chosen] + offset
            offset += len(self.nodes[node].numbers)
            together.append((node, delay))
        return together, table

    def gathered(self, pattern: Pattern, path: str) -> tuple[Key, int]:
        """One operand in this order: an operation itself, or a gather of some."""
        together, table = self._sources(pattern)
        if len(together) == 1:
            node, delay = together[0]
            if np.array_equal(table, np.arange(len(self.nodes[node].numbers))):
                return ("node", node), delay
        return self._gather(together, table, path), 0

    def with_table(
        self, pattern: Pattern, shape: tuple[int, ...]
    ) -> tuple[tuple[Key, int], Indices]:
        """One operand, and a table of places in it."""
        together, table = self._sources(pattern)
        if len(together) == 1:
            return (("node", together[0][0]), together[0][1]), table.reshape(shape)
        total = sum(len(self.nodes[node].numbers) for node, _ in together)
        return (self._gather(together, np.arange(total), ""), 0), table.reshape(shape)

    def _gather(self, together: list[tuple[int, int]], table: Indices, path: str) -> Key:
        known = (tuple(together), table.tobytes())
        if known not in self._gathers:
            key: Key = ("gather", len(self._gathers))
            steps = {self.nodes[node].step for node, _ in together}
            operation = Operation(
                "gather", (), (len(table),), path, is_static=steps == {STATIC}, table=table
            )
            sources: list[tuple[Key, int]] = [(("node", node), delay) for node, delay in together]
            self.drafts.append(Draft(key, sources, operation))
            self._gathers[known] = key
        return self._gathers[known]
