"""Metrics of spiking networks, as torchmetrics."""

from qspinn.metrics.accuracy import Accuracy, count_correct
from qspinn.metrics.activity import Activity, record_activity
from qspinn.metrics.drift import Drift, DriftMeter, LayerDrift
from qspinn.metrics.firing import Firing, ShowsSpikes, record_firing
from qspinn.metrics.firing_drift import SATURATED, FiringDrift
from qspinn.metrics.firing_fidelity import FiringFidelity
from qspinn.metrics.share import Share
from qspinn.metrics.spike_statistics import SpikeStatistics

__all__ = [
    "SATURATED",
    "Accuracy",
    "Activity",
    "Drift",
    "DriftMeter",
    "Firing",
    "FiringDrift",
    "FiringFidelity",
    "LayerDrift",
    "Share",
    "ShowsSpikes",
    "SpikeStatistics",
    "count_correct",
    "record_activity",
    "record_firing",
]
