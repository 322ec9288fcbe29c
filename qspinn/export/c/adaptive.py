"""The steps of neurons with adaptive thresholds in C."""

from __future__ import annotations

from collections.abc import Callable

from qspinn.export.model import AdaptiveNeuron
from qspinn.export.program import Instruction
from qspinn.fixed_point import FixedPointFormat
from qspinn.steps import neurons
from qspinn.steps.lowering import AdaptiveNumbers
from qspinn.steps.targets.c import CFunction, Multiple, Range, c_function

__all__ = ["adaptive_functions"]


def adaptive_functions(
    one: Instruction, current: Range, theta: FixedPointFormat, name: Callable[[str], str]
) -> dict[str, CFunction]:
    """Role -> function, each translated from :mod:`qspinn.steps.neurons`.

    They are ``charge``, ``threshold``, ``reaches``, and where they are needed ``counted_down`` of
    refractory neurons and ``drawn_rank`` of the one that wins. ``lowered`` of ``charge`` is how
    many other neurons inhibit.

    Args:
        one: The layer.
        current: What its input can be.
        theta: Format of the thetas.
        name: From a role to the name in C.
    """
    what, n, size = one.what, one.numbers, one.operation.size
    assert isinstance(what, AdaptiveNeuron)
    assert isinstance(n, AdaptiveNumbers)
    found: dict[str, CFunction] = {}

    def add(step: Callable[..., object], role: str, **given: object) -> CFunction:
        found[role] = c_function(step, name(role), given)
        return found[role]

    others = 1 if what.one_winner else size - 1
    v = Range(what.state.code_min, what.state.code_max)
    add(
        neurons.adaptive_charge,
        "charge",
        v=v,
        current=current,
        lowered=Multiple(Range(0, others), int(n.inhibition)),
        ready=Range(0, 1) if what.refractory else 1,
        current_up=int(n.current_up),
        n=n,
    )
    thetas = Range(theta.code_min, theta.code_max)
    total = add(neurons.adaptive_threshold, "threshold", theta=thetas, n=n)
    add(neurons.reaches, "reaches", v=v, total=Range(total.low, total.high), n=n)
    if what.refractory:
        left, steps = Range(0, what.refractory), what.refractory
        add(neurons.counted_down, "counted_down", refractory=left, steps=steps, fired=Range(0, 1))
    if what.one_winner:
        add(neurons.drawn_rank, "drawn_rank", count=Range(0, size))
    return found
