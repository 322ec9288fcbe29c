"""What one forward pass shows of a module, and what follows for folding batch norms."""

from __future__ import annotations

import math
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from spikingjelly.activation_based import base
from spikingjelly.activation_based.surrogate import SurrogateFunctionBase
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from qspinn.plan.batch_axis import Resize, shapes_per_sample
from qspinn.plan.declared import declares_tensors, layers_of
from qspinn.plan.frames import Crossing
from qspinn.plan.inventory import Shapes
from qspinn.plan.kinds import kind_of
from qspinn.plan.neurons import charge_of, evaluation_mode, reset_states, state_names
from qspinn.plan.preserving import preserved_attributes
from qspinn.plan.sightings import Layout, Produced, Sightings
from qspinn.plan.synapses import channel_axis, channels_of, is_foldable, is_synapse
from qspinn.plan.watch import Watch, storage_uses


@dataclass
class Trace:
    """What one forward pass showed.

    Attributes:
        seen: What was seen, layer by layer.
        kept: Layers whose raw output is kept somewhere, or returned.
        state_shapes: Layer -> shapes of its states, as a device holds them for one sample.
        strange: Modules with foreign forward hooks.
        spike_states: Layer and name of what holds spikes, of one bit each.
    """

    seen: Sightings
    kept: frozenset[str] = frozenset()
    state_shapes: dict[str, Shapes] = field(default_factory=dict)
    strange: frozenset[str] = frozenset()
    spike_states: frozenset[tuple[str, str]] = frozenset()

    def called(self, path: str) -> bool:
        """Whether the module at ``path`` was called."""
        return path in self.seen.called

    def only_source(self, path: str) -> str | None:
        """The one layer whose output, unchanged, is the input of the layer at ``path``."""
        sources = self.seen.fed_by.get(path, set())
        return next(iter(sources)) if len(sources) == 1 else None

    def folds(self, module: nn.Module) -> dict[str, str]:
        """Synapse layer -> the batch norm that a device folds into it.

        It normalises the output channels of that layer, gets each of its outputs once and nothing
        else, and nothing else uses the output of the layer.
        """
        found: dict[str, str] = {}
        for path, norm in module.named_modules():
            source = self.only_source(path)
            if source is None or not is_foldable(norm) or self.strange & {path, source}:
                continue
            layer = module.get_submodule(source)
            if not is_synapse(layer) or source in self.kept:
                continue
            if self.seen.used_by.get(source, set()) <= {path} and self._meets(path, layer, norm):
                found[source] = path
        return found

    def channels_behind(self, module: nn.Module, path: str, folded: dict[str, str]) -> int | None:
        """The axis of a neuron's state along which the channels of its current lie, from the end.

        Args:
            module: The network.
            path: Of the neuron, whose input is the output of one synapse layer.
            folded: Synapse layer -> the batch norm that is folded into it.

        Returns:
            -1 behind a linear layer, -3 behind a convolution of images. None where it cannot be
            told, or where anything else gets the current, too.
        """
        source = self.only_source(path)
        consumed = self.seen.consumed.get(path, [])
        behind = {norm: synapse for synapse, norm in folded.items()}
        synapse = behind.get(source, source) if source is not None else None
        if source is None or synapse is None or {source, synapse} & self.kept:
            return None
        # An image that stays is computed with once, for all time steps.
        calls = {produced.call for produced, _ in consumed}
        if calls != set(range(self.seen.called[synapse])) or source in self.strange:
            return None
        users = (self.seen.used_by.get(source, set()), self.seen.used_by.get(synapse, set()))
        if users[0] - {path} or users[1] - {path, source}:
            return None
        layer = module.get_submodule(synapse)
        axes = {_channels_at(layer, produced, taken) for produced, taken in consumed}
        return next(iter(axes)) if len(axes) == 1 else None

    def _meets(self, path: str, layer: nn.Module, norm: nn.Module) -> bool:
        consumed = self.seen.consumed.get(path, [])
        calls = sorted(produced.call for produced, _ in consumed)
        source = consumed[0][0].path
        if calls != list(range(self.seen.called[source])):
            return False
        return all(_same_channels(layer, norm, produced, taken) for produced, taken in consumed)


def trace_forward(module: nn.Module, run: Callable[[], object]) -> Trace:
    """Watches ``run()``, which does one forward pass of ``module``.

    It is run once or twice more with another batch size, to tell what a device holds for one
    sample. The module is in evaluation mode for these passes, and its states are reset.
    """
    watch = Watch(module, _states_held)
    with preserved_attributes(module):
        result = _watched(module, run, watch)
        kept = _kept(watch.seen.produced)
        persists = _keeps_something(module, watch)
        seen, spikes = _states_seen(module, watch), _spike_states(module, watch)
    del result

    def states_of(resize: Resize | None) -> tuple[dict[str, Shapes], bool]:
        other, ran = Watch(module, _states_held, resize), True
        # What follows the network, such as a loss, may want the batch that was given.
        with preserved_attributes(module), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                # What is kept is a state if a second pass computes with it.
                for _ in range(2 if persists else 1):
                    _watched(module, run, other)
            except Exception:
                ran = not other.failed_inside
            return _states_seen(module, other), ran

    if persists:
        seen = states_of(None)[0]

    def named(path: str) -> bool:
        return _names_its_states(module.get_submodule(path))

    states = shapes_per_sample(module, seen, states_of, named, watch.seen.has_batch)
    strange = {path for path, child in module.named_modules() if id(child) in watch.strange}
    return Trace(watch.seen, kept, states, frozenset(strange), spikes)


def _watched(module: nn.Module, run: Callable[[], object], watch: Watch) -> object:
    handles = [
        handle
        for path, child, is_layer in _watched_modules(module)
        for handle in watch.hooks(path, child, is_layer)
    ]
    reset_states(module)
    try:
        with torch.inference_mode(False), evaluation_mode(module), watch:
            result = run()
    finally:
        for handle in handles:
            handle.remove()
        reset_states(module)
    watch.tracker.finish(watch.root)
    return result


def _keeps_something(module: nn.Module, watch: Watch) -> bool:
    """Whether a module that no plan understands has kept what it computed."""
    return any(
        isinstance(value, Tensor) and watch.tracker.wrote(value)
        for _, child in layers_of(module)
        if not _names_its_states(child)
        for one in (*vars(child).values(), *child._buffers.values())
        for value in tree_leaves(one)
    )


def _states_seen(module: nn.Module, watch: Watch) -> dict[str, Shapes]:
    """States that SpikingJelly knows of, and those that crossed from step to step."""
    states = dict(watch.seen.state_shapes)
    for path, values in watch.tracker.states().items():
        child = module.get_submodule(path)
        if not _names_its_states(child):
            names = _names(child, values)
            states[path] = {name: one.shape for name, one in zip(names, values, strict=True)}
    return states


def _spike_states(module: nn.Module, watch: Watch) -> frozenset[tuple[str, str]]:
    """Layer and name of each state that is the output of a neuron, kept for the next step."""
    return frozenset(
        (path, name)
        for path, values in watch.tracker.states().items()
        for name, one in zip(_names(module.get_submodule(path), values), values, strict=True)
        if one.is_binary
    )


def _names_its_states(module: nn.Module) -> bool:
    """Whether what a module keeps is known, or is no part of a network, as in a metric."""
    if any(kind.__module__.startswith("torchmetrics.") for kind in type(module).__mro__):
        return True
    if charge_of(module) is not None or declares_tensors(module):
        return True
    return isinstance(module, base.MemoryModule) and bool(module._memories)


def _names(module: nn.Module, values: Iterable[Crossing]) -> list[str]:
    """Names for undeclared states, from attributes of the same shapes."""
    held = {**module._buffers, **vars(module)}
    names: list[str] = []
    for one in values:
        fitting = (
            name
            for name, value in held.items()
            if isinstance(value, Tensor) and tuple(value.shape) == one.shape and name not in names
        )
        names.append(next(fitting, f"state{len(names)}"))
    return names


def _watched_modules(module: nn.Module) -> Iterable[tuple[str, nn.Module, bool]]:
    """Path, module, and whether it is looked at as a whole."""
    inside: set[int] = set()
    for path, child in layers_of(module):
        if id(child) in inside:
            continue
        kind = kind_of(child)
        if kind == "neuron":
            # Its step is known: whatever it holds, such as a surrogate function, is no layer.
            inside.update(id(one) for one in child.modules())
        parts = (one for one in child.children() if not isinstance(one, SurrogateFunctionBase))
        yield path, child, kind is not None or not any(parts)


def _same_channels(layer: nn.Module, norm: nn.Module, produced: Produced, taken: Layout) -> bool:
    """Whether channel c of the norm is output channel c of the layer, at every position."""
    output = Layout.of(produced.output)
    own, axis = channel_axis(layer, len(output.shape)), channel_axis(norm, len(taken.shape))
    if len(taken.shape) <= axis or own < 0 or math.prod(output.shape) != math.prod(taken.shape):
        return False
    channels = channels_of(layer)
    if taken.shape[axis] != channels or output.shape[own] != channels:
        return False
    return channels == 1 or taken.strides[axis] == output.strides[own]


def _channels_at(layer: nn.Module, produced: Produced, taken: Layout) -> int | None:
    """Where the output channels of a layer lie in what a neuron takes, from the end."""
    output = Layout.of(produced.output)
    own = channel_axis(layer, len(output.shape)) - len(output.shape)
    same = taken.shape[own:] == output.shape[own:] and taken.strides[own:] == output.strides[own:]
    whole = math.prod(taken.shape) % math.prod(output.shape) == 0
    return own if same and whole and output.shape[own] == channels_of(layer) else None


def _kept(outputs: list[Produced]) -> frozenset[str]:
    """The layers whose output, or its storage, is held by anything but the watch."""
    # A norm that quantizers have folded hands on the very output of its layer.
    held = Counter(id(produced.output) for produced in outputs)
    kept = set()
    for produced in outputs:
        output = produced.output
        # This name and the argument; then the storage itself, and what the output is a view of.
        own_names = held[id(output)] + 2
        own_uses = 2 if output._base is None else 3
        if sys.getrefcount(output) > own_names or storage_uses(output) > own_uses:
            kept.add(produced.path)
    return frozenset(kept)


def _states_held(module: nn.Module) -> Shapes:
    """Names and shapes, batch included, of the states that SpikingJelly knows of."""
    shapes: Shapes = {}
    if isinstance(module, base.MemoryModule) or charge_of(module) is not None:
        for name in state_names(module):
            value = getattr(module, name)
            if isinstance(value, Tensor) and value.is_floating_point():
                shapes[name] = tuple(value.shape)
    return shapes
