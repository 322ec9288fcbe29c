"""Says what stays in floating point when a network is quantised."""

from __future__ import annotations

import warnings

from qspinn.plan import ResolvedPlan
from qspinn.quantizers.precision import rounded_sums


class FloatWarning(UserWarning):
    """Something of a quantised network stays in floating point."""


def warn_of_floats(plan: ResolvedPlan) -> None:
    """Warns once of what stays in float besides what the plan leaves there.

    The warning points at the line that called the caller.

    Args:
        plan: Calibrated.
    """
    summary, rounded = plan.summary(), rounded_sums(plan)
    lines = [] if summary.is_as_planned else summary.lines()
    lines += [f"rounded to float32: {path}: {why}" for path, why in rounded.items()]
    if lines:
        shown = "\n  ".join(lines)
        warnings.warn(
            f"not all of the network is in fixed point (plan.summary() says it again):\n  {shown}",
            FloatWarning,
            stacklevel=3,
        )
