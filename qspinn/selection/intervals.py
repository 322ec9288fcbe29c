"""Confidence intervals of accuracies."""

from __future__ import annotations

import math

Z = 1.959963984540054
"""Of the normal distribution: 95% lie within so many standard deviations of the mean."""


def wilson_interval(accuracy: float, samples: int) -> tuple[float, float]:
    """The 95% confidence interval of an accuracy.

    Score interval of Wilson (Journal of the American Statistical Association 22:209-212, 1927),
    which, unlike the normal approximation, is right near 0 and 1 as well.

    Args:
        accuracy: Share of right answers, in [0, 1].
        samples: Number of answers, 1 or more.

    Returns:
        The lowest and the highest accuracy, in [0, 1].
    """
    spread = Z * Z / samples
    center = (accuracy + spread / 2) / (1 + spread)
    variance = accuracy * (1 - accuracy) / samples + spread / (4 * samples)
    half = Z * math.sqrt(variance) / (1 + spread)
    # At 0 and at 1 these ends are exact, and rounding must not move them past.
    low = 0.0 if accuracy <= 0 else max(0.0, center - half)
    high = 1.0 if accuracy >= 1 else min(1.0, center + half)
    return low, high


def shown_interval(accuracy: float | None, samples: int | None, digits: int = 1) -> str:
    """The interval in percent, as it stands behind an accuracy: ` [95.6, 98.2]`; empty for None."""
    if accuracy is None or samples is None:
        return ""
    low, high = wilson_interval(accuracy, samples)
    return f" [{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


def difference_margin(accuracy: float, samples: int) -> float:
    """The difference of two accuracies near this one that chance may cause, with 95% confidence.

    As if the two networks had been tested on samples of their own. Two that answer the same samples
    mostly err on the same ones, so that this is an upper bound.

    Args:
        accuracy: Of both, in [0, 1].
        samples: Number of answers of each, 1 or more.

    Returns:
        The half width of the interval around a difference of 0.
    """
    low, high = wilson_interval(accuracy, samples)
    return math.sqrt(2) * (high - low) / 2
