"""Metrics of spiking networks, as torchmetrics."""

from qspinn.metrics.accuracy import Accuracy, Share, count_correct
from qspinn.metrics.drift import Drift, DriftMeter, LayerDrift
from qspinn.metrics.firing import Activity, Firing, ShowsSpikes, record_activity, record_firing
from qspinn.metrics.firing_drift import SATURATED, FiringDrift, FiringFidelity
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
