"""What a plan must say before a network can be exported."""

from __future__ import annotations

from qspinn.export.model import NotExportableError
from qspinn.plan import ResolvedPlan
from qspinn.plan.summary import listed
from qspinn.quantizers.precision import rounded_sums

__all__ = ["MOST_SHOWN", "check_plan"]

MOST_SHOWN = 3
"""Paths that an error names."""


def check_plan(plan: ResolvedPlan) -> None:
    """Refuses a plan that leaves something in floating point, or sums that are not exact.

    Raises:
        NotExportableError: It does; the message names it.
    """
    quantized = {tensor.path for tensor in plan.tensors}
    missing = [
        tensor.path
        for one in plan.inventory.layers
        for tensor in one.tensors
        if tensor.role is not None and tensor.path not in quantized | plan.excluded
    ]
    if missing:
        raise NotExportableError(
            f"{listed(missing, MOST_SHOWN)} stay in 32-bit floating point, which a device model "
            "does not hold; write a plan that quantises them, such as QuantizationPlan.uniform(8)"
        )
    for path, reason in rounded_sums(plan).items():
        raise NotExportableError(f"{path}: {reason}, so they are not exact; shorten the words")
