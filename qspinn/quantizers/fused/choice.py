"""Which layers of neurons step through a sequence in one operation, and what that is given."""

from __future__ import annotations

import functools
import logging
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode

from qspinn.fixed_point import FixedPointFormat
from qspinn.plan.neuron_constants import leak_of, stated_threshold
from qspinn.plan.overrides import is_patched
from qspinn.plan.spikingjelly_internals import STEP
from qspinn.plan.surrogates import constants_of
from qspinn.quantizers.charge import Firing
from qspinn.quantizers.neuron_quantizer import NeuronQuantizer
from qspinn.steps import neurons
from qspinn.steps.lowering import LeakyNumbers

__all__ = ["fused_sequence"]

log = logging.getLogger(__name__)

SMALLEST = 4096
"""Sequences with fewer elements step one by one, and need no compiled code."""
_MOST_BITS = 16
_KINDS = (neurons.integrate, neurons.leak, neurons.leak_only)
_HALVES = (torch.float16, torch.bfloat16)


def fused_sequence(
    node: Any, quantizer: NeuronQuantizer, x: Tensor, v: Tensor
) -> tuple[Tensor, Tensor] | None:
    """Steps through a sequence in one operation, where that is possible.

    It is for IF, LIF and PLIF neurons on a CPU, with formats of at most 16 bits for potentials and
    a surrogate function of SpikingJelly. Spikes and potentials are equal bit for bit to those of
    single steps. There is no second derivative.

    Args:
        node: The neurons.
        quantizer: What they compute with.
        x: Currents ``[T, N, *]``.
        v: Potentials before the first step ``[N, *]``.

    Returns:
        Spikes ``[T, N, *]`` and the potentials after the last step; None: step one by one.
    """
    if quantizer.observers or quantizer.compiled or not _is_plain(x, v):
        return None
    reason = _why_not(node, quantizer)
    if reason is None:
        constants = _constants(node, quantizer)
        if not isinstance(constants, str):
            return _run(node, quantizer, x, v, *constants)
        reason = constants
    _say(quantizer.states["v"].path if "v" in quantizer.states else type(node).__name__, reason)
    return None


@functools.cache
def _say(path: str, reason: str) -> None:
    log.debug("%s steps one by one: %s", path, reason)


def _is_plain(x: Tensor, v: Tensor) -> bool:
    """Whether these are values in memory, of a useful number, and nobody watches the operations."""
    traced = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    if traced or x.numel() < SMALLEST:
        return False
    if _get_current_dispatch_mode() is not None or _get_current_function_mode_stack():
        return False
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    plain = all(
        type(one) in (Tensor, nn.Parameter) and one.layout == torch.strided for one in (x, v)
    )
    if not plain or x.device.type != "cpu" or v.device.type != "cpu" or x.shape[1:] != v.shape:
        return False
    return x.dtype in (torch.float32, torch.float64, *_HALVES) and v.is_floating_point()


def _why_not(node: Any, quantizer: NeuronQuantizer) -> str | None:
    """What of the layer is not among what the operation knows, in words."""
    if "v" not in quantizer.states:
        return "its membrane is not quantised"
    state = quantizer.states["v"]
    if not isinstance(state.format, FixedPointFormat) or state.format.word_length > _MOST_BITS:
        return f"its membrane has more than {_MOST_BITS} bits"
    if quantizer.model.counts:
        return "its spikes are numbers"
    if state.step is not None:
        return "the step of its membrane learns"
    if quantizer.unit is not None:
        return "it counts in a unit of its own (scale=free)"
    if quantizer.snaps or constants_of(node.surrogate_function) is None:
        return "its surrogate function is none of SpikingJelly's, or holds more than numbers"
    if is_patched(node, STEP):
        return f"has a {STEP} that was put in place of its class's"
    if state.rounding == "stochastic" and state.draws is None:
        return "its random numbers come from torch's generator"
    return _drawn_anew(node, quantizer)


def _drawn_anew(node: Any, quantizer: NeuronQuantizer) -> str | None:
    """Whether a constant is another one at each step: one that learns, with random rounding."""
    if not node.training:
        return None
    for held, value in ((quantizer.threshold, stated_threshold), (quantizer.decay, leak_of)):
        drawn = held is not None and held.rounding == "stochastic"
        if drawn and isinstance(value(node), Tensor):
            return f"{held.path} is drawn anew at each step"  # type: ignore[union-attr]
    return None


def _constants(node: Any, quantizer: NeuronQuantizer) -> tuple[int, LeakyNumbers, Firing] | str:
    """The kind of the charge and its constants; or why the operation cannot work with them."""
    threshold = quantizer.threshold_of(node)
    if not quantizer.resets_exactly(node, threshold):
        return "a soft reset by its threshold leaves the membrane's grid"
    if not isinstance(threshold, Tensor) and not math.isfinite(threshold):
        return "it never fires"
    step, n = quantizer.charging(node)
    return _KINDS.index(step), n, quantizer.firing(node, threshold)


def _run(
    node: Any,
    quantizer: NeuronQuantizer,
    x: Tensor,
    v: Tensor,
    kind: int,
    n: LeakyNumbers,
    firing: Firing,
) -> tuple[Tensor, Tensor] | None:
    from qspinn.quantizers.fused import sequence  # numba, and what it compiles
    from qspinn.quantizers.fused.running import run_of

    double = torch.float64 in (x.dtype, v.dtype, quantizer.compute_dtype)
    run = run_of(node, quantizer.states["v"], kind, n, firing, v.shape, double)
    if run is None:
        _say(quantizer.states["v"].path, "a table of its gradients would be too large, or wrong")
        return None
    current = x.float() if x.dtype in _HALVES else x
    spikes, last = sequence.stepped(
        run, current, v.float(), _learned(n.leak), _learned(firing.threshold)
    )
    if not run.numbers:
        return None
    if run.draws is not None:
        run.draws.take(x.numel())
    last = last.to(torch.promote_types(v.dtype, torch.float32))
    return quantizer.spikes_like(spikes, x), last


def _learned(constant: Any) -> Tensor | None:
    return constant if isinstance(constant, Tensor) and constant.requires_grad else None
