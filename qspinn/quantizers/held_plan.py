"""The plan that a module was quantised with, kept on the module."""

from __future__ import annotations

from torch import nn

from qspinn.plan import ResolvedPlan
from qspinn.plan.expected import check_module

_NAME = "_qspinn_plan"


def hold_plan(module: nn.Module, plan: ResolvedPlan) -> None:
    """Notes what ``module`` has been quantised with; copies and pickles carry it."""
    module.__dict__[_NAME] = plan


def drop_plan(module: nn.Module) -> None:
    """Forgets it, at the beginning of ``detach``.

    Raises:
        TypeError: Not a module.
    """
    check_module(module, "detach")
    module.__dict__.pop(_NAME, None)


def plan_of(module: nn.Module) -> ResolvedPlan:
    """The resolved plan that quantizers were attached to ``module`` with.

    Raises:
        TypeError: Not a module.
        ValueError: A module without quantizers, or one of which only a parent or a
            child has been given to ``attach``.
    """
    check_module(module, "plan_of")
    plan = module.__dict__.get(_NAME)
    if not isinstance(plan, ResolvedPlan):
        raise ValueError(
            f"plan_of: no quantizers were attached to this {type(module).__name__}; give the "
            "module that attach, quantize_module or load_quantized returned"
        )
    return plan
