"""From a trained module to a quantised one, in one call."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from qspinn.plan import (
    Inventory,
    QuantizationPlan,
    ResolvedPlan,
    inspect,
    needs_forward_pass,
    reset_states,
    resolve,
)
from qspinn.plan.calling import call
from qspinn.plan.compiled import check_not_compiled
from qspinn.plan.expected import as_plan, check_module
from qspinn.quantizers.attach import attach, is_attached
from qspinn.quantizers.calibration import calibrate
from qspinn.quantizers.copying import independent_module

RunBatch = Callable[[Any, Any], object]

OWNER = "quantize_module"


def quantize_module(
    module: nn.Module,
    plan: QuantizationPlan | Mapping[str, Any],
    batches: Tensor | Mapping[str, Any] | Iterable[Any],
    run: RunBatch | None = None,
    calibration_batches: int = 8,
    compile_steps: bool = False,
) -> nn.Module:
    """A quantised copy of a trained module.

    Args:
        module: Any module with SpikingJelly neurons; it stays as it is (its SpikingJelly
            states are reset).
        plan: What is quantised, and how: a plan, or the dictionary of one.
        batches: What formats are chosen on: one batch, or a list of batches, or anything
            else that gives batches, such as a DataLoader. A batch is a tensor, a tuple of
            positional arguments, or a dictionary of keyword arguments, unless ``run`` says
            otherwise.
        run: Runs a module on a batch, as ``run(module, batch)``; ``None`` calls the module.
        calibration_batches: At most so many of ``batches`` are used.
        compile_steps: See :func:`qspinn.quantizers.attach`.

    Returns:
        The copy, in evaluation mode. ``plan_of(copy)`` says what it was quantised with;
        neuron states are reset by ``functional.reset_net``, as ever.

    Warns:
        UserWarning: Something stays in 32-bit, or lies on no grid between layers, without
            the plan saying so; with the summary of the plan.

    Raises:
        TypeError: An argument of another type; the error says what to give.
        ValueError: A plan that does not fit the module, or no batches.
    """
    plan = _checked(module, plan, run)
    used = _list_of(batches, calibration_batches)
    copied = independent_module(module).eval()

    def run_one(batch: Any) -> None:
        reset_states(copied)
        if run is not None:
            run(copied, batch)
        elif isinstance(batch, list):
            raise TypeError(
                f"{OWNER}: a batch is a list, which does not say how the module takes it; write "
                "run=lambda module, batch: module(batch[0]), or give tensors, tuples of positional "
                "arguments or dictionaries of keyword arguments"
            )
        else:
            call(copied, batch)

    def run_all() -> None:
        for batch in used:
            run_one(batch)

    inventory = _fullest(copied, [partial(run_one, batch) for batch in used])
    resolved: ResolvedPlan = calibrate(copied, resolve(plan, inventory), run_all)
    attach(copied, resolved, compile_steps)
    summary = resolved.summary()
    if not summary.is_as_planned:
        lines = "\n  ".join(summary.lines())
        warnings.warn(f"{OWNER}: not all of it is in fixed point.\n  {lines}", stacklevel=2)
    return copied


def _checked(module: object, plan: object, run: object) -> QuantizationPlan:
    check_module(module, OWNER)
    assert isinstance(module, nn.Module)
    check_not_compiled(module, OWNER)
    if is_attached(module):
        raise ValueError(
            f"{OWNER}: quantizers are attached already; call qspinn.quantizers.detach first"
        )
    if run is not None and not callable(run):
        raise TypeError(
            f"{OWNER}: run is a {type(run).__name__}; write a function of module and batch, such "
            "as run=lambda module, batch: module(batch[0])"
        )
    return as_plan(plan, OWNER)


def _list_of(batches: object, count: object) -> list[Any]:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(
            f"{OWNER}: calibration_batches={count!r}; write a number of batches, 1 or more"
        )
    if isinstance(batches, Tensor | Mapping):
        return [batches]
    if isinstance(batches, tuple):
        raise TypeError(
            f"{OWNER}: batches is a tuple; write a list of batches. One batch of several "
            "positional arguments is [(first, second)]"
        )
    if isinstance(batches, str) or not isinstance(batches, Iterable):
        raise TypeError(
            f"{OWNER}: batches is a {type(batches).__name__}; give a tensor, a list of batches or "
            "a DataLoader"
        )
    found = list(itertools.islice(batches, count))
    if not found:
        raise ValueError(f"{OWNER}: batches gives no batch; give at least one")
    return found


def _fullest(module: nn.Module, runs: list[Callable[[], None]]) -> Inventory:
    """Of one dry run per batch: an input may look binary in one batch, and not in the next."""
    if not needs_forward_pass(module):
        return inspect(module)
    found = [inspect(module, run=run) for run in runs]
    return max(found, key=lambda inventory: len(list(inventory.tensors())))
