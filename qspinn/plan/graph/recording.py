"""Records one forward pass, and where each number in it comes from.

Every number that a layer or an operation computes gets an identity of its own. Whatever only moves
numbers (views, copies, concatenations, permutations) moves identities, so nothing has to be known
of axes: what a layer was given shows which numbers of which layers it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from qspinn.plan.graph.arithmetic import ARITHMETIC
from qspinn.plan.graph.events import UNKNOWN, ZERO, Event
from qspinn.plan.graph.graph import Indices
from qspinn.plan.kinds import kind_of
from qspinn.plan.operations import address, leaves_grid, name_of, tensors_in, written_operands

_MOVING = frozenset(
    """
    clone cat stack repeat index_select index flip roll constant_pad_nd _unsafe_view gather
    upsample_nearest1d upsample_nearest2d upsample_nearest3d pixel_shuffle pixel_unshuffle
    channel_shuffle unfold im2col take slice_scatter select_scatter
    """.split()  # noqa: SIM905
)
_COPYING = frozenset({"_to_copy", "clone", "lift_fresh", "contiguous", "copy_"})
_ZEROS = frozenset({"zeros", "zeros_like", "new_zeros", "zero_"})
_FLOATING = frozenset({"upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "im2col"})


class Recorder(TorchDispatchMode):
    """Records what is computed while it is entered."""

    def __init__(self, module: nn.Module, example: Tensor) -> None:
        """Prepares to record a pass of `module` on `example`."""
        super().__init__()
        self.events: list[Event] = []
        self._next = 1
        self._identities: dict[int, Tensor] = {}
        self._held: list[Tensor] = []  # so that no memory is used again
        self._paused = 0
        self._frames: list[str] = [""]
        self._module = module
        self.made(example, Event("input", "", (), tuple(example.shape)))

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Sees the layers that are called."""
        handles: list[Any] = []
        inside: set[int] = set()
        for path, child in self._module.named_modules():
            if id(child) in inside:
                continue
            kind = kind_of(child)
            if kind in ("synapse", "neuron", "fallback", "declared"):
                inside.update(id(one) for one in child.modules())
                kind = "neuron" if kind == "fallback" else kind
            handles += self._hooks(path, child, None if kind == "norm" else kind)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hooks(self, path: str, child: nn.Module, kind: str | None) -> Iterator[Any]:
        given: list[Indices] = []

        def before(module: nn.Module, args: Any, kwargs: Any) -> None:
            self._frames.append(path)
            if kind is not None:
                given.append(self.identities(tensors_in((args, kwargs))[0]))
                self._paused += 1

        def after(module: nn.Module, args: Any, kwargs: Any, output: object) -> None:
            if self._frames[-1] == path:
                self._frames.pop()
            if kind is None:
                return
            self._paused -= 1
            made = tensors_in(output)
            if made and given:
                self._layer(kind, path, module, given.pop(), output)

        yield child.register_forward_pre_hook(before, with_kwargs=True)
        yield child.register_forward_hook(after, with_kwargs=True, always_call=True)

    def _layer(
        self, kind: str, path: str, module: nn.Module, given: Indices, output: object
    ) -> None:
        """Notes the call of a layer, and the state that it left."""
        if isinstance(module, neuron.NonSpikingBaseNode):
            self._readout(path, module, given, output)
            return
        made = tensors_in(output)[0]
        event = Event(kind, path, (given,), tuple(made.shape), what=type(module).__name__)
        event.is_multi = getattr(module, "step_mode", "s") == "m"
        self.made(made, event)
        state = getattr(module, "v", None)
        if kind == "neuron" and isinstance(state, Tensor) and address(state) != address(made):
            number = np.array([len(self.events) - 1])
            self.made(state, Event("state", path, (number,), tuple(state.shape)))

    def _readout(
        self, path: str, module: neuron.NonSpikingBaseNode, given: Indices, output: object
    ) -> None:
        """Notes potentials ``[T, *]``, and what is read of them."""
        event = Event("neuron", path, (given,), given.shape, is_multi=True, what="readout")
        self.made(torch.empty(given.shape), event)
        potentials, made = event.identities, tensors_in(output)
        if isinstance(output, list):
            for one, identities in zip(made, potentials, strict=True):
                self.put(one, identities)
        elif module.decode == "last_mem":
            self.put(made[0], potentials[-1])
        elif module.decode == "mean-mem":
            rows = np.moveaxis(potentials, 0, -1).reshape(-1, len(potentials))
            mean = Event("scale", path, (), given.shape[1:], factor=Fraction(1, len(potentials)))
            self._chain([Event("sum", path, (rows,), given.shape[1:]), mean], made[0])
        else:
            self.unknown(made[0], f"{module.decode} of potentials", {0: potentials})

    def identities(self, tensor: Tensor) -> Indices:
        """The identities of the numbers of a tensor, in its shape."""
        held = self._identities.get(address(tensor))
        if held is None:
            return np.full(tuple(tensor.shape), UNKNOWN)
        view = held.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())
        return view.numpy().copy()

    def made(self, tensor: Tensor, event: Event) -> None:
        """Gives the numbers of a tensor identities of their own."""
        event.first = self._next
        self._next += event.size
        self.events.append(event)
        fresh = torch.arange(event.first, self._next).reshape(event.shape)
        self.put(tensor, fresh)

    def put(self, tensor: Tensor, identities: Tensor | Indices) -> None:
        """Notes the identities of the numbers of a tensor."""
        held = self._identities.get(address(tensor))
        if held is None:
            count = tensor.untyped_storage().nbytes() // tensor.element_size()
            held = torch.full((count,), UNKNOWN, dtype=torch.int64)
            self._identities[address(tensor)] = held
            self._held.append(tensor)
        view = held.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())
        if not isinstance(identities, Tensor):
            identities = torch.from_numpy(np.array(identities))
        view.copy_(identities.reshape(tensor.shape))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs one operation, and notes it."""
        kwargs = kwargs or {}
        # Before an operation in place overwrites what it takes.
        known = {} if self._paused else self._known(args, kwargs)
        result = func(*args, **kwargs)
        if not self._paused and not func.is_view:
            self._note(func, args, kwargs, result, known)
        return result

    def _known(self, args: Any, kwargs: Any) -> dict[int, Indices]:
        return {
            id(one): self.identities(one)
            for one in tensors_in((args, kwargs))
            if address(one) in self._identities
        }

    def _note(self, func: Any, args: Any, kwargs: Any, result: Any, known: dict[int, Any]) -> None:
        name = name_of(func)
        written = written_operands(func, args, kwargs)
        made = written or tensors_in(result)
        if name in _ZEROS:
            for one in made:
                self.put(one, np.zeros(tuple(one.shape), np.int64))
            return
        if not known:
            return
        if (made and name in _COPYING) or name == "copy":
            source = args[1] if name.startswith("copy") and len(args) > 1 else args[0]
            moved = known.get(id(source), np.full(tuple(source.shape), UNKNOWN))
            self.put(made[0], np.broadcast_to(moved, tuple(made[0].shape)))
        elif name in _MOVING:
            self.put(made[0], self._moved(func, args, kwargs, known, name in _FLOATING))
        elif name in ARITHMETIC:
            self._compute(ARITHMETIC[name], name, args, kwargs, made[0], known)
        else:
            for one in made:
                self.unknown(one, leaves_grid(func, args, kwargs, result) or name, known)

    def _moved(
        self, func: Any, args: Any, kwargs: Any, known: dict[int, Any], floating: bool
    ) -> Tensor:
        def moved(one: object) -> object:
            if not isinstance(one, Tensor) or (id(one) not in known and not _is_real(one)):
                return one
            identities = torch.as_tensor(known.get(id(one), np.full(tuple(one.shape), UNKNOWN)))
            if bool((one == 0).all()) and id(one) not in known:
                identities = torch.zeros_like(identities)
            return identities.double() if floating else identities

        moved_args, moved_kwargs = tree_map(moved, (args, kwargs))
        result = tensors_in(func(*moved_args, **moved_kwargs))[0]
        return result.round().long() if floating else result

    def _compute(
        self,
        compute: Callable[..., Any],
        name: str,
        args: Any,
        kwargs: Any,
        made: Tensor,
        known: dict[int, Any],
    ) -> None:
        def identities(value: Any) -> Any:
            """Identities of a signal; of a constant its number."""
            if not isinstance(value, Tensor):
                return value
            if id(value) in known:
                return known[id(value)]
            if value.numel() == 1:
                return value.item()
            zeros = bool((value == 0).all())
            return np.full(tuple(value.shape), ZERO if zeros else UNKNOWN)

        events = compute(tree_map(identities, args), tree_map(identities, kwargs), made.shape)
        if events is None:
            self.unknown(made, name, known)
            return
        if isinstance(events, np.ndarray):
            self.put(made, events)
            return
        for event in events:
            event.path, event.what = self._frames[-1], name
        self._chain(events, made)

    def _chain(self, events: list[Event], made: Tensor) -> None:
        """Notes operations of which each takes what the one before computed."""
        before: Event | None = None
        for event in events:
            if before is not None:
                event.operands = (before.identities.reshape(event.shape),)
            self.made(made, event)
            before = event

    def unknown(self, made: Tensor, name: str, known: dict[int, Any]) -> None:
        """Notes the result of an operation that no graph holds."""
        taken = tuple(one.reshape(-1) for one in known.values())
        self.made(made, Event("unknown", self._frames[-1], taken, tuple(made.shape), what=name))


def _is_real(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dim() > 0
