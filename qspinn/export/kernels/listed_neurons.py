"""The call of a layer of neurons."""

from __future__ import annotations

from typing import Any

import numpy as np

from qspinn.export.kernels.calls import (
    COUNTED,
    FILTERED,
    FIRES,
    INTEGRATE,
    LEAK,
    LEAK_ONLY,
    NEURON,
    SILENT,
)
from qspinn.export.kernels.orders import Order
from qspinn.export.kernels.pools import Pool
from qspinn.export.model import NotExportableError
from qspinn.export.program import Instruction
from qspinn.steps import neurons
from qspinn.steps.lowering import FilterNumbers, LeakyNumbers
from qspinn.steps.models import MODELS

__all__ = ["neuron_call"]

_STEPS = {neurons.integrate: INTEGRATE, neurons.leak: LEAK, neurons.leak_only: LEAK_ONLY}


def neuron_call(one: Instruction, order: Order, constants: Pool) -> dict[str, int]:
    """Fields of the call of a layer of neurons; its constants are added to the pool.

    Raises:
        NotExportableError: Its step has no kernel.
    """
    what, n, to = one.what, one.numbers, one.to
    model = MODELS[what.model]
    assert to is not None
    call = {"kind": NEURON, **to._asdict(), "threshold": -1, "gives": SILENT}

    def laid_out(values: Any) -> int:
        full = np.broadcast_to(np.asarray(values, np.int64), one.operation.shape).ravel()
        return constants.add(full if order is None else full[order])

    if isinstance(n, FilterNumbers):
        assert model.reads_out
        call |= {"step": FILTERED, "leak": laid_out(n.leak), "one": n.one, "down": n.down}
        return call | {"v_up": n.trace_up, "x_up": n.x_up, "other_up": n.leak_up}
    step = model.step(what.decay_input)
    if step not in _STEPS or not isinstance(n, LeakyNumbers):
        raise NotExportableError(
            f"{one.operation.path}: neurons of the kind {what.model!r} have no compiled kernel; "
            "run them with qspinn.export.IntegerEngine"
        )
    call |= {"step": _STEPS[step], "leak": laid_out(n.leak), "rest": n.rest, "down": n.down}
    call |= {"v_up": n.v_up, "x_up": n.x_up, "other_up": n.rest_up}
    if one.threshold is None:
        return call
    call |= {"threshold": laid_out(one.threshold), "gives": COUNTED if model.counts else FIRES}
    call |= {"soft": int(one.reset is None), "reset": one.reset or 0, "most": what.most}
    return call
