"""Schedulers that want to know how many steps a training takes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

STEP_COUNT_ARGUMENTS = ("total_steps", "T_max")
"""How schedulers of torch call the number of steps (OneCycleLR; CosineAnnealingLR)."""


def step_count_argument(scheduler: Callable[..., Any]) -> str | None:
    """The argument of a scheduler in which it wants the number of optimizer steps.

    Args:
        scheduler: A scheduler class, or a ``functools.partial`` of one (such as Hydra makes with
            ``_partial_: true``).

    Returns:
        The name; None if it has no such argument, or if the partial sets it (or, for OneCycleLR,
        ``epochs``) already.
    """
    keywords = scheduler.keywords if isinstance(scheduler, functools.partial) else {}
    given = {name for name, value in keywords.items() if value is not None}
    parameters = inspect.signature(scheduler).parameters
    for name in STEP_COUNT_ARGUMENTS:
        if name in parameters and not given & {name, "epochs"}:
            return name
    return None
