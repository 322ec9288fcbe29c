"""Type errors that say what to pass instead."""

from __future__ import annotations

from collections.abc import Mapping

from qspinn.plan.kind_check import a_kind, check_module
from qspinn.plan.quantization_plan import QuantizationPlan
from qspinn.plan.resolved import ResolvedPlan

__all__ = ["as_plan", "check_module", "check_resolved"]


def as_plan(plan: object, owner: str) -> QuantizationPlan:
    """A plan, or the plan of a dictionary.

    Raises:
        TypeError: Something else; the error says what to give.
        ValueError: A dictionary that is no plan.
    """
    if isinstance(plan, QuantizationPlan):
        return plan
    if isinstance(plan, Mapping):
        return QuantizationPlan.from_dict(plan)
    raise TypeError(
        f"{owner}: plan is {a_kind(plan)}; give a QuantizationPlan, such as "
        "QuantizationPlan.uniform(word_length=8), or the dictionary of one (plan.to_dict())"
    )


def check_resolved(plan: object, owner: str) -> None:
    """Refuses anything but a plan that was resolved against a module.

    Raises:
        TypeError: The error says how to resolve one.
    """
    if isinstance(plan, ResolvedPlan):
        return
    if isinstance(plan, QuantizationPlan | Mapping):
        made = "plan" if isinstance(plan, QuantizationPlan) else "QuantizationPlan.from_dict(plan)"
        raise TypeError(
            f"{owner}: plan is {a_kind(plan)}, which knows no module yet; write resolved = "
            f"calibrate(module, {made}.resolve(module, example_input), batch) and give that, or do "
            "it all by quantize_module(module, plan, batches)"
        )
    raise TypeError(
        f"{owner}: plan is {a_kind(plan)}; give a ResolvedPlan, from plan.resolve(module, "
        "example_input) or calibrate(module, resolved, batch)"
    )
