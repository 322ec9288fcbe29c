"""How much a DECOLLE layer computes, by the protocol of `qspinn.plan`."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from qspinn.networks.decolle.settings import LayerShape
from qspinn.networks.reporting import ReportsWork

TRACE_ADDITIONS = 2
"""Of ``p + k (q - p)``."""
REFRACTORY_ADDITIONS = 4
"""Of ``u - r``, of its comparison with the threshold, and of ``r - k r + refractory``."""


class ReportsSteps(ReportsWork):
    """Says what steps compute, where somebody asks.

    Traces are no spikes: each one that is not 0 is multiplied by the weights of all the sums that
    it is part of. The readout adds up a column of its weights for each spike. Only the last layer
    is read out on a device that classifies.
    """

    shape: LayerShape
    num_classes: int
    is_last: bool

    def _tell_traces(self, samples: int) -> None:
        if self._report is not None:
            for name in ("q", "p"):
                leak = f"leak_{name}"
                self._report.updates(name, samples=samples, additions=TRACE_ADDITIONS, leak=leak)

    def _tell_neurons(self, samples: int) -> None:
        if self._report is not None:
            additions = REFRACTORY_ADDITIONS
            self._report.updates("r", samples=samples, additions=additions, leak="leak_r")

    def _tell_sums(self, p: Tensor) -> None:
        """Of membrane traces ``[N, *]``."""
        if self._report is None:
            return
        shape = self.shape
        sizes = (self._sums_of(torch.ones_like(p[:1])), p[0].numel(), math.prod(shape.neurons))
        operations = self._sums_of((p != 0).to(p.dtype))
        self._report.synapses("weight", operations, sizes=sizes, samples=len(p), factor="p")

    def _tell_readout(self, spikes: Tensor, steps: int) -> None:
        """Of spikes ``[N, *]``, or of their sums over so many steps."""
        if self._report is None or not self.is_last:
            return
        features, classes = spikes[0].numel(), self.num_classes
        operations, sizes = int(spikes.sum()) * classes, (features * classes, features, classes)
        size = {"samples": len(spikes), "steps": steps}
        self._report.synapses("readout", operations, sizes=sizes, **size)

    def _sums_of(self, active: Tensor) -> int:
        """Of how many sums the ones in ``[N, *]`` are part, added up."""
        shape = self.shape
        if shape.kernel_size is None:
            return int(active.sum(dtype=torch.float64)) * shape.outputs
        kernel = torch.ones(1, *shape.weight[1:], dtype=torch.float64, device=active.device)
        met = F.conv2d(active.double(), kernel, None, shape.stride, shape.kernel_size // 2)
        return round(float(met.sum())) * shape.outputs
