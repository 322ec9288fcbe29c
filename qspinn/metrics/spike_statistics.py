"""How much the neurons of a layer fire."""

from __future__ import annotations

import torch
from torch import Tensor

from qspinn.metrics.accuracy import Counters


class SpikeStatistics(Counters):
    """Mean firing rate of a layer, and the share of its neurons that are silent.

    The firing rate is spikes per neuron and time step, in [0, 1]. A neuron is silent that has not
    fired in anything seen since the last reset. Before the first update both are NaN.
    """

    # Spikes per neuron: a scalar until the first batch says how many there are.
    counters = ("spikes", "steps")
    spikes: Tensor
    steps: Tensor

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
