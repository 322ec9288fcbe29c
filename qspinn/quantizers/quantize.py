"""From a trained module to a quantised one, in one call."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from qspinn.plan import (
    QuantizationPlan,
    reset_states,
)
from qspinn.plan.calling import call
from qspinn.plan.compiled import check_not_compiled
from qspinn.plan.expected import as_plan, check_module
from qspinn.quantizers.attach import attach_quietly, check_detached
from qspinn.quantizers.copying import independent_module
from qspinn.quantizers.over_batches import calibrated_on
from qspinn.quantizers.precision import warn_of_floats
from qspinn.quantizers.repair import as_repairs, repaired_on

RunBatch = Callable[[Any, Any], object]

OWNER = "quantize_module"


def quantize_module(
    module: nn.Module,
    plan: QuantizationPlan | Mapping[str, Any],
    batches: Tensor | Mapping[str, Any] | Iterable[Any],
    run: RunBatch | None = None,
    calibration_batches: int = 8,
    compile_steps: bool = False,
    repair: str | Sequence[str] = "none",
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
        repair: What is repaired on the same batches: ``"none"``, or any of ``"bias"``,
            ``"threshold"`` and ``"learned"``, joined by ``"+"`` or in a list; see
            :func:`qspinn.quantizers.repair.repair`. What is left as it was is logged.

    Returns:
        The copy, in evaluation mode. ``plan_of(copy)`` says what it was quantised with;
        neuron states are reset by ``functional.reset_net``, as ever.

    Warns:
        FloatWarning: Something stays in 32-bit, or lies on no grid between layers, without
            the plan saying so; with the summary of the plan.

    Raises:
        TypeError: An argument of another type; the error says what to give.
        ValueError: A plan that does not fit the module, no batches, or an unknown repair.
    """
    plan = _checked(module, plan, run)
    repairs = as_repairs(repair, f"{OWNER}: repair")
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

    runs = [partial(run_one, batch) for batch in used]
    found = repaired_on(copied, calibrated_on(copied, plan, runs), runs, repairs, OWNER)
    attach_quietly(copied, found.plan, compile_steps, found.values)
    warn_of_floats(found.plan)
    return copied


def _checked(module: object, plan: object, run: object) -> QuantizationPlan:
    check_module(module, OWNER)
    assert isinstance(module, nn.Module)
    check_not_compiled(module, OWNER)
    check_detached(module, OWNER)
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
