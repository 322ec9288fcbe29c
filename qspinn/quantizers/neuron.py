"""Quantised spiking neurons: every state on its grid at every time step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from spikingjelly.activation_based import base
from spikingjelly.activation_based import neuron as spiking
from torch import Tensor

from qspinn.plan.neuron_constants import reset_of
from qspinn.plan.spikingjelly_internals import memories, step_by_step
from qspinn.quantizers.charge import exact_step, fire_and_reset, snapped
from qspinn.quantizers.class_swap import Swapped, attached_quantizer, substituted
from qspinn.quantizers.compiled_step import compiled_step
from qspinn.quantizers.fused.choice import fused_sequence
from qspinn.quantizers.neuron_quantizer import NeuronQuantizer, is_values
from qspinn.steps.lowering import FilterNumbers
from qspinn.steps.traces import filtered

__all__ = ["FallbackNode", "NeuronQuantizer", "QuantizedFilter", "QuantizedNode"]
__all__ += ["QuantizedReadout", "QuantizedSimpleNode", "network_potentials", "sequence_number"]


# These step one by one by themselves, and record more than the potential.
_STEPPING = (spiking.ComplementaryLIFNode.multi_step_forward,)


class _SteppingNode(Swapped):
    """Steps through a sequence one by one, from states that are on their grids."""

    _quantizer: NeuronQuantizer

    # SpikingJelly's neurons point this at whole-sequence kernels that never call
    # the single step.
    multi_step_functional_forward = step_by_step

    def materialize_states(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], step_mode: str
    ) -> tuple[Any, ...]:
        """The neuron's own initial states, on their grids; ``[N, *]`` each."""
        quantizer = self._quantizer
        begins = not isinstance(states[0], Tensor)
        made: tuple[Any, ...] = super().materialize_states(  # type: ignore[misc]
            inputs, states, step_mode
        )
        named = zip(memories(self), states, made, strict=True)
        if not begins and made[0].shape == states[0].shape:
            return tuple(quantizer.entered(name, given, state) for name, given, state in named)
        quantizer.begin_sequence()
        return tuple(quantizer.initial(name, value, state) for name, value, state in named)


class QuantizedNode(_SteppingNode):
    """Mixin over SpikingJelly's ``BaseNode``: charges by an exact formula."""

    # As above: the subclasses' own would call a kernel.
    multi_step_forward = spiking.BaseNode.multi_step_forward

    def single_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], **kwargs: Any
    ) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
        """One time step: charge, round, fire, reset.

        Args:
            inputs: The input current ``[N, *]``.
            states: The membrane potential ``[N, *]`` first.
            **kwargs: Not used; SpikingJelly's signature has them.

        Returns:
            ``(spikes,)`` and the states after the step.
        """
        node: Any = self
        quantizer = self._quantizer
        x, v = inputs[0], states[0]
        firing = quantizer.firing(node, quantizer.threshold_of(node))
        if quantizer.compiled and not quantizer.observers:
            charge, n = quantizer.charging(node)
            step = compiled_step(quantizer.step_constants(x, charge, n, firing))
            tensors = [one if isinstance(one, Tensor) else None for one in (n.leak, firing[0])]
            spike, v = step(x, v, *tensors, node.surrogate_function)
        else:
            h = quantizer.charged(node, x, v)
            spike, v = fire_and_reset(h, node.surrogate_function, firing)
            v = quantizer.after_reset(node, v, firing.threshold)
            spike = quantizer.spikes_like(spike, x)
        quantizer.leave("v", v)
        return (spike,), (v, *states[1:])

    def multi_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], **kwargs: Any
    ) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
        """All steps of the input current ``[T, N, *]``, in one operation where that is possible."""
        fused = None
        if len(inputs) == 1:
            fused = fused_sequence(self, self._quantizer, inputs[0], states[0])
        if fused is None:
            return step_by_step(self, inputs, states, **kwargs)
        spikes, v = fused
        self._quantizer.leave("v", v)
        return (spikes,), (v, *states[1:])


class QuantizedFilter(_SteppingNode):
    """Mixin over ``SynapseFilter``: its trace decays by an exact formula, and is read out."""

    def single_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], **kwargs: Any
    ) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
        """One time step of the trace, rounded once."""
        quantizer = self._quantizer
        x, trace = inputs[0], states[0]
        n = FilterNumbers(leak=quantizer.decay_of(self))
        exact = exact_step(filtered, x, trace, n, torch.float64)
        kept = quantizer.rounded("out_i", exact).to(torch.promote_types(x.dtype, torch.float32))
        quantizer.leave("out_i", kept)
        return (quantizer.spikes_like(kept, x),), (kept,)


class FallbackNode(_SteppingNode):
    """Mixin over any other stepping neuron: its states are rounded after the step."""

    def multi_step_forward(self, x_seq: Tensor, *args: Any, **kwargs: Any) -> Any:
        """All time steps of ``x_seq`` ``[T, N, *]``, one by one, recorded where that is asked."""
        node: Any = self
        if getattr(self._float_class, "multi_step_forward", None) in _STEPPING:
            return super().multi_step_forward(x_seq, *args, **kwargs)  # type: ignore[misc]
        records = isinstance(node, spiking.BaseNode) or getattr(node, "store_v_seq", False)
        owner: Any = spiking.BaseNode if records else base.MemoryModule
        return owner.multi_step_forward(self, x_seq, *args, **kwargs)

    def single_step_functional_forward(
        self, inputs: tuple[Tensor, ...], states: tuple[Any, ...], **kwargs: Any
    ) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
        """The neuron's own step with quantised constants, then the rounding of its states."""
        quantizer = self._quantizer
        with _with_constants(self, _constants(quantizer, self)):
            outputs, states = super().single_step_functional_forward(  # type: ignore[misc]
                inputs, states, **kwargs
            )
        names = memories(self)
        rounded = tuple(
            quantizer.rounded(name, state) if is_values(state) else state
            for name, state in zip(names, states, strict=True)
        )
        for name, state in zip(names, rounded, strict=True):
            quantizer.leave(name, state)
        # What is read out of a state is what is held.
        held = {id(state): kept for state, kept in zip(states, rounded, strict=True)}
        outputs = tuple(held.get(id(output), output) for output in outputs)
        return tuple(_like(quantizer, output, inputs[0]) for output in outputs), rounded


class _ChargingInPlace(Swapped):
    """Charges its own ``v``, and rounds it."""

    _quantizer: NeuronQuantizer

    def neuronal_charge(self, x: Tensor) -> None:
        """Charges by the exact formula where there is one, else by the node's own."""
        node: Any = self
        if self._quantizer.model.is_exact:
            node.v = self._quantizer.charged(node, x, node.v)
        else:
            super().neuronal_charge(x)  # type: ignore[misc]
            node.v = self._quantizer.rounded("v", node.v)


class QuantizedSimpleNode(_ChargingInPlace):
    """Mixin over ``SimpleBaseNode``: rounds the charged potential, before it fires."""

    def single_step_forward(self, x: Tensor) -> Tensor:
        """One time step on the input current ``[N, *]``."""
        node: Any = self
        quantizer = self._quantizer
        if isinstance(node.v, Tensor):
            node.v = quantizer.entered("v", node.v, node.v)
        else:
            quantizer.begin_sequence()
            node.v = quantizer.initial("v", float(node.v), torch.full_like(x, float(node.v)))
        constants = _constants(quantizer, node)
        if quantizer.snaps:
            function = node.surrogate_function
            constants["surrogate_function"] = lambda h: snapped(function(h))
        with _with_constants(node, constants):
            spike: Tensor = super().single_step_forward(x)  # type: ignore[misc]
        if not quantizer.model.is_exact:
            node.v = quantizer.rounded("v", node.v)
        else:
            node.v = quantizer.after_reset(node, node.v, constants.get("v_threshold", 0.0))
        quantizer.leave("v", node.v)
        return quantizer.spikes_like(spike, x)


class QuantizedReadout(_ChargingInPlace):
    """Mixin over ``NonSpikingBaseNode``: rounds the potential that is read out."""

    def forward(self, x_seq: Tensor) -> Any:
        """All time steps of ``x_seq`` ``[T, N, *]``."""
        self._quantizer.begin_sequence()
        read: Any = super().forward(x_seq)  # type: ignore[misc]
        if isinstance(read, list):
            return [self._quantizer.spikes_like(v, x_seq) for v in read]
        return self._quantizer.spikes_like(read, x_seq)


def _constants(quantizer: NeuronQuantizer, node: Any) -> dict[str, Any]:
    constants: dict[str, Any] = {}
    if quantizer.threshold is not None:
        constants["v_threshold"] = quantizer.threshold_of(node)
    rests = "v" in quantizer.states or quantizer.unit is not None
    if rests and isinstance(getattr(node, "v_reset", None), int | float):
        constants["v_reset"] = quantizer.reset_of(node)
    return constants


@contextmanager
def _with_constants(node: Any, constants: dict[str, Any]) -> Iterator[None]:
    """Lets a step of the neuron's own see these constants, and keeps what it makes of them.

    A threshold that adapts is moved by the step itself.
    """
    versions = {name: _version(value) for name, value in constants.items()}
    with substituted(node, **constants):
        yield
        seen = {name: vars(node)[name] for name in constants}
    for name, value in seen.items():
        if value is not constants[name]:
            setattr(node, name, value)
        elif _version(value) != versions[name]:
            with torch.no_grad():
                getattr(node, name).copy_(value)


def _version(value: object) -> int:
    counts = isinstance(value, Tensor) and not value.is_inference()
    return value._version if counts else 0  # type: ignore[attr-defined]


def _like(quantizer: NeuronQuantizer, output: Any, x: Tensor) -> Any:
    return quantizer.spikes_like(output, x) if is_values(output) else output


def network_potentials(node: Any, v: Tensor) -> Tensor:
    """Potentials of a neuron layer as its network counts them.

    Args:
        node: The layer, with a quantizer or without.
        v: Its potentials ``[*, N, *]``, in units where it counts in a unit of its own.
    """
    quantizer = attached_quantizer(node)
    if not isinstance(quantizer, NeuronQuantizer) or quantizer.unit is None:
        return v
    return quantizer.unit.potential(v, reset_of(node) or 0.0)


def sequence_number(node: Any) -> int:
    """The number of the sequence that a neuron is in, or is about to begin."""
    begun: int = node._quantizer.sequences
    state = next(iter(memories(node).values()))
    return begun if isinstance(state, Tensor) else begun + 1
