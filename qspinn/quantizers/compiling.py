"""Which of the neurons that are about to get quantizers step compiled."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from qspinn.quantizers.class_swap import attached_quantizer
from qspinn.quantizers.neuron import NeuronQuantizer, QuantizedNode


def compile_swaps(swaps: Iterable[tuple[nn.Module, type, object]]) -> None:
    """Marks the neurons whose step is compiled; the others step as ever.

    Args:
        swaps: Module, mixin and quantizer of each layer.

    Raises:
        ValueError: A membrane with stochastic rounding, or no step to compile.
    """
    compiled = 0
    for node, mixin, quantizer in swaps:
        if issubclass(mixin, QuantizedNode) and isinstance(quantizer, NeuronQuantizer):
            quantizer.compiled = _is_compilable(node, quantizer)
            compiled += quantizer.compiled
    if not compiled:
        raise ValueError(
            "compile_steps: there is no IF, LIF or PLIF neuron whose membrane and threshold are "
            "quantised, with scale=power_of_two, so there is no step to compile; write "
            "compile_steps=false"
        )


def step_uncompiled(module: nn.Module) -> None:
    """Lets all quantised neurons step without a compiler from now on: to the same numbers."""
    for child in module.modules():
        quantizer = attached_quantizer(child)
        if isinstance(child, QuantizedNode) and isinstance(quantizer, NeuronQuantizer):
            quantizer.compiled = False


def _is_compilable(node: nn.Module, quantizer: NeuronQuantizer) -> bool:
    state = quantizer.states.get("v")
    if state is None or quantizer.threshold is None or quantizer.model.counts:
        return False
    if quantizer.unit is not None:
        return False  # its gradient beyond the upper end is not among what is compiled
    if state.rounding == "stochastic":
        raise ValueError(
            f"{state.path}: rounding=stochastic draws from a generator of its own, which "
            "torch.compile cannot trace; write another rounding for the membrane, or "
            "compile_steps=false"
        )
    # A soft reset by a negative threshold may leave the grid's range, and is rounded once more.
    return quantizer.resets_exactly(node, quantizer.threshold_of(node))
