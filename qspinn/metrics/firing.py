"""Records which neurons fire when, in every kind of layer that shows its spikes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        if len(self._potentials) < len(self._spikes):
            return None
        return torch.cat(self._potentials)

    @property
    def values(self) -> int:
        """How many spikes and silences it holds."""
        return sum(part.numel() for part in self._spikes)

    def add(self, spikes: Tensor, potentials: Tensor | None = None) -> None:
        """Appends steps, both ``[T, N, *]``."""
        self._spikes.append(spikes.detach() != 0)
        if potentials is not None:
            self._potentials.append(potentials.detach())


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
    undo: list[Callable[[], None]] = []
    try:
        for path, module in network.named_modules():
            if isinstance(module, neuron.BaseNode):
                undo.append(_watch_node(path, module, recorded, potentials))
            elif isinstance(module, ShowsSpikes):
                undo.append(_watch_own(path, module, recorded))
        yield recorded
    finally:
        for step in reversed(undo):
            step()


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
    path: str, node: Any, recorded: dict[str, Firing], potentials: bool
) -> Callable[[], None]:
    kept = node.store_v_seq
    node.store_v_seq = kept or potentials

    def record(node: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del inputs
        multi = node.step_mode == "m"
        highest = float(torch.as_tensor(node.v_threshold).detach().max())
        firing = recorded.setdefault(path, Firing(highest))
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
