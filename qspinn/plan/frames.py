"""Calls of modules, and values that cross from one time step to the next."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from torch import nn

Geometry = tuple[int, int, tuple[int, ...], tuple[int, ...]]


@dataclass
class Crossing:
    """A value that was written in one step and used in a later one.

    Attributes:
        storage: Where it lay.
        written: The step in which it was written.
        used: The step in which it was used.
        shape: Its shape, batch dimension included.
        is_given: Whether it was given to a layer, and not used by an operation.
        is_binary: Whether it holds spikes, of one bit each.
    """

    storage: int
    written: int
    used: int
    shape: tuple[int, ...]
    is_given: bool = False
    is_binary: bool = False


@dataclass
class Frame:
    """One call of a module.

    Attributes:
        path: Of the module.
        module: The module.
        call: The number of the call, from 0.
        began: When it began, counted in operations.
        is_layer: Whether the module is treated as a whole.
        calls: Child -> how many times this call has called it.
        children: Path -> child that was called.
        fed: Storages of what was handed to a child in the step that it was computed in.
        slices: Views of a sequence -> the number of the slice.
        counted: How many slices there are.
        steps: Storage -> the step that what lies there was computed in.
        writers: Storage and step of a value -> the operation that it comes from.
        readers: Storage and step of a value -> the operations that used it; ``None`` for a child.
        done: Step -> what was computed in it, and how many times.
        crossings: What crossed between steps within this call.
    """

    path: str
    module: nn.Module
    call: int
    began: int
    is_layer: bool
    calls: Counter[str] = field(default_factory=Counter)
    children: dict[str, nn.Module] = field(default_factory=dict)
    fed: set[int] = field(default_factory=set)
    slices: dict[Geometry, int] = field(default_factory=dict)
    counted: int = 0
    steps: dict[int, int] = field(default_factory=dict)
    writers: dict[tuple[int, int], str] = field(default_factory=dict)
    readers: dict[tuple[int, int], set[str | None]] = field(
        default_factory=lambda: defaultdict(set)
    )
    done: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    crossings: list[Crossing] = field(default_factory=list)
