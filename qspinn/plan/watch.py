"""Sees every call and every operation of a forward pass, and follows the values through them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from qspinn.plan.batch_axis import Resize
from qspinn.plan.between import note_types, why_off_grid
from qspinn.plan.crossing import StepTracker
from qspinn.plan.frames import Frame
from qspinn.plan.inventory import Shapes
from qspinn.plan.kinds import kind_of
from qspinn.plan.neurons import has_threshold, most_spikes
from qspinn.plan.operations import (
    address,
    is_whole,
    tensors_in,
    written_operands,
)
from qspinn.plan.sightings import NO_LAYERS, Layout, Produced, Sightings, Value
from qspinn.plan.synapses import strangers_hooks


class Watch(TorchDispatchMode):
    """Follows values by their storage, through every operation of a forward pass.

    Spiking neurons answer with random spikes meanwhile, so that a network that does not fire yet
    still shows which inputs are binary and which are averages.
    """

    def __init__(
        self,
        module: nn.Module,
        states: Callable[[nn.Module], Shapes],
        resize: Resize | None = None,
    ) -> None:
        """Prepares to watch.

        Args:
            module: The module that is watched.
            states: Names and shapes of the states that a layer holds.
            resize: Changes the batch where the network is called.
        """
        super().__init__()
        self.resize = resize
        # Whether an error came out of a module, and not from what followed.
        self.failed_inside = False
        self.seen = Sightings()
        self.tracker = StepTracker()
        self.states = states
        self.paused = 0
        self.clock = 0
        self.spikes = torch.Generator().manual_seed(0)
        self.values: dict[int, Value] = {}
        # So that nothing that is computed later is taken for what had been freed: whether memory is
        # used again differs from run to run.
        self.storages: dict[int, StorageWeakRef] = {}
        # Before the hooks of this watch are among them.
        self.strange = {id(child) for child in module.modules() if strangers_hooks(child)}
        self.kinds = {id(child): kind_of(child) for child in module.modules()}
        self.root = Frame("", module, 0, 0, is_layer=False)
        self.frames: list[Frame] = []
        self.owners: dict[int, str] = {}
        for path, parameter in module.named_parameters(remove_duplicate=True):
            self.owners.setdefault(address(parameter), path)

    @property
    def frame(self) -> Frame:
        """The innermost module that is being called."""
        return self.frames[-1] if self.frames else self.root

    def hooks(self, path: str, child: nn.Module, is_layer: bool) -> Iterator[Any]:
        """Registers hooks before and after ``child``."""

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return self._enter(path, module, is_layer, args, kwargs)

        def after(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object
        ) -> object:
            return self._leave(path, module, is_layer, output)

        yield child.register_forward_pre_hook(before, with_kwargs=True)
        yield child.register_forward_hook(after, with_kwargs=True, always_call=True)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs one operation, and notes what it takes and where its result lies."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self.paused:
            return result
        self.clock += 1
        with self._unwatched():
            taken, made = tensors_in((args, kwargs)), tensors_in(result)
            self._remember(made)
            if func.is_view or _is_alias(func, taken, made):
                self.tracker.view(self.frame, func, args, taken, made)
            else:
                self._see_operation(func, args, kwargs, taken, made, result)
        return result

    def _enter(
        self,
        path: str,
        module: nn.Module,
        is_layer: bool,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        with self._unwatched():
            call = self.seen.called.get(path, 0)
            self.seen.called[path] = call + 1
            changed = None
            if self.resize is not None and not self.frames:
                changed = self.resize(args, kwargs, lambda one: address(one) not in self.values)
                args, kwargs = changed
                for one in tensors_in(changed):
                    if address(one) not in self.values:
                        self.tracker.forget(one)
                self.failed_inside = True  # until it has returned
            if self.kinds[id(module)] is None:
                args, kwargs = changed = tree_map(self._unexpanded, (args, kwargs))
            given = tensors_in((args, kwargs))
            self.tracker.child_call(self.frame, path, module, given)
            self.frames.append(Frame(path, module, call, self.clock, is_layer))
            if is_layer and given:
                self._see_input(path, module, given)
        return changed

    def _unexpanded(self, value: object) -> object:
        """A copy of a tensor that repeats its numbers without holding them, as ``expand`` does.

        The time steps of such a sequence could not be told apart.
        """
        if not isinstance(value, Tensor) or value.dim() == 0:
            return value
        strides = zip(value.shape, value.stride(), strict=True)
        if not any(size > 1 and stride == 0 for size, stride in strides):
            return value
        copied = value.clone(memory_format=torch.contiguous_format)
        self._remember([copied])
        self.tracker.forget(copied)
        known = self.values.get(address(value))
        if known is not None:
            self.values[address(copied)] = known
        return copied

    def _leave(self, path: str, module: nn.Module, is_layer: bool, output: object) -> object:
        with self._unwatched():
            frame = self.frames.pop()
            if not self.frames and output is not None:
                self.failed_inside = False
            shapes = self.states(module)
            if shapes:
                self.seen.state_shapes[path] = shapes
            if is_layer:
                output = self._see_output(frame, module, output)
            self._remember(tensors_in(output))
            self.tracker.child_output(self.frame, frame, tensors_in(output))
        return output

    def _remember(self, tensors: list[Tensor]) -> None:
        for one in tensors:
            if address(one) not in self.storages:
                self.storages[address(one)] = StorageWeakRef(one.untyped_storage())

    def _see_input(self, path: str, module: nn.Module, given: list[Tensor]) -> None:
        seen, main, kind = self.seen, given[0], self.kinds[id(module)]
        value = self.values.get(address(main))
        produced = None if value is None else value.produced
        seen.fed_by.setdefault(path, set()).add(None if produced is None else produced.path)
        if produced is not None and kind in ("norm", "neuron"):
            seen.consumed.setdefault(path, []).append((produced, Layout.of(main)))
        seen.sources.setdefault(path, set())
        for tensor in given:
            known = self.values.get(address(tensor))
            if known is not None:
                seen.sources[path] |= known.contents
        if kind in ("neuron", "fallback", "synapse"):
            self._report_off_grid(given, takes_current=kind != "synapse")
        if kind == "synapse":
            # Silence says nothing, of data or of sums (behind a rectifier); neurons are made to
            # answer.
            spikes = value is not None and value.is_signal and not value.contents
            shows = bool(main.any()) or spikes
            binary = _is_binary(main) and shows
            seen.binary_inputs[path] = seen.binary_inputs.get(path, True) and binary
            dimensions: int = module.weight.dim()  # type: ignore[operator]
            seen.has_batch |= 2 < dimensions <= main.dim()

    def _report_off_grid(self, given: list[Tensor], takes_current: bool) -> None:
        for tensor in given:
            value = self.values.get(address(tensor))
            if value is None:
                # Pixels and the like: a synapse layer has a format for them, a neuron has none.
                if takes_current and not is_whole(tensor):
                    where = self.seen.off_grid.setdefault("the network's own input", set())
                    where.add(self.frame.path)
                continue
            for what, where_ in value.off_grid:
                self.seen.off_grid.setdefault(what, set()).add(where_)

    def _see_output(self, frame: Frame, module: nn.Module, output: object) -> object:
        kind, strange = self.kinds[id(module)], id(module) in self.strange
        if kind in ("declared", "neuron", "fallback"):
            fires = kind == "declared" or has_threshold(module)
            most = most_spikes(module)
            are_spikes = kind == "neuron" and fires and not strange and most == 1
            if isinstance(output, Tensor) and fires:
                output = self._as_if_active(output, are_spikes, most)
            for one in tensors_in(output):
                self.values[address(one)] = Value(self.clock, is_signal=True)
                self.tracker.forget(one, are_spikes)
        elif kind is not None and isinstance(output, Tensor):
            if kind == "synapse":
                contents = frozenset({frame.path})
                self.values[address(output)] = Value(self.clock, contents, is_signal=True)
            if not strange:
                produced = Produced(frame.path, frame.call, output)
                self.values.setdefault(address(output), Value(self.clock)).produced = produced
                self.seen.produced.append(produced)
        return output

    def _as_if_active(self, output: Tensor, fires_binary: bool, most: int) -> Tensor:
        if most > 1:
            return torch.full_like(output, most)
        values = torch.rand(output.shape, generator=self.spikes).to(output)
        if fires_binary:
            # Quantised, it sends 0 and 1 to the last bit, whatever its surrogate answers in float.
            return values.round()
        # Others may send more than spikes, which does not show while they are silent.
        return output if bool((output != 0).any()) else values

    def _see_operation(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        taken: list[Tensor],
        made: list[Tensor],
        result: object,
    ) -> None:
        written = written_operands(func, args, kwargs)
        operands = [(one, self.values.get(address(one))) for one in taken]
        self._note_uses(func, operands)
        known = [value for _, value in operands if value is not None]
        contents = NO_LAYERS.union(*(value.contents for value in known))
        is_signal = any(value.is_signal for value in known)
        off_grid = frozenset[tuple[str, str]]().union(*(value.off_grid for value in known))
        inside = self._computing_layer()
        if inside is None and is_signal:
            owned = any(address(one) in self.owners for one, value in operands if value is None)
            why = why_off_grid(self.frame, owned, func, args, kwargs, result)
            if why is not None:
                off_grid |= {(why, self.frame.path)}
            if contents:
                note_types(self.seen, self.frames, func, operands, written)
        self.tracker.operation(self.frames or [self.root], func, taken, written, made)
        for tensor in (*made, *written):
            value = Value(self.clock, contents, is_signal, off_grid)
            self.values[address(tensor)] = value

    def _note_uses(self, func: Any, operands: list[tuple[Tensor, Value | None]]) -> None:
        for tensor, value in operands:
            if value is not None and value.produced is not None:
                by = self.frame.path if self.frame.is_layer else None
                self.seen.used_by.setdefault(value.produced.path, set()).add(by)
            owner = self.owners.get(address(tensor))
            if owner is not None and not self._holds(owner):
                name = str(func.overloadpacket.__name__)
                self.seen.outside_uses.setdefault(owner, set()).add(name)

    def _holds(self, parameter: str) -> bool:
        """Whether the layer that is being called holds this parameter."""
        frame = self._computing_layer()
        if frame is None:
            return False
        return any(
            address(one) == address(self._parameter(parameter)) for one in frame.module.parameters()
        )

    def _parameter(self, path: str) -> Tensor:
        return self.root.module.get_parameter(path)

    def _computing_layer(self) -> Frame | None:
        """The layer being called that a plan understands, if there is one."""
        for frame in reversed(self.frames):
            if frame.is_layer and self.kinds[id(frame.module)] not in (None, "norm"):
                return frame
        return None

    @contextmanager
    def _unwatched(self) -> Iterator[None]:
        self.paused += 1
        try:
            yield
        finally:
            self.paused -= 1


def _is_alias(func: Any, taken: list[Tensor], made: list[Tensor]) -> bool:
    """Whether an operation that is called no view only hands out the storage that it got."""
    if func._schema.is_mutable or not made or not taken:
        return False
    return all(address(one) == address(taken[0]) for one in made)


def _is_binary(value: Tensor) -> bool:
    return bool(((value == 0) | (value == 1)).all())


def storage_uses(value: Tensor) -> int:
    """How many tensors and views, of Python or of C++, hold the storage of ``value``."""
    return int(torch._C._storage_Use_Count(value.untyped_storage()._cdata))
