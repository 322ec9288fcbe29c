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
from qspinn.plan.neurons import Charge
from qspinn.quantizers.charge import exact_charge, fire_and_reset

Step = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class StepConstants:
    """All that a step of a layer depends on besides its tensors. Each is compiled in.

    Attributes:
        charge: The charging formula.
        format: Of the membrane.
        rounding: Of the membrane; not ``stochastic``.
        overflow: Of the membrane.
        threshold: On its grid; ``None`` where it is a tensor.
        v_reset: On the membrane's grid; ``None``: soft reset.
        decay: On its grid; ``None`` where it is a tensor or there is none.
        decay_input: Whether the current decays too.
        detach_reset: Whether the reset is left out of the gradient.
        snaps: Whether spikes are brought to 0 and 1.
        compute_dtype: In which the charge is exact.
        spike_dtype: Of the spikes; ``None``: that of the current.
    """

    charge: Charge
    format: Format
    rounding: str
    overflow: str
    threshold: float | None
    v_reset: float | None
    decay: float | None
    decay_input: bool
    detach_reset: bool
    snaps: bool
    compute_dtype: torch.dtype
    spike_dtype: torch.dtype | None


@functools.cache
def compiled_step(constants: StepConstants) -> Step:
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
        decay = c.decay if decays is None else decays
        threshold = c.threshold if thresholds is None else thresholds
        assert threshold is not None  # one of the two has it
        h = exact_charge(c.charge, x, v, decay, c.v_reset, c.decay_input, c.compute_dtype)
        h = fake_quantize(h, c.format, c.rounding, c.overflow)
        h = h.to(torch.promote_types(v.dtype, torch.float32))
        spike, v = fire_and_reset(h, threshold, c.v_reset, surrogate, c.detach_reset, c.snaps)
        return spike.to(c.spike_dtype or x.dtype), v

    # torch.compile keeps a limited number of versions per code object, of which all steps made
    # here would share one: batch sizes and modes of one layer would push out those of another.
    own = types.FunctionType(step.__code__.replace(), step.__globals__, closure=step.__closure__)
    return torch.compile(own, fullgraph=True, dynamic=False)
