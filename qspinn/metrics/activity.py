"""Records spikes and membrane potentials of every neuron layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn


@dataclass
class Activity:
    """The recorded activity of a neuron layer.

    Attributes:
        threshold: The potential at which its neurons fire; the highest where they differ.
    """

    threshold: float
    _spikes: list[Tensor] = field(default_factory=list, repr=False)
    _potentials: list[Tensor] = field(default_factory=list, repr=False)

    @property
    def spikes(self) -> Tensor:
        """``[T, N, *]``; T adds up over calls that follow each other."""
        return torch.cat(self._spikes)

    @property
    def potentials(self) -> Tensor:
        """``[T, N, *]``: after each step, its reset included, which is what a device keeps."""
        return torch.cat(self._potentials)


@contextmanager
def record_activity(network: nn.Module) -> Iterator[dict[str, Activity]]:
    """Records the activity of SpikingJelly's neurons inside the context, in either step mode.

    Quantised neurons are included. Everything is kept in memory: run few samples.

    Args:
        network: Any module; its results do not change.

    Yields:
        Layer path -> activity, in the network's order; empty where there is no
        ``neuron.BaseNode``, and without the layers that were not called or that
        record nothing.
    """
    nodes = {
        path: module
        for path, module in network.named_modules()
        if isinstance(module, neuron.BaseNode)
    }
    recorded: dict[str, Activity] = {}
    kept = {path: node.store_v_seq for path, node in nodes.items()}
    handles = []
    for path, node in nodes.items():
        node.store_v_seq = True
        handles.append(node.register_forward_hook(_recorder(path, recorded)))
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()
        for path, node in nodes.items():
            node.store_v_seq = kept[path]
        ordered = {path: recorded[path] for path in nodes if path in recorded}
        recorded.clear()
        recorded.update(ordered)


def _recorder(path: str, recorded: dict[str, Activity]) -> Any:
    def record(node: Any, inputs: tuple[Any, ...], output: Any) -> None:
        del inputs
        multi = node.step_mode == "m"
        if multi and node.v_seq is None:
            return  # steps through a sequence by itself, without a record of its potentials
        highest = float(torch.as_tensor(node.v_threshold).detach().max())
        activity = recorded.setdefault(path, Activity(highest))
        spikes = output.detach()
        activity._spikes.append(spikes if multi else spikes[None])
        activity._potentials.append(node.v_seq.detach() if multi else node.v.detach()[None])

    return record
