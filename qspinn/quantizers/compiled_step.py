"""One quantised time step, compiled by ``torch.compile``: the same numbers, in fewer passes.

Only the step is compiled, not the loop over time: compiling that takes minutes.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from qspinn.fixed_point import Format, fake_quantize
from qspinn.quantizers.charge import Firing, exact_step, fire_and_reset
from qspinn.steps.lowering import LeakyNumbers
from qspinn.steps.models import Step

CompiledStep = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class StepConstants:
    """All that a step of a layer depends on besides its tensors. Each is compiled in."""

    charge: Step  # the step of the potential
    n: LeakyNumbers  # its constants; a leak that is a tensor is left out
    firing: Firing  # how the layer fires; a threshold that is a tensor is left out
    format: Format  # of the membrane
    rounding: str  # of the membrane; not `stochastic`
    overflow: str  # of the membrane
    compute_dtype: torch.dtype  # in which the charge is exact
    spike_dtype: torch.dtype | None  # of the spikes; `None`: that of the current


@functools.cache
def compiled_step(constants: StepConstants) -> CompiledStep:
    """The compiled step for these constants, made once in a process.

    It takes the input current ``[N, *]``, the membrane ``[N, *]``, the decay and the threshold
    where they are tensors, else ``None``, and the surrogate function; it returns the spikes and
    the membrane after the step.
    """

    def step(
        x: Tensor,
        v: Tensor,
        decays: Tensor | None,
        thresholds: Tensor | None,
        surrogate: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        c = constants
        n = c.n if decays is None else c.n._replace(leak=decays)
        firing = c.firing if thresholds is None else c.firing._replace(threshold=thresholds)
        h = exact_step(c.charge, x, v, n, c.compute_dtype)
        h = fake_quantize(h, c.format, c.rounding, c.overflow)
        h = h.to(torch.promote_types(v.dtype, torch.float32))
        spike, v = fire_and_reset(h, surrogate, firing)
        return spike.to(c.spike_dtype or x.dtype), v

    # torch.compile keeps a limited number of versions per code object, of which all steps made
    # here would share one: batch sizes and modes of one layer would push out those of another.
    own = types.FunctionType(step.__code__.replace(), step.__globals__, closure=step.__closure__)
    return torch.compile(own, fullgraph=True, dynamic=False)
