"""The calls of traces, comparisons, adaptive neurons and random spikes."""

from __future__ import annotations

from qspinn.export.kernels.calls import ADAPTIVE, COMPARE, DRAWN, TRACE
from qspinn.export.model import AdaptiveNeuron, DeviceOperation
from qspinn.export.program import Instruction
from qspinn.steps.lowering import AdaptiveNumbers, FollowingNumbers
from qspinn.steps.random_spikes import SpikeNumbers

__all__ = ["plastic_call", "waiting_size"]


def plastic_call(one: Instruction) -> dict[str, int]:
    """Fields of a call that no place is part of."""
    n, to = one.numbers, one.to
    call = {} if to is None else to._asdict()
    if isinstance(n, FollowingNumbers):
        call |= {"kind": TRACE, "keep": n.keep, "gain": n.gain}
        return call | {"v_up": n.x_up, "x_up": n.gain_up, "down": n.down}
    if isinstance(n, AdaptiveNumbers):
        return call | _adaptive_call(one.what, n) | {"reset": one.reset or 0}
    if isinstance(n, SpikeNumbers):
        call |= {"kind": DRAWN, "factor": n.multiplier, "down": n.down}
        return call | {"key": n.key, "stream": n.purpose}
    return {"kind": COMPARE, "up": one.ups[0], "least": int(one.threshold)}


def _adaptive_call(what: AdaptiveNeuron, n: AdaptiveNumbers) -> dict[str, int]:
    call = {"kind": ADAPTIVE, "keep": n.keep, "inhibition": int(n.inhibition), "down": n.down}
    call |= {"v_up": n.v_up, "x_up": int(n.current_up), "up": n.fire_up}
    call |= {"refractory": what.refractory, "delay": what.delay}
    call |= {"stream": what.draws[0], "winners": what.draws[1]}
    return call | {"one_winner": int(what.one_winner)}


def waiting_size(one: DeviceOperation) -> int:
    """How many numbers adaptive neurons hold beside their potentials."""
    assert isinstance(one.what, AdaptiveNeuron)
    return one.size * (1 + one.what.delay)
