"""How much the network computes, by the protocol of `qspinn.plan`."""

from __future__ import annotations

from torch import Tensor, nn

from qspinn.networks.reporting import ReportsWork
from qspinn.stdp.job import Result
from qspinn.stdp.settings import DiehlCookSettings

CHARGE_ADDITIONS = 2
"""Of a potential in a step: the current, and the comparison with its threshold."""


class ReportsPresentations(ReportsWork):
    """Says what presentations without learning compute, where somebody asks.

    Each spike of an input is added to the current of every neuron, and each spike of a neuron
    lowers the potential of every other one. Each step updates all potentials and refractory
    counters, and the spikes on their way.
    """

    settings: DiehlCookSettings
    weight: nn.Parameter
    neurons: int

    def _tell_presented(self, samples: int, steps: int, result: Result) -> None:
        self._tell_sequence(samples)
        self._tell(samples, steps, result.input_spikes, result.spike_counts)

    def _tell(self, samples: int, steps: int, arrived: Tensor | int, fired: Tensor) -> None:
        """What some presentations took.

        Args:
            samples: Presentations.
            steps: Time steps of each.
            arrived: Spikes of all inputs, or their number.
            fired: Spikes of all neurons, or how many of each.
        """
        report = self._report
        if report is None:
            return
        inputs, neurons, others = len(self.weight), self.neurons, self.neurons - 1
        size = {"samples": samples, "steps": steps}
        spikes = int(arrived.sum()) if isinstance(arrived, Tensor) else arrived
        sizes = (inputs * neurons, inputs, neurons)
        report.synapses("weight", spikes * neurons, sizes=sizes, **size)
        sizes = (neurons * others, neurons, neurons)
        lowered = int(fired.sum()) * others
        report.synapses("inhibition", lowered, sizes=sizes, recurrent=True, **size)
        report.updates("v", additions=CHARGE_ADDITIONS, leak="leak", **size)
        if self.settings.refractory > 0:
            report.updates("refractory", additions=1, **size)
        report.updates("pending_spikes", additions=0, **size)
