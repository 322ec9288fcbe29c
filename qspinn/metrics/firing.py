"""Records which neurons fire when, in every kind of layer that shows its spikes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

SpikeWatcher = Callable[[Tensor], None]
"""Takes spikes ``[T, N, *]``; T adds up over calls that follow each other."""


@runtime_checkable
class ShowsSpikes(Protocol):
    """A module with neurons of its own that reports their spikes.

    Attributes:
        spike_watcher: None, or what the module calls with the spikes ``[T, N, *]`` (0 or 1)
            whenever it has computed some, one step or many. The module computes the same with and
            without.
    """

    spike_watcher: SpikeWatcher | None


@dataclass
class Firing:
    """The recorded spikes of a neuron layer.

    Attributes:
        threshold: The potential at which its neurons fire, the highest where they differ; None: the
            layer does not show it.
    """

    threshold: float | None = None
    _spikes: list[Tensor] = field(default_factory=list, repr=False)
    _potentials: list[Tensor] = field(default_factory=list, repr=False)

    @property
    def spikes(self) -> Tensor:
        """Whether each neuron fired, bool ``[T, N, *]``."""
        return torch.cat(self._spikes)

    @property
    def potentials(self) -> Tensor | None:
        """``[T, N, *]`` after each step, its reset included; None: the layer does not show them."""
        return torch.cat(self._potentials) if self.shows_potentials else None

    @property
    def shows_potentials(self) -> bool:
        """Whether there are potentials of every step."""
        return len(self._potentials) == len(self._spikes)

    @property
    def values(self) -> int:
        """How many spikes and silences it holds."""
        return sum(part.numel() for part in self._spikes)

    def add(self, spikes: Tensor, potentials: Tensor | None = None) -> None:
        """Appends steps, both ``[T, N, *]``."""
        self._spikes.append(self._kept(spikes.detach()))
        if potentials is not None:
            self._potentials.append(potentials.detach())

    def _kept(self, spikes: Tensor) -> Tensor:
        return spikes != 0


@dataclass
class Activity(Firing):
    """The recorded activity of a neuron layer: its spikes as it gave them, and its potentials."""

    threshold: float = 0.0  # such a layer shows it

    @property
    def potentials(self) -> Tensor:
        """``[T, N, *]``: after each step, its reset included, which is what a device keeps."""
        return torch.cat(self._potentials)

    def _kept(self, spikes: Tensor) -> Tensor:
        return spikes


@contextmanager
def record_firing(network: nn.Module, potentials: bool = True) -> Iterator[dict[str, Firing]]:
    """Records which neurons fire inside the context, in either step mode.

    Recorded are SpikingJelly's neurons, including quantised ones, and modules that implement
    :class:`ShowsSpikes`. Everything is kept in memory: run few samples.

    Args:
        network: Any module; its results do not change.
        potentials: Whether to keep the potentials of SpikingJelly's neurons, too.

    Yields:
        Layer path -> firing, in the order in which layers computed first; empty where no layer
        shows its spikes.
    """
    recorded: dict[str, Firing] = {}
    with ExitStack() as undo:
        for path, module in network.named_modules():
            if isinstance(module, neuron.BaseNode):
                undo.callback(_watch_node(path, module, recorded, potentials, Firing))
            elif isinstance(module, ShowsSpikes):
                undo.callback(_watch_own(path, module, recorded))
        yield recorded


@contextmanager
def record_activity(network: nn.Module) -> Iterator[dict[str, Activity]]:
    """As :func:`record_firing`, of SpikingJelly's neurons alone, and with all that they show.

    Yields:
        Layer path -> activity, in the network's order in the end, and without the layers that were
        not called or that record no potentials.
    """
    recorded: dict[str, Any] = {}
    nodes = [one for one in network.named_modules() if isinstance(one[1], neuron.BaseNode)]
    with ExitStack() as undo:
        for path, node in nodes:
            undo.callback(_watch_node(path, node, recorded, True, Activity))
        try:
            yield recorded
        finally:
            shown = {path: recorded[path] for path, _ in nodes if path in recorded}
            recorded.clear()
            recorded.update((path, one) for path, one in shown.items() if one.shows_potentials)


def _watch_own(path: str, module: ShowsSpikes, recorded: dict[str, Firing]) -> Callable[[], None]:
    before = module.spike_watcher

    def watch(spikes: Tensor) -> None:
        recorded.setdefault(path, Firing()).add(spikes)
        if before is not None:
            before(spikes)

    def undo() -> None:
        module.spike_watcher = before

    module.spike_watcher = watch
    return undo


def _watch_node(
    path: str, node: Any, recorded: dict[str, Firing], potentials: bool, kind: type[Firing]
) -> Callable[[], None]:
    kept = node.store_v_seq
    node.store_v_seq = kept or potentials

    def record(node: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del inputs
        multi = node.step_mode == "m"
        highest = float(torch.as_tensor(node.v_threshold).detach().max())
        firing = recorded.setdefault(path, kind(highest))
        v = node.v_seq if multi else node.v
        # What steps through a sequence by itself may leave no record of its potentials.
        shown = potentials and isinstance(v, Tensor)
        known = (v if multi else v[None]) if shown else None
        firing.add(output if multi else output[None], known)

    handle = node.register_forward_hook(record)

    def undo() -> None:
        handle.remove()
        node.store_v_seq = kept

    return undo
