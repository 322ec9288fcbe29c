"""Metrics of spiking networks, as torchmetrics."""

from qspinn.metrics.accuracy import Accuracy, count_correct
from qspinn.metrics.firing_fidelity import FiringFidelity
from qspinn.metrics.share import Share
from qspinn.metrics.spike_statistics import SpikeStatistics, record_spikes

__all__ = [
    "Accuracy",
    "FiringFidelity",
    "Share",
    "SpikeStatistics",
    "count_correct",
    "record_spikes",
]
