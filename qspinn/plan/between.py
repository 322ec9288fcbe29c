"""What happens to sums between the layers that a plan understands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from qspinn.plan.frames import Frame
from qspinn.plan.neurons import charge_of
from qspinn.plan.operations import (
    NORMS,
    address,
    float_tensors,
    leaves_grid,
    wants_one_type,
)
from qspinn.plan.sightings import NO_LAYERS, Sightings, Value
from qspinn.plan.synapses import SYNAPSES, is_foldable

OWN_PARAMETERS = "parameters that no layer quantises"


def why_off_grid(
    frame: Frame,
    uses_parameters: bool,
    operation: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    result: object,
) -> str | None:
    """Why an operation between layers leads off the grid; ``None`` where it does not.

    Also ``None`` where the module that does it is reported already, since parameters of its own
    stay in float.

    Args:
        frame: The module that is being called.
        uses_parameters: Whether an operand is a parameter.
        operation: The operator overload.
        args: Its arguments.
        kwargs: Its keyword arguments.
        result: What it returned.
    """
    why = leaves_grid(operation, args, kwargs, result)
    if why in NORMS:
        return why
    module = frame.module
    as_a_whole = frame.is_layer and bool(module._parameters)
    if isinstance(module, SYNAPSES) or as_a_whole:
        return None
    return OWN_PARAMETERS if uses_parameters and not is_foldable(module) else why


def note_types(
    seen: Sightings,
    frames: Sequence[Frame],
    operation: Any,
    operands: Sequence[tuple[Tensor, Value | None]],
    written: Sequence[Tensor],
) -> None:
    """Notes where sums in float64 are not accepted, or would be rounded silently.

    Args:
        seen: Takes the notes.
        frames: The modules that are being called, outermost first.
        operation: The operator overload.
        operands: Its tensors, and what is known of them.
        written: Those that it changes in place.
    """
    sums = [value for _, value in operands if value is not None and value.contents]
    if wants_one_type(operation) and len(float_tensors([one for one, _ in operands])) > 1:
        outer = _taker(frames, max(value.born for value in sums))
        if outer is not None:
            seen.narrowed.add(outer.path)
            return
    else:
        held = {address(one) for one, value in operands if value is None or not value.contents}
        if not any(address(one) in held for one in float_tensors(written)):
            return
    name = str(operation.overloadpacket.__name__).rstrip("_")
    for layer in NO_LAYERS.union(*(value.contents for value in sums)):
        seen.in_float32.setdefault(layer, name)


def _taker(frames: Sequence[Frame], born: int) -> Frame | None:
    """The innermost module that was given what was computed by then, and can be told its type.

    Not one that holds neurons, which take the exact sums.
    """
    for frame in reversed(frames):
        if frame.path == "" or "forward" in vars(frame.module):
            return None
        if born <= frame.began:
            holds_neurons = any(charge_of(one) is not None for one in frame.module.modules())
            return None if holds_neurons else frame
    return None
