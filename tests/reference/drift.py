"""What two spike trains have in common, neuron by neuron in plain Python and NumPy."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np


def earth_movers(first: np.ndarray, second: np.ndarray) -> float:
    """Wasserstein-1 distance of two samples: the area between their distribution functions."""
    places = np.unique(np.concatenate([first, second]))
    area = 0.0
    for left, right in itertools.pairwise(places):
        below_first = np.mean(first <= left)
        below_second = np.mean(second <= left)
        area += abs(below_first - below_second) * (right - left)
    return float(area)


def drift(spikes: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """What `FiringDrift` measures of spikes ``[T, N, *]``, one neuron after the other."""
    steps, samples, *shape = spikes.shape
    fired = spikes.reshape(steps, samples, -1).astype(bool)
    expected = reference.reshape(steps, samples, -1).astype(bool)
    found: dict[str, Any] = {}
    for prefix, train in (("", fired), ("reference_", expected)):
        rates = [int(train[:, :, n].sum()) / (steps * samples) for n in range(train.shape[2])]
        found[f"{prefix}rate"] = sum(rates) / len(rates)
        found[f"{prefix}silent"] = sum(rate == 0 for rate in rates) / len(rates)
        found[f"{prefix}saturated"] = sum(rate >= 0.95 for rate in rates) / len(rates)
        found[f"{prefix}rates"] = np.array(rates)
    found["rate_distance"] = earth_movers(found.pop("rates"), found.pop("reference_rates"))
    found["agreement"] = float((fired == expected).mean())
    either = (fired | expected).sum()
    found["overlap"] = float((fired & expected).sum() / either) if either else 1.0
    found["first_step"] = found["first_neuron"] = None
    for t in range(steps):
        for n in range(fired.shape[2]):
            if found["first_step"] is None and (fired[t, :, n] != expected[t, :, n]).any():
                found["first_step"] = t
                found["first_neuron"] = tuple(int(i) for i in np.unravel_index(n, shape))
    return found
