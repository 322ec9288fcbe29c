"""Metrics of spiking networks, as torchmetrics."""

from qspinn.metrics.accuracy import Accuracy, count_correct
from qspinn.metrics.activity import Activity, record_activity
from qspinn.metrics.firing_fidelity import FiringFidelity
from qspinn.metrics.share import Share
from qspinn.metrics.spike_statistics import SpikeStatistics, record_spikes

__all__ = [
    "Accuracy",
    "Activity",
    "FiringFidelity",
    "Share",
    "SpikeStatistics",
    "count_correct",
    "record_activity",
    "record_spikes",
]
