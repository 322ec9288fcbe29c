"""How much the neurons of a layer fire."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from spikingjelly.activation_based import neuron
from torch import Tensor, nn
from torchmetrics import Metric


class SpikeStatistics(Metric):
    """Mean firing rate of a layer, and the share of its neurons that are silent.

    The firing rate is spikes per neuron and time step, in [0, 1]. A neuron is silent that has not
    fired in anything seen since the last reset. Before the first update both are NaN.
    """

    full_state_update = False
    higher_is_better = None
    is_differentiable = False
    spikes: Tensor
    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        # One counter per neuron; a scalar until the first batch says how many there are.
        self.add_state("spikes", default=torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("steps", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, spikes: Tensor) -> None:
        """Adds the spikes ``[T, N, *]`` (0 or 1) of a layer with neurons ``*``.

        Raises:
            ValueError: Fewer than three dimensions, or other neurons than before.
        """
        if spikes.ndim < 3:
            raise ValueError(f"spikes {list(spikes.shape)}: expected [T, N, *]")
        counts = spikes.sum((0, 1)).to(torch.int64)
        if self.steps > 0 and counts.shape != self.spikes.shape:
            raise ValueError(
                f"spikes of neurons {list(counts.shape)}, before of {list(self.spikes.shape)}: "
                "use one SpikeStatistics per layer, and reset it when the image size changes"
            )
        self.spikes = self.spikes + counts
        self.steps = self.steps + spikes.shape[0] * spikes.shape[1]

    def compute(self) -> dict[str, Tensor]:
        """``firing_rate`` and ``silent_fraction``, float32 ``[]``."""
        if self.steps == 0:
            nan = torch.full((), torch.nan, device=self.spikes.device)
            return {"firing_rate": nan, "silent_fraction": nan}
        return {
            "firing_rate": self.spikes.sum() / (self.steps * self.spikes.numel()),
            "silent_fraction": (self.spikes == 0).float().mean(),
        }


@contextmanager
def record_spikes(network: nn.Module) -> Iterator[dict[str, SpikeStatistics]]:
    """Collects the statistics of every SpikingJelly neuron layer while the context lasts.

    Works in both step modes; the statistics stay readable afterwards.

    Args:
        network: Any module.

    Yields:
        Layer path -> statistics, in the network's order.

    Raises:
        ValueError: The network has no neuron layer.
    """
    nodes = {
        path: module
        for path, module in network.named_modules()
        if isinstance(module, neuron.BaseNode)
    }
    if not nodes:
        raise ValueError(
            f"{type(network).__name__} has no SpikingJelly neuron (a neuron.BaseNode) to record"
        )
    statistics = {path: SpikeStatistics() for path in nodes}
    handles = [
        node.register_forward_hook(_recorder(statistics[path])) for path, node in nodes.items()
    ]
    try:
        yield statistics
    finally:
        for handle in handles:
            handle.remove()


def _recorder(statistics: SpikeStatistics) -> Any:
    def record(node: Any, inputs: tuple[Any, ...], spikes: Tensor) -> None:
        del inputs
        spikes = spikes.detach()
        statistics.to(spikes.device).update(spikes if node.step_mode == "m" else spikes[None])

    return record
