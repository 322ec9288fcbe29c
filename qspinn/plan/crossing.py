"""Finds undeclared states of modules: values that cross from one time step to the next.

A time step shows itself in two ways. A module that is called once per step computes in one call
with what it wrote in an earlier one, whether it keeps that in an attribute or gets it back from its
caller. A module that loops over time by itself takes slices of its input, or calls its layers, in
turn; a value computed with the first slice that is used together with the second crosses.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from qspinn.plan.frames import Crossing, Frame, Geometry
from qspinn.plan.operations import address, name_of
from qspinn.plan.synapses import is_synapse

# What only collects the results of all steps.
_COLLECTING = frozenset({"cat", "stack"})
_SLICING = frozenset({"select", "unbind", "split", "split_with_sizes", "chunk", "slice"})
_SUMMING: frozenset[str | None] = frozenset({"add"})
_OVERWRITING = frozenset({"copy_", "zero_", "zero", "fill_", "fill", "copy"})


class StepTracker:
    """Collects what crosses between the steps of each module."""

    def __init__(self) -> None:
        """Starts with nothing."""
        # Storage -> the calls that were running when it was written, and its shape.
        self._written: dict[int, tuple[dict[str, int], tuple[int, ...]]] = {}
        self._spikes: set[int] = set()
        self._between_calls: dict[str, list[Crossing]] = defaultdict(list)
        self._within_calls: dict[str, list[Crossing]] = {}

    def view(
        self,
        frame: Frame,
        func: Any,
        args: tuple[Any, ...],
        taken: list[Tensor],
        made: list[Tensor],
    ) -> None:
        """Notes an operation that hands out views of its operand."""
        if not taken:
            return
        source, name = taken[0], name_of(func)
        known = frame.slices.get(_geometry(source))
        for number, one in enumerate(made):
            step = known
            if step is None and address(source) in frame.steps:
                continue  # computed here: its step is known by its storage
            if step is None and name in _SLICING and one.numel() < source.numel():
                step = _slice_number(name, args, number)
                if step is not None and step < 0:
                    dimension = args[1] if len(args) > 1 else 0
                    step += source.shape[dimension]
            if step is not None:
                frame.slices[_geometry(one)] = step
                frame.counted = max(frame.counted, step + 1)

    def operation(
        self,
        frames: Sequence[Frame],
        func: Any,
        taken: Iterable[Tensor],
        written: list[Tensor],
        made: list[Tensor],
    ) -> None:
        """Notes an operation that computes something."""
        name = name_of(func)
        read = list(taken)
        if name in _OVERWRITING and written:
            read = [one for one in read if one is not written[0]]
        if name not in _COLLECTING:
            self._between(frames, read)
        frame = frames[-1]
        self._within(frame, name, read, [*made, *written])
        calls = {one.path: one.call for one in frames}
        for one in (*made, *written):
            self._written[address(one)] = (calls, tuple(one.shape))
            self._spikes.discard(address(one))

    def child_call(self, frame: Frame, path: str, child: nn.Module, given: list[Tensor]) -> None:
        """Notes that the module of ``frame`` calls a child."""
        step = frame.calls[path]
        frame.calls[path] += 1
        frame.children[path] = child
        frame.done[step][path] += 1
        for one in given:
            self._cross(frame, one, step)
            if frame.steps.get(address(one)) == step:
                frame.fed.add(address(one))

    def child_output(self, frame: Frame, child: Frame, made: list[Tensor]) -> None:
        """Notes what a child returned to the module of ``frame``."""
        self._close(child)
        step = frame.calls[child.path] - 1
        for one in made:
            frame.steps[address(one)] = max(step, 0)

    def states(self) -> dict[str, list[Crossing]]:
        """Module -> the values that are held between its steps."""
        found: dict[str, list[Crossing]] = {}
        claimed: set[int] = set()
        for path, crossings in self._between_calls.items():
            found[path] = _held(crossings)
            claimed.update(one.storage for one in crossings)
        for path, held in self._within_calls.items():
            # What a layer gets back from its caller is a state of that layer.
            own = [one for one in held if one.storage not in claimed]
            if own and path not in found:
                found[path] = own
        return found

    def forget(self, tensor: Tensor, are_spikes: bool = False) -> None:
        """Notes that something new lies where ``tensor`` lies, which no operation wrote."""
        self._written.pop(address(tensor), None)
        (self._spikes.add if are_spikes else self._spikes.discard)(address(tensor))

    def wrote(self, tensor: Tensor) -> bool:
        """Whether an operation that was seen wrote what lies there."""
        return address(tensor) in self._written

    def _between(self, frames: Sequence[Frame], read: list[Tensor]) -> None:
        for tensor in read:
            known = self._written.get(address(tensor))
            if known is None:
                continue
            calls, shape = known
            for frame in reversed(frames):
                earlier = calls.get(frame.path)
                if earlier is not None and earlier < frame.call:
                    crossing = Crossing(address(tensor), earlier, frame.call, shape)
                    self._between_calls[frame.path].append(crossing)
                    break

    def _within(self, frame: Frame, name: str, read: list[Tensor], made: list[Tensor]) -> None:
        steps = [step for one in read if (step := self._step(frame, one)) is not None]
        if not steps:
            return
        # A loop whose current does not change shows its steps only by the calls in it.
        step = max(*steps, max(frame.calls.values(), default=1) - 1)
        if name not in _COLLECTING:
            frame.done[step][name] += 1
            for one in read:
                self._cross(frame, one, step, by=name)
        for one in made:
            frame.steps[address(one)] = step
            frame.writers[address(one), step] = name

    def _cross(self, frame: Frame, tensor: Tensor, step: int, by: str | None = None) -> None:
        storage = address(tensor)
        earlier = frame.steps.get(storage)
        if earlier is None or _geometry(tensor) in frame.slices:
            return
        frame.readers[storage, earlier].add(by)
        if earlier < step:
            shape = tuple(tensor.shape)
            is_binary = storage in self._spikes
            frame.crossings.append(Crossing(storage, earlier, step, shape, by is None, is_binary))

    def _step(self, frame: Frame, tensor: Tensor) -> int | None:
        step = frame.slices.get(_geometry(tensor))
        return frame.steps.get(address(tensor)) if step is None else step

    def _close(self, frame: Frame) -> None:
        """Keeps what crossed within a call, if the call did loop over time."""
        if not frame.crossings:
            return
        steps = max(frame.counted, _loops(frame))
        held = [
            one
            for one in _renewed(frame.crossings)
            # A running sum of outputs only collects.
            if not _only_collects(frame, (one.storage, one.written))
        ]
        if steps == 2:  # too few to tell a state from what is merely used twice
            held = [one for one in held if one.storage not in frame.fed]
        # Where what is computed at the end of a step is given on at the beginning of the next, it
        # is what operations take that tells a state from an output.
        computed = [one for one in held if not one.is_given]
        for crossings in (held, computed):
            if steps >= 2 and _is_loop(frame, crossings, steps):
                self._within_calls[frame.path] = _held(crossings)
                return

    def finish(self, root: Frame) -> None:
        """Closes the outermost frame."""
        self._close(root)


def _only_collects(frame: Frame, value: tuple[int, int]) -> bool:
    """Whether a value comes from an addition, and is used by additions only."""
    return {frame.writers.get(value), *frame.readers[value]} <= _SUMMING


def _renewed(crossings: list[Crossing]) -> list[Crossing]:
    """What is used in the step after the one that wrote it, and in no later one."""
    used: dict[tuple[int, int], set[int]] = defaultdict(set)
    for one in crossings:
        used[one.storage, one.written].add(one.used)
    return [one for one in crossings if used[one.storage, one.written] == {one.written + 1}]


def _is_loop(frame: Frame, held: list[Crossing], steps: int) -> bool:
    """Whether the same is done, and the same is held, from each step to the next.

    Parts of an input that are treated differently, such as query, key and value, are no steps.
    """
    shapes = [
        sorted({one.storage: one.shape for one in held if one.written == step}.values())
        for step in range(steps - 1)
    ]
    if len(shapes) > 2 and not shapes[-1]:
        shapes.pop()  # the last step ends with a call
    if not shapes[0] or any(one != shapes[0] for one in shapes):
        return False
    # The first step may begin with constants, and the last one has nothing to prepare.
    first, last = frame.done[min(1, steps - 2)], frame.done[max(1, steps - 2)]
    return first <= last or last <= first


def _loops(frame: Frame) -> int:
    """How many times a module calls its synapse layers, where that is the same for all."""
    counts = {
        count
        for path, count in frame.calls.items()
        if count > 1 and any(is_synapse(one) for one in frame.children[path].modules())
    }
    # A layer that is used twice may as well be shared by two places of the network.
    return counts.pop() if len(counts) == 1 and min(counts) > 2 else 0


def _held(crossings: list[Crossing]) -> list[Crossing]:
    """What is held at the boundary between two steps at which most is held; each storage once."""
    best: dict[int, Crossing] = {}
    for boundary in {one.used for one in crossings}:
        alive = {one.storage: one for one in crossings if one.written < boundary <= one.used}
        if _size(alive.values()) > _size(best.values()):
            best = alive
    return list(best.values())


def _size(crossings: Iterable[Crossing]) -> int:
    return sum(math.prod(one.shape) for one in crossings)


def _slice_number(name: str, args: tuple[Any, ...], number: int) -> int | None:
    if name == "select":
        return int(args[2])
    if name == "slice":
        begin, end = (args[2] if len(args) > 2 else 0), (args[3] if len(args) > 3 else None)
        whole = begin is not None and end is not None and end == begin + 1
        return int(begin) if whole else None
    return number


def _geometry(tensor: Tensor) -> Geometry:
    return (
        address(tensor),
        int(tensor.storage_offset()),
        tuple(tensor.shape),
        tuple(tensor.stride()),
    )
