"""One forward pass, watched: what is called, what it is fed, and where its values go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from spikingjelly.activation_based import base, neuron, surrogate
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qspinn.plan.declared import declares_tensors, layers_of
from qspinn.plan.neurons import (
    charge_of,
    evaluation_mode,
    has_threshold,
    nearly_binary,
    reset_states,
    state_names,
)
from qspinn.plan.synapses import is_foldable, is_synapse

# These hand their input on, so they are no consumer that folding would cheat.
PASS_THROUGH = (nn.Identity, nn.Flatten, nn.Unflatten)

Shapes = dict[str, tuple[int, ...]]


@dataclass
class Trace:
    """What one forward pass showed.

    Attributes:
        called: Paths of the layers that were called.
        binary_inputs: Synapse layer -> whether its input was 0 or 1 throughout.
        fed_by: Layer -> the layers whose output, unchanged, was its input; ``None``
            among them for anything else.
        feeds: The reverse.
        sources: Layer -> the synapse layers whose sums reach it, through whatever
            lies between (additions, pooling, norms) but no neuron or synapse.
        used_elsewhere: Layers whose output was also used outside of any layer.
        state_shapes: Layer -> shapes of its states, without the batch dimension.
    """

    called: set[str] = field(default_factory=set)
    binary_inputs: dict[str, bool] = field(default_factory=dict)
    fed_by: dict[str, set[str | None]] = field(default_factory=dict)
    feeds: dict[str, set[str]] = field(default_factory=dict)
    sources: dict[str, set[str]] = field(default_factory=dict)
    used_elsewhere: set[str] = field(default_factory=set)
    state_shapes: dict[str, Shapes] = field(default_factory=dict)

    def only_source(self, path: str) -> str | None:
        """The one layer whose output, unchanged, is the input of the layer at ``path``."""
        sources = self.fed_by.get(path, set())
        return next(iter(sources)) if len(sources) == 1 else None

    def folds(self, module: nn.Module) -> dict[str, str]:
        """Synapse layer -> the batch norm that alone uses its output, and uses nothing else."""
        found = {}
        for path, child in module.named_modules():
            source = self.only_source(path)
            if not is_foldable(child) or source is None or self.feeds.get(source) != {path}:
                continue
            if source not in self.used_elsewhere and is_synapse(module.get_submodule(source)):
                found[source] = path
        return found


def trace_forward(module: nn.Module, run: Callable[[], object]) -> Trace:
    """Watches ``run()``, which does one forward pass of ``module``.

    Spiking neurons answer with random spikes meanwhile, so that a network that
    does not fire yet still shows which inputs are binary and which are averages.
    The module is in evaluation mode for the pass, and its states are reset.
    """
    watch = _Watch()
    handles: list[Any] = []
    neurons = (path for path, child in layers_of(module) if charge_of(child) is not None)
    surrogates = tuple(f"{path}.surrogate_function".lstrip(".") for path in neurons)
    for path, child in layers_of(module):
        # What is inside a surrogate function gives gradients, and is no layer.
        inside = path.startswith(surrogates)
        if _is_leaf(child) and not inside and not isinstance(child, PASS_THROUGH):
            handles += watch.hooks(path, child)
    reset_states(module)
    try:
        with torch.inference_mode(False), evaluation_mode(module), watch:
            run()
        for path, child in layers_of(module):
            # Not a leaf, and yet it keeps something: SpikingJelly's recurrent containers.
            if isinstance(child, base.MemoryModule) and path not in watch.trace.state_shapes:
                watch.trace.state_shapes[path] = _state_shapes(child)
    finally:
        for handle in handles:
            handle.remove()
        reset_states(module)
    return watch.trace


class _Watch(TorchDispatchMode):
    """Follows values by their storage; sees every operation of the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.trace = Trace()
        self.inside = 0
        self.spikes = torch.Generator().manual_seed(0)
        # Storage address -> the layer whose output lies there, and its version then.
        self.produced: dict[int, tuple[str, int]] = {}
        # Storage address -> the synapse layers whose sums went into what lies there.
        self.contents: dict[int, frozenset[str]] = {}
        # Kept, so that no address of an output is given out twice.
        self.alive: list[Tensor] = []

    def hooks(self, path: str, child: nn.Module) -> Iterable[Any]:
        """Hooks before and after ``child``."""

        def before(module: nn.Module, args: tuple[object, ...]) -> None:
            if args and isinstance(args[0], Tensor):
                with self._unwatched():
                    self._see_input(path, module, args[0])
            self.inside += 1

        def after(module: nn.Module, args: object, output: object) -> object:
            self.inside -= 1
            with self._unwatched():
                return self._see_output(path, module, output)

        return child.register_forward_pre_hook(before), child.register_forward_hook(after)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs one operation, and notes what it takes and where its result lies."""
        result = func(*args, **(kwargs or {}))
        taken = {_address(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        if not self.inside and not func.is_view:
            used = (self.produced[address][0] for address in taken if address in self.produced)
            self.trace.used_elsewhere.update(used)
        contents = frozenset[str]().union(*(self.contents.get(one, ()) for one in taken))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self.contents[_address(value)] = contents
        return result

    def _see_input(self, path: str, module: nn.Module, value: Tensor) -> None:
        trace, address = self.trace, _address(value)
        produced = self.produced.get(address)
        # Views share the storage; an in-place change moves the version on.
        unchanged = produced is not None and value._version == produced[1]
        source = produced[0] if produced is not None and unchanged else None
        trace.called.add(path)
        trace.fed_by.setdefault(path, set()).add(source)
        if source is not None:
            trace.feeds.setdefault(source, set()).add(path)
        trace.sources.setdefault(path, set()).update(self.contents.get(address, ()))
        if is_synapse(module):
            binary = _is_binary(value)
            trace.binary_inputs[path] = trace.binary_inputs.get(path, True) and binary

    def _see_output(self, path: str, module: nn.Module, output: object) -> object:
        self.trace.state_shapes[path] = _state_shapes(module)
        if not isinstance(output, Tensor):
            return output
        if declares_tensors(module) or (charge_of(module) is not None and has_threshold(module)):
            output = self._as_if_active(module, output)
            self.contents[_address(output)] = frozenset()
        elif is_synapse(module):
            self.contents[_address(output)] = frozenset({path})
        if is_synapse(module) or is_foldable(module):
            self.produced[_address(output)] = (path, output._version)
        self.alive.append(output)
        return output

    def _as_if_active(self, module: nn.Module, output: Tensor) -> Tensor:
        values = torch.rand(output.shape, generator=self.spikes).to(output)
        if charge_of(module) not in ("fallback", None):
            # Quantised, it sends 0 and 1 to the last bit, where its surrogate misses them in float.
            return values.round() if nearly_binary(output) else output
        # Others may send more than spikes; while they are silent, nobody knows.
        return output if bool((output != 0).any()) else values

    @contextmanager
    def _unwatched(self) -> Iterator[None]:
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1


def _is_leaf(module: nn.Module) -> bool:
    # A neuron may have children: a surrogate function of somebody's own, a regulariser.
    if declares_tensors(module) or charge_of(module) is not None:
        return True
    return all(isinstance(one, surrogate.SurrogateFunctionBase) for one in module.children())


def _address(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()


def _is_binary(value: Tensor) -> bool:
    return bool(((value == 0) | (value == 1)).all())


def _state_shapes(module: nn.Module) -> Shapes:
    shapes = {}
    if isinstance(module, base.MemoryModule | neuron.NonSpikingBaseNode):
        for name in state_names(module):
            value = getattr(module, name, None)
            if isinstance(value, Tensor) and value.is_floating_point():
                shapes[name] = tuple(value.shape[1:])
    return shapes
